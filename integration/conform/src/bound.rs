//! A policy bound to a case's model, and what it is shown.
use std::borrow::Cow;

use attention_kernels::{KernelError, PromptArgs, observe};
use kv_core::{
    Budget, Geometry, KeepPlan, LayerView, Needs, Observation, Policy, Registry, Room, Rotation,
    granted,
};

use crate::{
    ConformError,
    arrays::Arrays,
    case::{Case, Granularity},
    error::Stop,
    job::Job,
    layer::Layer,
    mask::Mask,
    shown::Shown,
};

/// Tokens of a page. What is kept does not depend on it.
const BLOCK: usize = 16;

/// Positions that a model was trained for. Case files do not say, and it is only there to refuse a configuration.
const MAX_POSITIONS: usize = 1 << 17;

/// A policy, as a host has it.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) policy: Box<dyn Policy>,
    pub(crate) needs: Needs,
    pub(crate) geometry: Geometry,
    budget: Budget,
    granularity: Granularity,
}

impl Bound {
    pub(crate) fn new(
        registry: &Registry,
        case: &Case,
        job: &Job,
        mask: &Mask,
        arrays: &Arrays,
    ) -> Result<Self, Stop> {
        let shape = arrays.shape();
        let layers = job.layers.unwrap_or(mask.layers);
        if layers < mask.layers {
            return Err(Stop::case(format!(
                "a mask of {} layers for a model with {layers}",
                mask.layers
            )));
        }
        let geometry = Geometry {
            layers,
            kv_heads: mask.heads,
            group: shape.query_heads / mask.heads,
            head_dim: shape.head_dim,
            block: BLOCK,
            element_bytes: size_of::<f32>(),
            max_positions: MAX_POSITIONS,
        };
        let mut config = job.config.clone();
        // Lives until the policy has read it.
        let profile = job.profile.as_ref().map(|p| p.write(shape.query_heads));
        let profile = profile.transpose().map_err(|error| ConformError::Read {
            file: std::env::temp_dir(),
            error,
        })?;
        if let Some(file) = &profile {
            let path = file.path().to_string_lossy().into_owned();
            config.insert("profile".to_owned(), path.into());
        }
        let policy = registry.build(job.policy, config, &geometry, job.budget)?;
        Ok(Self {
            needs: policy.needs(),
            policy,
            geometry,
            budget: job.budget,
            granularity: case.granularity,
        })
    }

    /// Tokens per KV head for a prompt, as a host works them out.
    pub(crate) fn tokens(&self, prompt: usize) -> usize {
        granted(
            &*self.policy,
            &self.needs,
            &self.geometry,
            self.budget,
            prompt,
        )
    }

    /// Whether the policy wants to see anything of a prompt.
    pub(crate) fn looks(&self) -> bool {
        self.needs.observation != Observation::None || self.needs.reads.any()
    }

    /// A layer with the heads that the case counts.
    pub(crate) fn layer<'a>(&self, layer: &'a Layer) -> Cow<'a, Layer> {
        match self.granularity {
            Granularity::KvHead => Cow::Borrowed(layer),
            Granularity::QueryHead => Cow::Owned(layer.repeated()),
        }
    }

    /// What the policy wants to see of the first `tokens` tokens of a layer.
    pub(crate) fn show<'a>(
        &self,
        layer: Cow<'a, Layer>,
        tokens: usize,
        rotation: Option<&'a Rotation>,
    ) -> Result<Shown<'a>, Stop> {
        let scores = self.observe(&layer, tokens)?;
        Shown::new(layer, self.needs.reads, rotation, scores)
    }

    /// What the policy observes, `[H][n]`.
    fn observe(&self, layer: &Layer, tokens: usize) -> Result<Option<Vec<Vec<f32>>>, Stop> {
        let Needs {
            observation,
            reduction,
            ..
        } = self.needs;
        let args = PromptArgs {
            queries: &layer.queries,
            keys: &layer.keys,
            rows: layer.shape.tokens,
            tokens,
            group: self.geometry.group,
            head_dim: layer.shape.head_dim,
            scale: self.scale(),
            softcap: None,
        };
        match observe(observation, reduction, &args) {
            Ok(scores) => {
                let rows = |all: Vec<f32>| all.chunks_exact(tokens).map(<[f32]>::to_vec).collect();
                Ok(scores.map(rows))
            }
            Err(error @ KernelError::NotObserved { .. }) => {
                Err(Stop::unsupported(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The factor on logits, `1 / sqrt(D)`.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a head has a few hundred dimensions"
    )]
    pub(crate) fn scale(&self) -> f32 {
        (self.geometry.head_dim as f32).sqrt().recip()
    }

    /// Does `then` with a view of a layer's prompt, of which a policy that looks at nothing is shown nothing.
    fn view<R>(
        &self,
        layer: usize,
        tokens: usize,
        shown: Option<&Shown<'_>>,
        then: impl FnOnce(&LayerView<'_>) -> R,
    ) -> R {
        let heads = self.geometry.kv_heads;
        let mut view = LayerView::prefill(layer, heads, tokens, self.tokens(tokens));
        let scores = shown.and_then(|shown| shown.scores.as_ref());
        let scores: Option<Vec<&[f32]>> =
            scores.map(|rows| rows.iter().map(Vec::as_slice).collect());
        if let Some(scores) = &scores {
            view = view.with_scores(self.needs.observation, scores);
        }
        let read = shown.filter(|shown| shown.is_read());
        let rows = read.map(|shown| shown.rows(self.scale()));
        if let Some(rows) = &rows {
            view = view.with_rows(rows);
        }
        then(&view)
    }

    /// Asks for a plan for a layer's prompt, and does `then` with it.
    pub(crate) fn plan<R>(
        &self,
        layer: usize,
        tokens: usize,
        shown: Option<&Shown<'_>>,
        then: impl FnOnce(&KeepPlan, &LayerView<'_>) -> R,
    ) -> R {
        self.view(layer, tokens, shown, |view| {
            let mut plan = KeepPlan::all(view.heads());
            self.policy.plan(view, &mut plan);
            then(&plan, view)
        })
    }

    /// What the plan keeps of a layer's prompt, without the guard over the newest token: `[H][T]`.
    pub(crate) fn kept(
        &self,
        layer: usize,
        tokens: usize,
        shown: Option<&Shown<'_>>,
    ) -> Vec<Vec<u32>> {
        self.plan(layer, tokens, shown, KeepPlan::resolve_unguarded)
    }

    /// What the policy ranks a layer's prompt by, if it ranks: `[H][n]`.
    pub(crate) fn ranks(
        &self,
        layer: usize,
        tokens: usize,
        shown: &Shown<'_>,
    ) -> Option<Vec<Vec<f32>>> {
        let scorer = self.policy.scorer().filter(|_| self.looks())?;
        Some(self.view(layer, tokens, Some(shown), |view| scorer.scores(view)))
    }

    /// Whether the heads of a layer compete for the tokens that it keeps.
    pub(crate) fn is_shared(&self, layer: usize, tokens: usize) -> bool {
        let room = self.policy.room(layer, tokens, self.tokens(tokens));
        matches!(room, Room::Together(_))
    }
}
