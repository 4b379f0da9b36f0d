//! `KeyDiff`: every head keeps the tokens whose keys differ most in direction from the mean key.
//!
//! Park et al., *KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in Resource-Constrained
//! Environments*, `NeurIPS` 2025, <https://arxiv.org/abs/2504.15364>.
//!
//! Every key of a head is brought to length 1, and their mean is the anchor. A token scores minus the cosine of its key
//! and the anchor. Each head keeps the `recent` newest tokens and the best others that its budget has room for; what is
//! generated is appended. No attention is observed.
//!
//! With `block` the prompt is gone through as the paper does it under a cap on memory: after every `block` tokens the
//! survivors and the block are scored anew and cut. The paper does so while later tokens are still to be computed, and goes
//! on while it decodes; here, as in kvpress' `BlockPress`, the whole prompt has been read before.
#![forbid(unsafe_code)]

use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Policy, PolicyConfig, Reads, Room,
    Scorer, schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

/// Configuration of [`KeyDiff`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct KeyDiffConfig {
    /// Newest prompt tokens that every KV head keeps whatever their keys are, from 0 to the budget. The newest one is always
    /// kept: with 0 the keys decide about the budget less one token.
    pub recent: usize,
    /// Tokens after which the survivors so far are scored anew and cut to the budget, at least 1. Left out, the whole prompt
    /// is scored at once.
    #[schemars(range(min = 1))]
    pub block: Option<usize>,
}

impl Default for KeyDiffConfig {
    /// All keys at once, and just the newest token besides.
    fn default() -> Self {
        Self {
            recent: 1,
            block: None,
        }
    }
}

/// The tokens with the most unusual keys, equally many in every head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyDiff {
    heads: usize,
    recent: usize,
    /// Tokens between two cuts, `usize::MAX` for one cut only.
    block: usize,
    /// No budget: nothing is dropped.
    is_unlimited: bool,
}

impl PolicyConfig for KeyDiffConfig {
    const NAME: &'static str = "key-diff";
    const SUMMARY: &'static str =
        "the prompt tokens whose keys point away from the mean key (Park et al. 2025)";
    type Policy = KeyDiff;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<KeyDiff, ConfigError> {
        if self.block == Some(0) {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "block",
                0,
                "at least 1, or left out",
            ));
        }
        let most = budget
            .fixed_tokens(geometry)
            .unwrap_or(geometry.max_positions);
        if self.recent > most {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "recent",
                self.recent,
                format!("at most the {most} tokens that a head may hold"),
            ));
        }
        Ok(KeyDiff {
            heads: geometry.kv_heads,
            recent: self.recent,
            block: self.block.unwrap_or(usize::MAX),
            is_unlimited: budget == Budget::Full,
        })
    }
}

impl Policy for KeyDiff {
    // ANCHOR: needs
    fn needs(&self) -> Needs {
        Needs {
            reads: Reads {
                keys: !self.is_unlimited,
                ..Reads::NONE
            },
            appends: true,
            min_tokens: self.recent.max(1),
            ..Needs::NONE
        }
    }
    // ANCHOR_END: needs

    fn scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }

    /// Heads that keep their newest token only because it is the newest have one more.
    fn room(&self, _: usize, _: usize, budget: usize) -> Room {
        match self.recent {
            0 => Room::Heads(vec![budget; self.heads]),
            _ => Room::Each(budget),
        }
    }

    // ANCHOR: plan
    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        if view.prompt <= view.budget {
            return;
        }
        for (head, scores) in self.scores(view).into_iter().enumerate() {
            keep.top_by(head, scores, self.cap(view.budget), 0);
        }
    }
    // ANCHOR_END: plan
}

// ANCHOR: scores
impl Scorer for KeyDiff {
    fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
        if self.is_unlimited {
            let row = |head| vec![f32::INFINITY; view.len(head)];
            return (0..view.heads()).map(row).collect();
        }
        let row = |head| {
            let keys = view.keys(head).chunks_exact(view.head_dim());
            let units: Vec<Vec<f32>> = keys.map(unit).collect();
            self.ranked(&units, self.cap(view.budget))
        };
        (0..view.heads()).map(row).collect()
    }
}

/// Minus the cosine of each of the keys `held` and their mean; keys are of length 1.
fn differences(units: &[Vec<f32>], held: &[usize]) -> Vec<f32> {
    let mut anchor = vec![0.0; units[0].len()];
    for &token in held {
        for (sum, &x) in anchor.iter_mut().zip(&units[token]) {
            *sum += f64::from(x);
        }
    }
    let length = anchor.iter().map(|x| x * x).sum::<f64>().sqrt();
    let difference = |&token: &usize| {
        let products = units[token]
            .iter()
            .zip(&anchor)
            .map(|(&x, a)| f64::from(x) * a);
        let cosine = products.sum::<f64>() / if length > 0.0 { length } else { 1.0 };
        -narrow(cosine)
    };
    held.iter().map(difference).collect()
}
// ANCHOR_END: scores

/// A key brought to length 1. One of zeros stays what it is: it is at a right angle to everything.
fn unit(key: &[f32]) -> Vec<f32> {
    let length = key.iter().map(|x| x * x).sum::<f32>().sqrt();
    let length = if length == 0.0 { 1.0 } else { length };
    key.iter().map(|x| x / length).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "a cosine, rounded once")]
const fn narrow(cosine: f64) -> f32 {
    cosine as f32
}

