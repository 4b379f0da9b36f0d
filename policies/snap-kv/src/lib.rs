//! `SnapKV`: every head keeps the newest tokens of the prompt and those that the last prompt queries attend to most.
//!
//! Li et al., *SnapKV: LLM Knows What You are Looking for Before Generation*, `NeurIPS` 2024,
//! <https://arxiv.org/abs/2404.14469>.
//!
//! The attention of the last `window` prompt queries to the `n - window` tokens before them is averaged over the
//! queries, reduced over the `G` query heads of a KV head and pooled along the text. Each head keeps its own
//! `budget - window` best tokens and the window. What is generated is appended.
#![forbid(unsafe_code)]

use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Policy, PolicyConfig, Pooling,
    Reduce, ReductionOrder, Room, ScoreKind, Scorer, WindowedScore, schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

/// Configuration of [`SnapKv`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct SnapKvConfig {
    /// Newest prompt tokens that every KV head keeps, from 1 to the budget. Their queries are the ones observed: the paper's
    /// observation window.
    #[schemars(range(min = 1))]
    pub window: usize,
    /// Tokens that are pooled into one score: odd, 1 for no pooling, at most the model's context.
    #[schemars(range(min = 1))]
    pub kernel: usize,
    /// How the scores of `kernel` neighbours along the text become one.
    pub pooling: Pooling,
    /// How the scores of the `G` query heads of a KV head become one.
    pub group: Reduce,
    /// Whether the query heads become one before the scores are pooled, or after.
    pub order: ReductionOrder,
}

impl Default for SnapKvConfig {
    /// What the authors' code sets for a model: a window of 32, average pooling over 5. The group's mean is ours: the
    /// authors' cache holds query heads.
    fn default() -> Self {
        Self {
            window: 32,
            kernel: 5,
            pooling: Pooling::Average,
            group: Reduce::Mean,
            order: ReductionOrder::GroupThenPool,
        }
    }
}

/// The window and the best of the other prompt tokens, equally many in every head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapKv {
    score: WindowedScore,
    /// No budget: nothing is dropped.
    is_unlimited: bool,
}

impl PolicyConfig for SnapKvConfig {
    const NAME: &'static str = "snap-kv";
    const SUMMARY: &'static str =
        "the prompt tokens that its last queries attend to, chosen by every head (Li et al. 2024)";
    type Policy = SnapKv;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<SnapKv, ConfigError> {
        let score = WindowedScore {
            kind: ScoreKind::Window,
            window: self.window,
            kernel: self.kernel,
            pooling: self.pooling,
            group: self.group,
            order: self.order,
        };
        score.check(Self::NAME, geometry, budget)?;
        Ok(SnapKv {
            score,
            is_unlimited: budget == Budget::Full,
        })
    }
}

impl Policy for SnapKv {
    fn needs(&self) -> Needs {
        self.score.needs(self.is_unlimited)
    }

    fn room(&self, _: usize, _: usize, budget: usize) -> Room {
        Room::Each(budget)
    }

    fn scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        let base = self.score.base(view.budget);
        for head in 0..view.heads() {
            if view.len(head) > view.budget {
                keep.top(head, base, self.score.window);
            }
        }
    }
}

impl Scorer for SnapKv {
    fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
        view.scores_with_window(self.score.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{Observation, Pins};

    /// What the heads keep of a prompt with these scores, with a window of 2.
    fn kept(budget: usize, rows: &[&[f32]]) -> Vec<Vec<u32>> {
        let geometry = kv_core::conformance::geometry(rows.len());
        let config = SnapKvConfig {
            window: 2,
            ..SnapKvConfig::default()
        };
        let policy = config
            .bind(&geometry, Budget::Tokens(budget))
            .expect("a good configuration");
        let view = LayerView::prefill(0, rows.len(), rows[0].len(), budget)
            .with_scores(Observation::Window { queries: 2 }, rows);
        let mut keep = KeepPlan::all(rows.len());
        policy.plan(&view, &mut keep);
        keep.resolve(&view, &Pins::default()).slots
    }

    const WINDOW: f32 = f32::INFINITY;

    #[test]
    fn every_head_keeps_its_own_best_and_the_window() {
        let rows: [&[f32]; 2] = [
            &[0.1, 0.4, 0.2, 0.3, 0.0, WINDOW, WINDOW],
            &[0.4, 0.1, 0.0, 0.2, 0.3, WINDOW, WINDOW],
        ];
        assert_eq!(kept(4, &rows), [[1, 3, 5, 6], [0, 4, 5, 6]]);
    }

    #[test]
    fn of_equal_scores_the_earlier_token_stays_and_nan_goes_first() {
        let rows: [&[f32]; 1] = [&[0.2, f32::NAN, 0.2, 0.2, -1.0, WINDOW, WINDOW]];
        assert_eq!(kept(4, &rows), [[0, 2, 5, 6]]);
        assert_eq!(kept(6, &rows), [[0, 2, 3, 4, 5, 6]]);
    }

    #[test]
    fn a_prompt_within_the_budget_is_kept_whole() {
        let row: &[f32] = &[0.2, 0.1, WINDOW, WINDOW];
        assert_eq!(kept(4, &[row]), [[0, 1, 2, 3]]);
        // Shorter than the window.
        assert_eq!(kept(4, &[&[WINDOW]]), [[0]]);
    }
}
