//! `PyramidKV`: the tokens of `SnapKV`, with more of them in low layers than in high ones.
//!
//! Cai et al., *PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling*, 2024,
//! <https://arxiv.org/abs/2406.02069>.
//!
//! Besides the window, the layers' budgets fall by equal steps from `2 base - base / beta` to `base / beta`, where
//! `base = budget - window`; a layer that would get more than the prompt has gives the excess to the high layers. Inside
//! a layer all heads keep equally many tokens, chosen as by `SnapKV`. What is generated is appended.
#![forbid(unsafe_code)]

use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Policy, PolicyConfig, Pooling,
    Pyramid, PyramidRounding, Reduce, ReductionOrder, Room, ScoreKind, WindowedScore,
    schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

/// Configuration of [`PyramidKv`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct PyramidKvConfig {
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
    /// How steep the pyramid is, the paper's beta, from 1 (all layers alike): the last layer gets `1 / beta` of the average
    /// layer's tokens, window aside.
    #[schemars(range(min = 1.0))]
    pub beta: f64,
    /// How the layers' shares become whole tokens.
    pub rounding: PyramidRounding,
}

impl Default for PyramidKvConfig {
    /// `SnapKV`'s score, the authors' `beta`, and budgets that sum to the budget.
    fn default() -> Self {
        Self {
            window: 32,
            kernel: 5,
            pooling: Pooling::Average,
            group: Reduce::Mean,
            order: ReductionOrder::GroupThenPool,
            beta: 20.0,
            rounding: PyramidRounding::Exact,
        }
    }
}

/// The window and the best of the other prompt tokens, fewer from layer to layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PyramidKv {
    score: WindowedScore,
    pyramid: Pyramid,
    /// No budget: nothing is dropped.
    is_unlimited: bool,
}

impl PolicyConfig for PyramidKvConfig {
    const NAME: &'static str = "pyramid-kv";
    const SUMMARY: &'static str =
        "snap-kv with more room in low layers and less in high ones (Cai et al. 2024)";
    type Policy = PyramidKv;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<PyramidKv, ConfigError> {
        let score = WindowedScore {
            kind: ScoreKind::Window,
            window: self.window,
            kernel: self.kernel,
            pooling: self.pooling,
            group: self.group,
            order: self.order,
        };
        score.check(Self::NAME, geometry, budget)?;
        let pyramid = Pyramid {
            layers: geometry.layers,
            window: self.window,
            beta: self.beta,
            rounding: self.rounding,
        };
        pyramid.check(Self::NAME)?;
        Ok(PyramidKv {
            score,
            pyramid,
            is_unlimited: budget == Budget::Full,
        })
    }
}

impl PyramidKv {
    /// Tokens per KV head of a layer besides the window.
    fn base(&self, layer: usize, prompt: usize, budget: usize) -> usize {
        let bases = self.pyramid.bases(prompt, budget.max(self.score.window));
        bases.get(layer).copied().unwrap_or_default()
    }
}

impl Policy for PyramidKv {
    fn needs(&self) -> Needs {
        self.score.needs(self.is_unlimited)
    }

    fn room(&self, layer: usize, prompt: usize, budget: usize) -> Room {
        if budget == usize::MAX {
            return Room::Each(usize::MAX);
        }
        Room::Each(self.score.window + self.base(layer, prompt, budget))
    }

    fn notice(&self) -> Option<String> {
        let whose = match self.pyramid.rounding {
            PyramidRounding::Exact => return None,
            PyramidRounding::Authors => "authors",
            PyramidRounding::Kvpress => "kvpress",
        };
        Some(format!(
            "`rounding` = {whose}: the layers' budgets need not sum to the budget, and may come to more"
        ))
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        if view.budget == usize::MAX {
            return;
        }
        let base = self.base(view.layer, view.prompt, view.budget);
        for head in 0..view.heads() {
            if view.len(head) > self.score.window + base {
                keep.top(head, base, self.score.window);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(config: PyramidKvConfig, layers: usize) -> PyramidKv {
        let geometry = Geometry {
            layers,
            ..kv_core::conformance::geometry(2)
        };
        config
            .bind(&geometry, Budget::Tokens(512))
            .expect("a good configuration")
    }

    fn rooms(policy: &PyramidKv, prompt: usize, budget: usize) -> Vec<usize> {
        (0..policy.pyramid.layers)
            .map(|layer| policy.room(layer, prompt, budget).total(1))
            .collect()
    }

    /// 32 layers, a window of 32, 512 tokens per head of 4,000.
    #[test]
    fn numbers_of_the_method_page() {
        let exact = rooms(&bound(PyramidKvConfig::default(), 32), 4000, 512);
        assert_eq!((exact[0], exact[31]), (936 + 32, 24 + 32));
        assert_eq!(exact.iter().sum::<usize>(), 32 * 512);
        let config = PyramidKvConfig {
            rounding: PyramidRounding::Authors,
            ..PyramidKvConfig::default()
        };
        let authors = rooms(&bound(config, 32), 4000, 512);
        assert_eq!(authors[..3], [936 + 32, 907 + 32, 878 + 32]);
        assert_eq!(authors[29..], [95 + 32, 66 + 32, 37 + 32]);
        assert_eq!(authors.iter().sum::<usize>(), 15_568 + 32 * 32);
    }

    #[test]
    fn a_prompt_that_fits_takes_its_length_in_every_layer() {
        let policy = bound(PyramidKvConfig::default(), 4);
        assert_eq!(rooms(&policy, 500, 512), [500; 4]);
        assert_eq!(rooms(&policy, 512, 512), [512; 4]);
        // Shorter than the window: the window is what a head may hold.
        assert_eq!(rooms(&policy, 5, 512), [32; 4]);
        assert_eq!(rooms(&policy, 5, usize::MAX), [usize::MAX; 4]);
    }

    #[test]
    fn no_layer_gets_more_than_the_prompt_has() {
        let policy = bound(PyramidKvConfig::default(), 4);
        assert_eq!(rooms(&policy, 600, 512), [600, 541, 483, 424]);
        assert_eq!(
            rooms(&bound(PyramidKvConfig::default(), 1), 600, 512),
            [512]
        );
    }

    #[test]
    fn a_beta_of_one_is_no_pyramid() {
        let config = PyramidKvConfig {
            beta: 1.0,
            ..PyramidKvConfig::default()
        };
        assert_eq!(rooms(&bound(config, 4), 2000, 512), [512; 4]);
    }

    #[test]
    fn an_inexact_rounding_is_announced() {
        assert_eq!(bound(PyramidKvConfig::default(), 4).notice(), None);
        let config = PyramidKvConfig {
            rounding: PyramidRounding::Kvpress,
            ..PyramidKvConfig::default()
        };
        let notice = bound(config, 4).notice().expect("a notice");
        assert!(notice.contains("`rounding` = kvpress"), "{notice}");
    }
}
