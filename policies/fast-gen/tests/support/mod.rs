//! A prompt whose attention is given, shown to the policy as a host shows it.
use kv_core::{
    Budget, KeepPlan, Kept, LayerView, Observation, Pins, Policy, PolicyConfig, PromptRows,
    TokenClass, conformance,
};
use kv_policy_fast_gen::{FastGen, FastGenConfig, Strategy};

/// Attention of every query head, `[H * G][n][i + 1]`, each row summing to 1.
pub(crate) type Attention = Vec<Vec<Vec<f32>>>;

/// A layer's prompt.
pub(crate) struct Prompt {
    pub(crate) attention: Attention,
    pub(crate) group: usize,
    pub(crate) classes: Vec<TokenClass>,
}

impl Prompt {
    pub(crate) fn heads(&self) -> usize {
        self.attention.len() / self.group
    }

    pub(crate) fn tokens(&self) -> usize {
        self.classes.len()
    }

    /// What each token of each KV head has drawn: summed over queries, the mean over the group.
    pub(crate) fn accumulated(&self) -> Vec<Vec<f32>> {
        let sum = |group: &[Vec<Vec<f32>>]| {
            let mut sums = vec![0.0; self.tokens()];
            for row in group.iter().flatten() {
                for (sum, weight) in sums.iter_mut().zip(row) {
                    *sum += weight;
                }
            }
            let heads = group.len() as f32;
            sums.iter().map(|sum| sum / heads).collect()
        };
        self.attention.chunks(self.group).map(sum).collect()
    }

    pub(crate) fn policy(&self, config: FastGenConfig, budget: Budget) -> FastGen {
        let geometry = conformance::geometry(self.heads());
        config
            .bind(&geometry, budget)
            .expect("a good configuration")
    }

    /// The strategies that the heads get, and what is kept of the prompt.
    pub(crate) fn read(&self, config: FastGenConfig, budget: Budget) -> (Vec<Strategy>, Kept) {
        let tokens = self.tokens();
        // Keys that pick one number of a query each, so that a query is the logarithms of its weights.
        let mut keys = vec![0.0; self.heads() * tokens * tokens];
        for (token, key) in keys.chunks_mut(tokens).enumerate() {
            key[token % tokens] = 1.0;
        }
        let mut queries = Vec::new();
        for row in self.attention.iter().flatten() {
            let weights = row.iter().map(|weight| weight.max(1e-30).ln());
            queries.extend(weights.chain(vec![0.0; tokens - row.len()]));
        }
        let rows = PromptRows {
            head_dim: tokens,
            group: self.group,
            rows: tokens,
            scale: 1.0,
            queries: Some(&queries),
            keys: Some(&keys),
            classes: Some(&self.classes),
            ..PromptRows::default()
        };
        let accumulated = self.accumulated();
        let scores: Vec<&[f32]> = accumulated.iter().map(Vec::as_slice).collect();
        let given = budget.tokens(&conformance::geometry(self.heads()), tokens);
        let view = LayerView::prefill(0, self.heads(), tokens, given)
            .with_scores(Observation::Rows, &scores)
            .with_rows(&rows);
        let policy = self.policy(config, budget);
        let mut keep = KeepPlan::all(self.heads());
        policy.plan(&view, &mut keep);
        (
            policy.strategies(&view),
            keep.resolve(&view, &Pins::default()),
        )
    }
}
