//! Expected attention: every head keeps the prompt tokens that the queries to come are likely to attend to.
//!
//! Devoto et al., *Expected Attention: KV Cache Compression by Estimating Attention from Future Queries Distribution*, 2025,
//! <https://arxiv.org/abs/2510.00636>; here as `ExpectedAttentionPress` of kvpress 0.5.5 does it.
//!
//! The prompt's queries, with their rotation undone, are taken for a normal distribution with mean `mu` and covariance
//! `Sigma`, which is turned by the mean rotation of the next `future` positions. The attention that a key `k` is to
//! expect is the softmax over keys of `k mu / sqrt(D) + k Sigma k / (2 D)`; its mean over the `G` query heads of a KV head, times
//! the length of the value, is the score. The first `sinks` tokens are always kept, and what is generated is appended.
//!
//! Here the newest token is always kept, which kvpress may drop, and the average rotation ends with the model's tables:
//! positions past its context count for nothing, and a prompt that fills it is scored for its last position. A cap on the
//! logits is left out, as in kvpress.
#![forbid(unsafe_code)]

mod ahead;

use ahead::{Ahead, Turn};
use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Policy, PolicyConfig, Reads, Scorer,
    schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

/// Configuration of [`ExpectedAttention`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct ExpectedAttentionConfig {
    /// First tokens of the prompt that every KV head keeps and whose queries do not count; fewer than the budget.
    pub sinks: usize,
    /// Positions behind the prompt whose queries are expected, from 1; those past the model's context do not count.
    #[schemars(range(min = 1))]
    pub future: usize,
    /// Whether the covariance of the queries counts, or their mean alone.
    pub covariance: bool,
    /// Whether a score is multiplied by the Euclidean norm of the token's value.
    pub value_norm: bool,
    /// What is added to the expected attention before it is multiplied, from 0 to 1; 0 where `value_norm` is off.
    /// kvpress' authors set 0.02, and 0.01 under Ada-KV.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon: f64,
}

impl Default for ExpectedAttentionConfig {
    /// kvpress' defaults.
    fn default() -> Self {
        Self {
            sinks: 4,
            future: 512,
            covariance: true,
            value_norm: true,
            epsilon: 0.0,
        }
    }
}

/// The sinks, the newest token and those of the prompt that expect the most attention, equally many in every head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpectedAttention {
    config: ExpectedAttentionConfig,
    /// No budget: nothing is dropped.
    is_unlimited: bool,
}

impl PolicyConfig for ExpectedAttentionConfig {
    const NAME: &'static str = "expected-attention";
    const SUMMARY: &'static str =
        "the prompt tokens that the queries to come are likely to attend to (Devoto et al. 2025)";
    type Policy = ExpectedAttention;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<ExpectedAttention, ConfigError> {
        let refuse = |field, value: String, allowed: String| {
            Err(ConfigError::out_of_range(Self::NAME, field, value, allowed))
        };
        let fixed = budget.fixed_tokens(geometry);
        let most = fixed.unwrap_or(geometry.max_positions);
        if self.sinks >= most {
            let allowed = format!("below the {most} tokens that a head may hold");
            return refuse("sinks", self.sinks.to_string(), allowed);
        }
        if self.future == 0 {
            let allowed = "at least 1: the queries of these positions are expected".to_owned();
            return refuse("future", "0".to_owned(), allowed);
        }
        if !(0.0..=1.0).contains(&self.epsilon) {
            let value = ConfigError::written(self.epsilon);
            return refuse("epsilon", value, "from 0 to 1".to_owned());
        }
        if self.epsilon > 0.0 && !self.value_norm {
            let value = ConfigError::written(self.epsilon);
            let allowed = "0 with `value_norm` = false: it would change nothing".to_owned();
            return refuse("epsilon", value, allowed);
        }
        Ok(ExpectedAttention {
            config: self,
            is_unlimited: budget == Budget::Full,
        })
    }
}

impl Policy for ExpectedAttention {
    fn needs(&self) -> Needs {
        let reads = Reads {
            queries: true,
            keys: true,
            values: self.config.value_norm,
            rotation: true,
            ..Reads::NONE
        };
        Needs {
            reads: if self.is_unlimited {
                Reads::NONE
            } else {
                reads
            },
            appends: true,
            min_tokens: self.config.sinks + 1,
            ..Needs::NONE
        }
    }

    fn scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        if view.prompt > view.budget {
            for (head, scores) in self.scores(view).into_iter().enumerate() {
                keep.top_by(head, scores, view.budget - 1, 1);
            }
        }
    }
}

impl Scorer for ExpectedAttention {
    fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
        let turn = Turn::to(view.prompt, self.config.future, view.rotation());
        let heads = 0..view.heads();
        heads.map(|head| self.row(view, head, &turn)).collect()
    }
}

