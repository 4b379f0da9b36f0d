//! `KNorm`: every head keeps the tokens with the shortest keys.
//!
//! Devoto et al., *A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression*, EMNLP 2024,
//! <https://arxiv.org/abs/2406.11430>.
//!
//! A key that is short in the Euclidean norm tends to draw much attention. Each head keeps the `recent` newest tokens and,
//! of the others, those with the shortest keys, as many as its budget has room for. What is generated is appended.
//!
//! `KVCache-Factory` leaves the first two layers whole, kvpress does not. Here a budget bounds every layer, and a layer that
//! keeps its whole prompt has no bound: no layer can be left out.
#![forbid(unsafe_code)]

use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Observation, Policy, PolicyConfig,
    Room, Scorer, schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

/// Configuration of [`KNorm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct KNormConfig {
    /// Newest prompt tokens that every KV head keeps whatever their keys are, from 0 to the budget. The newest one is always
    /// kept: with 0 the keys decide about the budget less one token.
    pub recent: usize,
}

impl Default for KNormConfig {
    /// Just the newest token besides.
    fn default() -> Self {
        Self { recent: 1 }
    }
}

/// The tokens with the shortest keys, equally many in every head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KNorm {
    heads: usize,
    recent: usize,
    /// No budget: nothing is dropped.
    is_unlimited: bool,
}

impl PolicyConfig for KNormConfig {
    const NAME: &'static str = "k-norm";
    const SUMMARY: &'static str = "the prompt tokens with the shortest keys (Devoto et al. 2024)";
    type Policy = KNorm;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<KNorm, ConfigError> {
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
        Ok(KNorm {
            heads: geometry.kv_heads,
            recent: self.recent,
            is_unlimited: budget == Budget::Full,
        })
    }
}

impl Policy for KNorm {
    fn needs(&self) -> Needs {
        let observation = if self.is_unlimited {
            Observation::None
        } else {
            Observation::KeyNorms
        };
        Needs {
            observation,
            appends: true,
            min_tokens: self.recent.max(1),
            ..Needs::NONE
        }
    }

    /// Heads that keep their newest token only because it is the newest have one more.
    fn room(&self, _: usize, _: usize, budget: usize) -> Room {
        match self.recent {
            0 => Room::Heads(vec![budget; self.heads]),
            _ => Room::Each(budget),
        }
    }

    fn scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        for head in 0..view.heads() {
            if view.len(head) > view.budget {
                // Without a window the room has a place for the newest token, which the keys do not choose.
                let best = view.budget.saturating_sub(self.recent.max(1));
                keep.top(head, best, self.recent);
            }
        }
    }
}

impl Scorer for KNorm {
    fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
        if self.is_unlimited {
            let row = |head| vec![f32::INFINITY; view.len(head)];
            return (0..view.heads()).map(row).collect();
        }
        let row = |head| {
            let mut row = view.scores(head).to_vec();
            let others = row.len().saturating_sub(self.recent);
            row[others..].fill(f32::INFINITY);
            row
        };
        (0..view.heads()).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::Pins;

    /// What one head keeps of keys of these norms.
    fn kept(recent: usize, budget: usize, norms: &[f32]) -> Vec<u32> {
        let policy = KNormConfig { recent }
            .bind(&kv_core::conformance::geometry(1), Budget::Tokens(budget))
            .expect("a good configuration");
        assert_eq!(policy.needs().observation, Observation::KeyNorms);
        let negated: Vec<f32> = norms.iter().map(|norm| -norm).collect();
        let rows: [&[f32]; 1] = [&negated];
        let view =
            LayerView::prefill(0, 1, norms.len(), budget).with_scores(Observation::KeyNorms, &rows);
        let mut keep = KeepPlan::all(1);
        policy.plan(&view, &mut keep);
        let kept = keep.resolve(&view, &Pins::default()).slots.remove(0);
        // The same as the best by the scores that other methods see, and the newest token.
        let scores = policy.scores(&view).remove(0);
        let newest = scores.iter().rev().take(recent);
        assert!(newest.into_iter().all(|&score| score == f32::INFINITY));
        let mut best = kv_core::top(&scores, budget - usize::from(recent == 0));
        best.extend((!best.contains(&(norms.len() - 1))).then_some(norms.len() - 1));
        assert!(
            best.iter()
                .copied()
                .eq(kept.iter().map(|&slot| slot as usize)),
            "{best:?}"
        );
        kept
    }

    #[test]
    fn short_keys_and_the_newest_stay() {
        let norms = [2.0, 0.5, 3.0, 1.0, 4.0, 9.0];
        assert_eq!(kept(1, 3, &norms), [1, 3, 5]);
        assert_eq!(kept(2, 3, &norms), [1, 4, 5]);
        assert_eq!(kept(6, 6, &norms), [0, 1, 2, 3, 4, 5]);
        assert_eq!(kept(1, 1, &norms), [5]);
    }

    #[test]
    fn without_a_window_the_newest_has_the_last_slot() {
        assert_eq!(kept(0, 3, &[2.0, 0.5, 3.0, 1.0, 9.0]), [1, 3, 4]);
        assert_eq!(kept(0, 3, &[2.0, 0.5, 3.0, 1.0, 0.1]), [1, 4]);
        assert_eq!(kept(0, 1, &[2.0, 0.5, 3.0]), [2]);
    }

    #[test]
    fn of_equal_norms_the_earlier_token_stays_and_nan_goes_first() {
        assert_eq!(kept(1, 3, &[1.0, f32::NAN, 1.0, 1.0, 2.0]), [0, 2, 4]);
    }
}
