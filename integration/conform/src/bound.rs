//! A policy bound to a case's model, and what it is shown.
use attention_kernels::{KernelError, PromptArgs, observe};
use kv_core::{
    Budget, Geometry, KeepPlan, LayerView, Needs, Observation, Policy, Registry, granted,
};

use crate::{
    ConformError,
    arrays::{Arrays, Layer},
    case::{Case, Granularity},
    error::Stop,
    job::Job,
    mask::Mask,
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
    pub(crate) fn observes(&self) -> bool {
        self.needs.observation != Observation::None
    }

    /// A layer with the heads that the case counts.
    pub(crate) fn layer(&self, layer: &Layer) -> Layer {
        match self.granularity {
            Granularity::KvHead => layer.clone(),
            Granularity::QueryHead => layer.repeated(),
        }
    }

    /// What the policy wants to see of a prompt of `tokens` tokens, `[H][n]`.
    pub(crate) fn observe(&self, layer: &Layer, tokens: usize) -> Result<Vec<Vec<f32>>, Stop> {
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
            Ok(Some(scores)) => Ok(scores.chunks_exact(tokens).map(<[f32]>::to_vec).collect()),
            Ok(None) => Err(Stop::unsupported("the policy observes nothing")),
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

    /// Asks for a plan for a layer's prompt, and does `then` with it. Without scores the policy observes nothing.
    pub(crate) fn plan<R>(
        &self,
        layer: usize,
        tokens: usize,
        scores: Option<&[Vec<f32>]>,
        then: impl FnOnce(&KeepPlan, &LayerView<'_>) -> R,
    ) -> R {
        let heads = self.geometry.kv_heads;
        let rows: Vec<&[f32]> = scores
            .unwrap_or_default()
            .iter()
            .map(Vec::as_slice)
            .collect();
        let mut view = LayerView::prefill(layer, heads, tokens, self.tokens(tokens));
        if scores.is_some() {
            view = view.with_scores(self.needs.observation, &rows);
        }
        let mut plan = KeepPlan::all(heads);
        self.policy.plan(&view, &mut plan);
        then(&plan, &view)
    }

    /// What the plan keeps of a layer's prompt, without the guard over the newest token: `[H][T]`.
    pub(crate) fn kept(
        &self,
        layer: usize,
        tokens: usize,
        scores: Option<&[Vec<f32>]>,
    ) -> Vec<Vec<u32>> {
        self.plan(layer, tokens, scores, KeepPlan::resolve_unguarded)
    }
}