impl ExpectedAttention {
    /// Scores of one head, `[n]`.
    fn row(&self, view: &LayerView<'_>, head: usize, turn: &Turn<'_>) -> Vec<f32> {
        let (dim, group, sinks) = (view.head_dim(), view.group(), self.config.sinks);
        let mut row = vec![f32::INFINITY; view.prompt];
        let last = view.prompt.saturating_sub(1);
        if last <= sinks {
            return row;
        }
        let keys = &view.keys(head)[sinks * dim..];
        let mut expected = vec![0.0; view.prompt - sinks];
        for query_head in head * group..(head + 1) * group {
            let queries = &view.queries(query_head)[sinks * dim..];
            let ahead = Ahead::of(queries, dim, sinks, turn, self.config.covariance);
            let weights = ahead.attention(keys, f64::from(view.scale()));
            for (sum, weight) in expected.iter_mut().zip(weights) {
                *sum += weight;
            }
        }
        for (token, sum) in (sinks..view.prompt).zip(expected) {
            row[token] = self.weighed(sum, group, || {
                &view.values(head)[token * dim..(token + 1) * dim]
            });
        }
        row
    }

    /// The group's mean, times the norm of the value.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a group is small, and a score rounded once"
    )]
    fn weighed<'a>(&self, sum: f64, group: usize, value: impl FnOnce() -> &'a [f32]) -> f32 {
        let mean = sum / group as f64;
        if !self.config.value_norm {
            return mean as f32;
        }
        let squares = value().iter().map(|&x| f64::from(x) * f64::from(x));
        ((mean + self.config.epsilon) * squares.sum::<f64>().sqrt()) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{Pins, PromptRows, Rotation, conformance::geometry};

    /// One head of one query head: what stays of six tokens, four of them sinks or the newest, under a budget of four.
    fn kept(config: ExpectedAttentionConfig) -> (Vec<u32>, Vec<f32>) {
        let still = Rotation::new(1, vec![1.0; 8], vec![0.0; 8], false);
        // The sinks' queries would say the opposite.
        let queries = [-9.0, 0.0, -9.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0];
        let two = std::f32::consts::LN_2;
        let keys = [0.0, 0.0, 0.0, 0.0, two, 0.0, 0.0, 0.0, 0.0, 5.0, 0.0, 0.0];
        let values = [9.0, 0.0, 9.0, 0.0, 0.6, 0.8, 3.0, 4.0, 0.0, 0.0, 1.0, 0.0];
        let rows = PromptRows {
            head_dim: 2,
            group: 1,
            rows: 6,
            scale: 1.0,
            queries: Some(&queries),
            keys: Some(&keys),
            values: Some(&values),
            rotation: Some(&still),
            ..PromptRows::default()
        };
        let view = LayerView::prefill(0, 1, 6, 4).with_rows(&rows);
        let policy = config
            .bind(&geometry(1), Budget::Tokens(4))
            .expect("a good configuration");
        let mut keep = KeepPlan::all(1);
        policy.plan(&view, &mut keep);
        let scores = policy.scores(&view).remove(0);
        (
            keep.resolve(&view, &Pins::default()).slots.remove(0),
            scores,
        )
    }

    fn two_sinks() -> ExpectedAttentionConfig {
        ExpectedAttentionConfig {
            sinks: 2,
            ..ExpectedAttentionConfig::default()
        }
    }

    fn is_near(scores: &[f32], expected: &[f32]) {
        assert_eq!(scores.len(), expected.len());
        for (found, expected) in scores.iter().zip(expected) {
            let is_near = found == expected || (found - expected).abs() < 1e-6;
            assert!(is_near, "{scores:?}");
        }
    }

    const KEPT: f32 = f32::INFINITY;

    #[test]
    fn a_score_is_expected_attention_times_the_value() {
        // Four keys share the softmax, 2 : 1 : 1 : 1; the values are of length 1, 5 and 0.
        let (kept, scores) = kept(two_sinks());
        is_near(&scores, &[KEPT, KEPT, 0.4, 1.0, 0.0, 0.2]);
        assert_eq!(kept, [0, 1, 3, 5]);
    }

    #[test]
    fn without_the_values_attention_alone_ranks() {
        let (kept, scores) = kept(ExpectedAttentionConfig {
            value_norm: false,
            ..two_sinks()
        });
        is_near(&scores, &[KEPT, KEPT, 0.4, 0.2, 0.2, 0.2]);
        assert_eq!(kept, [0, 1, 2, 5]);
    }

    #[test]
    fn epsilon_is_added_before_the_value_counts() {
        let (_, scores) = kept(ExpectedAttentionConfig {
            epsilon: 0.1,
            ..two_sinks()
        });
        is_near(&scores, &[KEPT, KEPT, 0.5, 1.5, 0.0, 0.3]);
    }
}