impl KeyDiff {
    /// Tokens that the scores choose under a budget: with none that is kept anyway, a slot is left for the newest.
    const fn cap(&self, budget: usize) -> usize {
        if self.recent == 0 {
            budget.saturating_sub(1)
        } else {
            budget
        }
    }

    /// A score for each key, block by block with at most `cap` survivors. What an earlier cut dropped scores minus infinity.
    fn ranked(&self, units: &[Vec<f32>], cap: usize) -> Vec<f32> {
        let n = units.len();
        let mut next = cap.min(n);
        let mut held: Vec<usize> = (0..next).collect();
        loop {
            let end = next.saturating_add(self.block).min(n);
            held.extend(next..end);
            let mut scores = differences(units, &held);
            for (&token, score) in held.iter().zip(&mut scores) {
                if token + self.recent >= n {
                    *score = f32::INFINITY;
                }
            }
            if end == n {
                let mut row = vec![f32::NEG_INFINITY; n];
                for (&token, score) in held.iter().zip(scores) {
                    row[token] = score;
                }
                return row;
            }
            let best = kv_core::top(&scores, cap);
            held = best.into_iter().map(|index| held[index]).collect();
            next = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{Pins, PromptRows};

    fn at_once(recent: usize) -> KeyDiffConfig {
        KeyDiffConfig {
            recent,
            block: None,
        }
    }

    fn blocks(block: usize) -> KeyDiffConfig {
        KeyDiffConfig {
            recent: 1,
            block: Some(block),
        }
    }

    /// Scores of one head with these keys in the plane, and what is kept.
    fn planned(config: KeyDiffConfig, budget: usize, keys: &[[f32; 2]]) -> (Vec<f32>, Vec<u32>) {
        let policy = config
            .bind(&kv_core::conformance::geometry(1), Budget::Tokens(budget))
            .expect("a good configuration");
        let rows = PromptRows {
            head_dim: 2,
            group: 1,
            rows: keys.len(),
            keys: Some(keys.as_flattened()),
            ..PromptRows::default()
        };
        let view = LayerView::prefill(0, 1, keys.len(), budget).with_rows(&rows);
        let mut keep = KeepPlan::all(1);
        policy.plan(&view, &mut keep);
        let kept = keep.resolve(&view, &Pins::default()).slots.remove(0);
        (policy.scores(&view).remove(0), kept)
    }

    /// Two keys to the right, one up: of length 1 they sum to (2, 1). The cosines are 2, 1 and 2 of the root of 5.
    #[test]
    fn the_key_that_points_elsewhere_stays() {
        let keys = [[3.0, 0.0], [0.0, 0.5], [1.0, 0.0]];
        let (scores, kept) = planned(at_once(1), 2, &keys);
        let root = 5.0_f32.sqrt();
        assert!((scores[0] + 2.0 / root).abs() < 1e-6, "{scores:?}");
        assert!((scores[1] + 1.0 / root).abs() < 1e-6, "{scores:?}");
        assert_eq!(scores[2], f32::INFINITY, "the newest");
        assert_eq!(kept, [1, 2]);
    }

    #[test]
    fn newest_tokens_stay_as_many_as_asked() {
        let (right, up) = ([1.0, 0.0], [0.0, 1.0]);
        let keys = [up, right, up, right, right, right];
        assert_eq!(planned(at_once(1), 3, &keys).1, [0, 2, 5]);
        assert_eq!(planned(at_once(2), 3, &keys).1, [0, 4, 5]);
        // None: the newest has a slot all the same.
        let (scores, kept) = planned(at_once(0), 3, &keys);
        assert!(scores[5].is_finite() && kept == [0, 2, 5], "{scores:?}");
        let keys = [right, right, right, right, up, up];
        assert_eq!(planned(at_once(0), 3, &keys).1, [4, 5]);
        assert_eq!(planned(at_once(0), 1, &keys).1, [5]);
    }

    #[test]
    fn a_key_of_zeros_is_at_a_right_angle_and_all_zeros_tie() {
        let (scores, kept) = planned(at_once(1), 2, &[[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]);
        assert_eq!(scores[1].to_bits() << 1, 0, "plus or minus zero");
        assert_eq!(kept, [1, 2]);
        let (scores, kept) = planned(at_once(1), 3, &[[0.0, 0.0]; 4]);
        assert!(scores[..3].iter().all(|&score| score == 0.0), "{scores:?}");
        assert_eq!(kept, [0, 1, 3], "of equal scores the earlier token stays");
        let opposite = planned(at_once(1), 2, &[[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]).0;
        assert!(opposite[..2].iter().all(|&score| score == 0.0), "no mean");
    }

    /// Under a cap of 3 the first cut is among right, right, up, right: their sum is (3, 1), and the last right goes. With the up
    /// that follows it is (2, 2), all are alike, and the earliest stay. Scored at once it is (3, 2), and the up stays.
    #[test]
    fn block_by_block_the_survivors_set_the_mean() {
        let (right, up) = ([1.0, 0.0], [0.0, 1.0]);
        let keys = [right, right, up, right, up];
        let (scores, kept) = planned(blocks(1), 3, &keys);
        assert_eq!(scores[3], f32::NEG_INFINITY, "dropped before: {scores:?}");
        assert_eq!(kept, [0, 1, 4]);
        // A block that the prompt ends within is cut once, as without blocks.
        for config in [blocks(2), at_once(1)] {
            let (scores, kept) = planned(config, 3, &keys);
            assert!(
                (scores[2] + 2.0 / 13.0_f32.sqrt()).abs() < 1e-6,
                "{scores:?}"
            );
            assert_eq!(kept, [0, 2, 4]);
        }
    }
}
