//! How a budget is split over layers: `PyramidKV`'s shares, and none.
//!
//! Cai et al., *PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling*, 2024,
//! <https://arxiv.org/abs/2406.02069>.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConfigError, apportion};

/// How much of the budget each layer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LayerShares {
    /// The same.
    #[default]
    Uniform,
    /// More in low layers, less in high ones, falling by equal steps.
    Pyramid,
}

/// How a pyramid becomes whole tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PyramidRounding {
    /// By largest remainder: the layers' budgets sum to the budget.
    #[default]
    Exact,
    /// Whole steps and an even split of short prompts, as in `KVCache-Factory`, the authors' code; the sum drifts.
    Authors,
    /// As in kvpress: the pyramid counts the window, every layer is rounded by itself, and where the last layer would
    /// get less than the window the split is even.
    Kvpress,
}

/// A pyramid over the layers of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pyramid {
    /// Layers, `L`.
    pub layers: usize,
    /// Newest tokens that every head keeps, `w`.
    pub window: usize,
    /// How steep: the last layer gets `1 / beta` of the average.
    pub beta: f64,
    /// How it becomes whole tokens.
    pub rounding: PyramidRounding,
}

impl Pyramid {
    /// Refuses a pyramid that is none.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] for `beta`.
    pub fn check(&self, policy: &'static str) -> Result<(), ConfigError> {
        if self.beta >= 1.0 && self.beta.is_finite() {
            return Ok(());
        }
        Err(ConfigError::out_of_range(
            policy,
            "beta",
            ConfigError::written(self.beta),
            "a number from 1 (no pyramid): the last layer gets 1/beta of the average",
        ))
    }

    /// Tokens per KV head of every layer besides the window, `[L]`, each at most `prompt - w`, for a prompt of `prompt`
    /// tokens and a budget of `budget` tokens per KV head, window included.
    #[must_use]
    pub fn bases(&self, prompt: usize, budget: usize) -> Vec<usize> {
        let ranked = prompt.saturating_sub(self.window);
        let base = budget.saturating_sub(self.window);
        if base >= ranked {
            return vec![ranked; self.layers];
        }
        match self.rounding {
            PyramidRounding::Exact => self.exact(ranked, base),
            PyramidRounding::Authors => self.authors(prompt, ranked, base),
            PyramidRounding::Kvpress => self.kvpress(prompt, ranked, budget),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "token counts are far below 2^52"
    )]
    fn exact(&self, ranked: usize, base: usize) -> Vec<usize> {
        let (high, low) = self.ends(base as f64, ranked as f64);
        let weights: Vec<f64> = (0..self.layers)
            .map(|layer| high - self.step(high, low) * layer as f64)
            .collect();
        apportion(self.layers * base, &weights, &vec![ranked; self.layers])
    }

    /// Budgets of the first and the last layer.
    fn ends(&self, base: f64, most: f64) -> (f64, f64) {
        let high = 2.0 * base - base / self.beta;
        if high >= most {
            (most, 2.0 * base - most)
        } else {
            (high, base / self.beta)
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "layers are few")]
    fn step(&self, high: f64, low: f64) -> f64 {
        (high - low) / self.layers.saturating_sub(1).max(1) as f64
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the budget"
    )]
    fn authors(&self, prompt: usize, ranked: usize, base: usize) -> Vec<usize> {
        if prompt < 2 * base {
            return vec![base; self.layers];
        }
        let low = (base as f64 / self.beta).floor() as usize;
        let high = (2 * base - low).min(ranked);
        let low = (2 * base).saturating_sub(high);
        let step = high.saturating_sub(low) / self.layers.saturating_sub(1).max(1);
        (0..self.layers).map(|layer| high - layer * step).collect()
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between the window and the prompt"
    )]
    fn kvpress(&self, prompt: usize, ranked: usize, budget: usize) -> Vec<usize> {
        let (high, low) = self.ends(budget as f64, ranked as f64);
        if !(prompt as f64 >= high && high >= low && low >= self.window as f64) {
            return vec![budget.saturating_sub(self.window); self.layers];
        }
        (0..self.layers)
            .map(|layer| {
                let tokens = (high - self.step(high, low) * layer as f64).round_ties_even();
                (tokens as usize).saturating_sub(self.window)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn pyramid(layers: usize, window: usize, rounding: PyramidRounding) -> Pyramid {
        Pyramid {
            layers,
            window,
            beta: 20.0,
            rounding,
        }
    }

    #[test]
    fn numbers_of_the_method_page() {
        let authors = pyramid(32, 32, PyramidRounding::Authors).bases(4000, 512);
        assert_eq!(authors[..3], [936, 907, 878]);
        assert_eq!(authors[29..], [95, 66, 37]);
        assert_eq!(authors.iter().sum::<usize>(), 15_568);
        let exact = pyramid(32, 32, PyramidRounding::Exact).bases(4000, 512);
        assert_eq!((exact[0], exact[31]), (936, 24));
        assert_eq!(exact.iter().sum::<usize>(), 15_360);
    }

    #[test]
    fn a_huge_beta_is_refused_in_few_digits() {
        let beta = -1e300;
        let steep = Pyramid {
            beta,
            ..pyramid(32, 32, PyramidRounding::Exact)
        };
        let error = steep.check("pyramid-kv").expect_err("is refused");
        assert!(error.to_string().contains("`beta` is -1e300,"), "{error}");
    }

    proptest! {
        #[test]
        fn an_exact_pyramid_spends_the_budget_and_falls(
            layers in 1..40_usize, window in 1..64_usize, prompt in 1..3000_usize, budget in 1..3000_usize,
            beta in 1.0..50.0_f64,
        ) {
            let pyramid = Pyramid { layers, window, beta, rounding: PyramidRounding::Exact };
            let bases = pyramid.bases(prompt, budget);
            let ranked = prompt.saturating_sub(window);
            let total = layers * budget.saturating_sub(window).min(ranked);
            prop_assert_eq!(bases.iter().sum::<usize>(), total);
            prop_assert!(bases.is_sorted_by(|a, b| a + 1 >= *b), "{:?}", bases);
        }
    }
}
