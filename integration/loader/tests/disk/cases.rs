//! Random layers, as a host shows them to a policy.
use kv_core::{
    Geometry, KeepPlan, LayerView, Needs, Observation, Policy, Position, PromptRows, Reads,
    Rotation, TokenClass,
};
use rand::{Rng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// One layer of one sequence.
pub(crate) struct Case {
    pub(crate) layer: usize,
    pub(crate) prompt: usize,
    pub(crate) budget: usize,
    positions: Option<Vec<Vec<Position>>>,
    scores: Vec<Vec<f32>>,
    rows: Option<Rows>,
    /// Whether the positions are what is held of a prompt that comes in chunks.
    in_chunks: bool,
}

/// What may be read of a prompt, with a token of padding in each head.
struct Rows {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    output_norms: Vec<f32>,
    classes: Vec<TokenClass>,
    rotation: Rotation,
    scale: f32,
    softcap: Option<f32>,
}

impl Rows {
    fn random(rng: &mut ChaCha8Rng, geometry: &Geometry, held: &[usize]) -> Self {
        let prompt = held.iter().copied().max().unwrap_or(0);
        let (heads, rows) = (geometry.kv_heads, prompt + 1);
        let mut floats = |count: usize| -> Vec<f32> {
            (0..count).map(|_| rng.random_range(-2.0..2.0)).collect()
        };
        let queries = floats(heads * geometry.group * rows * geometry.head_dim);
        let keys = floats(heads * rows * geometry.head_dim);
        let values = floats(heads * rows * geometry.head_dim);
        let output_norms = floats(heads * rows);
        let classes = [
            TokenClass::Plain,
            TokenClass::Special,
            TokenClass::Punctuation,
        ];
        let classes = (0..prompt).map(|_| some(rng, &classes)).collect();
        // Few enough to meet one twice.
        let pairs = rng.random_range(1..3);
        let halves = Rotation::of_base(100.0, 2 * pairs, 512);
        let angles = || (0..512).map(|position| halves.angles(position));
        let cos = angles().flat_map(|(cos, _)| cos.to_vec()).collect();
        let sin = angles().flat_map(|(_, sin)| sin.to_vec()).collect();
        Self {
            queries,
            keys,
            values,
            output_norms,
            classes,
            rotation: Rotation::new(pairs, cos, sin, rng.random()),
            scale: rng.random(),
            softcap: rng.random::<bool>().then(|| rng.random_range(1.0..30.0)),
        }
    }

    fn shown(&self, geometry: &Geometry) -> PromptRows<'_> {
        PromptRows {
            head_dim: geometry.head_dim,
            group: geometry.group,
            rows: self.classes.len() + 1,
            scale: self.scale,
            softcap: self.softcap,
            queries: Some(&self.queries),
            keys: Some(&self.keys),
            values: Some(&self.values),
            rotation: Some(&self.rotation),
            output_norms: Some(&self.output_norms),
            classes: Some(&self.classes),
        }
    }
}

impl Case {
    pub(crate) fn random(
        rng: &mut ChaCha8Rng,
        geometry: &Geometry,
        reads: Reads,
        tokens: impl Fn(usize) -> usize,
    ) -> Self {
        let prompt = rng.random_range(1..400);
        let in_chunks = reads.any() && !reads.queries && rng.random();
        let held: Vec<usize> = match !in_chunks && (rng.random() || reads.any()) {
            true => vec![prompt; geometry.kv_heads],
            false => (0..geometry.kv_heads)
                .map(|_| rng.random_range(1..400))
                .collect(),
        };
        let is_prompt = held.iter().all(|len| *len == prompt);
        let positions = (!is_prompt).then(|| {
            let mut all: Vec<Vec<Position>> = held.iter().map(|&len| positions(rng, len)).collect();
            if in_chunks {
                all.iter_mut().for_each(|head| head.sort_unstable());
            }
            all
        });
        let mut score = |_| match rng.random_range(0..40) {
            0 => f32::from_bits(rng.random()),
            1 => f32::INFINITY,
            2..10 => 0.5,
            _ => rng.random(),
        };
        let scores = held.iter().map(|&len| (0..len).map(&mut score).collect());
        let scores = scores.collect();
        let rows = reads.any().then(|| Rows::random(rng, geometry, &held));
        Self {
            in_chunks,
            rows,
            scores,
            layer: rng.random_range(0..geometry.layers),
            prompt,
            budget: tokens(prompt),
            positions,
        }
    }

    fn view<R>(
        &self,
        geometry: &Geometry,
        needs: &Needs,
        show: impl FnOnce(&LayerView<'_>) -> R,
    ) -> R {
        let heads: Option<Vec<&[Position]>> = self
            .positions
            .as_ref()
            .map(|heads| heads.iter().map(Vec::as_slice).collect());
        let mut view = match &heads {
            None => LayerView::prefill(self.layer, self.scores.len(), self.prompt, self.budget),
            Some(heads) if self.in_chunks => {
                let view = LayerView::prefill(self.layer, heads.len(), self.prompt, self.budget);
                view.with_positions(heads)
            }
            Some(heads) => LayerView::decode(self.layer, heads, self.prompt, self.budget),
        };
        let scores: Vec<&[f32]> = self.scores.iter().map(Vec::as_slice).collect();
        if needs.observation != Observation::None {
            view = view.with_scores(needs.observation, &scores);
        }
        match self.rows.as_ref().map(|rows| rows.shown(geometry)) {
            None => show(&view),
            Some(rows) => show(&view.with_rows(&rows)),
        }
    }

    pub(crate) fn plan(&self, geometry: &Geometry, policy: &dyn Policy) -> KeepPlan {
        let mut keep = KeepPlan::all(self.scores.len());
        self.view(geometry, &policy.needs(), |view| {
            policy.plan(view, &mut keep);
        });
        keep
    }

    /// What it ranks by, as bits.
    pub(crate) fn ranks(&self, geometry: &Geometry, policy: &dyn Policy) -> Option<Vec<Vec<u32>>> {
        let needs = policy.needs();
        let is_asked = needs.reads.any() || needs.observation != Observation::None;
        let scorer = policy.scorer().filter(|_| is_asked)?;
        let scores = self.view(geometry, &needs, |view| scorer.scores(view));
        let bits = |row: Vec<f32>| row.into_iter().map(f32::to_bits).collect();
        Some(scores.into_iter().map(bits).collect())
    }
}

/// Positions in no order, without doubles.
fn positions(rng: &mut ChaCha8Rng, len: usize) -> Vec<Position> {
    let mut all: Vec<Position> = (0..2 * len).map(Position::new).collect();
    all.shuffle(rng);
    all.truncate(len);
    all
}

/// One of some values.
pub(crate) fn some<T: Clone>(rng: &mut ChaCha8Rng, values: &[T]) -> T {
    values[rng.random_range(0..values.len())].clone()
}
