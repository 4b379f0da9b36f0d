//! `CriticalKV`: half of what a head keeps is the best by another method's score, and the other half is chosen by score
//! and by what the token's value weighs in the layer's output.
//!
//! Feng et al., *Identify Critical KV Cache in LLM Inference from an Output Perturbation Perspective*, 2025,
//! <https://arxiv.org/abs/2502.03805>; here as `CriticalKVPress` of kvpress 0.5.5 does it.
//!
//! A head keeps as many tokens as the policy `over` gives it. The first `first_stage` of them are the best by that
//! policy's score; of the rest, those with the largest `(score + epsilon) |W_O v|_1`, where the norm is the mean over the
//! `G` query heads of a KV head. So over `ada-kv` this is the authors' head-wise form, `CriticalAdaKVPress`; `ada-kv` over
//! this policy is another method, which splits the layer by the final order. Scores are meant to be positive: of negative
//! ones a heavier value makes less.
//!
//! A token that the other policy never drops stays, whereas kvpress weighs its window like the rest; the kept tokens are
//! the same as long as the window fits.
#![forbid(unsafe_code)]

use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Observation, Over, Policy,
    PolicyConfig, Reads, Registry, Room, Scorer, Slot, schemars::JsonSchema, top,
};
use serde::{Deserialize, Serialize};

/// Configuration of [`CriticalKv`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct CriticalKvConfig {
    /// The policy whose score ranks the prompt's tokens, and that says how many of them each KV head keeps: one that plans
    /// once, after the prompt.
    pub over: Over,
    /// Share of a head's tokens that the score alone chooses, from 0 to 1; one token at least.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub first_stage: f64,
    /// What is added to a score before it is multiplied, from 0 to 1: a token with a score of zero counts for its value.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon: f64,
}

impl Default for CriticalKvConfig {
    /// The authors' numbers, over `SnapKV`.
    fn default() -> Self {
        Self {
            over: Over::named("snap-kv"),
            first_stage: 0.5,
            epsilon: 1e-4,
        }
    }
}

/// Another policy's numbers of tokens, chosen in two stages.
#[derive(Debug)]
pub struct CriticalKv {
    over: Box<dyn Policy>,
    first_stage: f64,
    epsilon: f64,
}

impl PolicyConfig for CriticalKvConfig {
    const NAME: &'static str = "critical-kv";
    const SUMMARY: &'static str = "another policy's choice, half of it by what the values weigh in the output (Feng et al. 2025)";
    type Policy = CriticalKv;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<CriticalKv, ConfigError> {
        self.bind_in(&Registry::default(), geometry, budget)
    }

    fn bind_in(
        self,
        registry: &Registry,
        geometry: &Geometry,
        budget: Budget,
    ) -> Result<CriticalKv, ConfigError> {
        let refuse = |field, value, allowed: &str| {
            Err(ConfigError::out_of_range(Self::NAME, field, value, allowed))
        };
        if !(0.0..=1.0).contains(&self.first_stage) {
            let value = ConfigError::written(self.first_stage);
            return refuse(
                "first_stage",
                value,
                "from 0 to 1: a share of a head's tokens",
            );
        }
        if !(0.0..=1.0).contains(&self.epsilon) {
            let value = ConfigError::written(self.epsilon);
            return refuse("epsilon", value, "from 0 to 1");
        }
        let name = (Self::NAME, "over");
        let over = self.over.bind_scorer(name, registry, geometry, budget)?;
        self.over.check_plans_once(name, &over.needs())?;
        Ok(CriticalKv {
            over,
            first_stage: self.first_stage,
            epsilon: self.epsilon,
        })
    }
}

impl CriticalKv {
    /// Whether the other policy ranks anything under this budget.
    fn ranks(&self) -> bool {
        let needs = self.over.needs();
        needs.observation != Observation::None || needs.reads.any()
    }

    /// What the other policy makes of the prompt, and how many tokens of each head it keeps, `[H]`.
    fn given(&self, view: &LayerView<'_>) -> (KeepPlan, Vec<usize>) {
        let mut plan = KeepPlan::all(view.heads());
        self.over.plan(view, &mut plan);
        let lens = plan.resolve_unguarded(view).iter().map(Vec::len).collect();
        (plan, lens)
    }

    /// The final order, where head `h` keeps `lens[h]` tokens.
    fn staged(&self, view: &LayerView<'_>, lens: &[usize]) -> Vec<Vec<f32>> {
        let mut scores = self
            .over
            .scorer()
            .map_or_else(Vec::new, |by| by.scores(view));
        for (head, (row, &len)) in scores.iter_mut().zip(lens).enumerate() {
            let first = top(row, share_of(len, self.first_stage).max(1));
            for (score, norm) in row.iter_mut().zip(view.output_norms(head)) {
                if *score < f32::INFINITY {
                    *score = self.weighed(*score, *norm);
                }
            }
            for token in first {
                row[token] = f32::INFINITY;
            }
            if let Some(newest) = row.last_mut() {
                *newest = f32::INFINITY;
            }
        }
        scores
    }
}

impl CriticalKv {
    #[expect(clippy::cast_possible_truncation, reason = "a score, rounded once")]
    fn weighed(&self, score: f32, norm: f32) -> f32 {
        ((f64::from(score) + self.epsilon) * f64::from(norm)) as f32
    }
}

impl Policy for CriticalKv {
    fn needs(&self) -> Needs {
        let needs = self.over.needs();
        let norms = Reads {
            output_norms: self.ranks(),
            ..Reads::NONE
        };
        Needs {
            reads: needs.reads.or(norms),
            ..needs
        }
    }

    fn room(&self, layer: usize, prompt: usize, budget: usize) -> Room {
        self.over.room(layer, prompt, budget)
    }

    fn failure(&self) -> Option<String> {
        self.over.failure()
    }

    fn notice(&self) -> Option<String> {
        self.over.notice()
    }

    fn scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        if !self.ranks() {
            return self.over.plan(view, keep);
        }
        let (plan, lens) = self.given(view);
        for (head, &growth) in plan.growth().iter().enumerate() {
            keep.grow(head, growth);
        }
        if (0..).zip(&lens).all(|(head, &len)| len == view.len(head)) {
            return;
        }
        for (head, scores) in self.staged(view, &lens).into_iter().enumerate() {
            // Not by scores that the plan brings: a policy that evicts while decoding goes on by what it observes.
            // The newest has a place, however many the first stage takes.
            let newest = scores.len().saturating_sub(1);
            let best = top(&scores[..newest], lens[head].saturating_sub(1)).into_iter();
            keep.slots(head, best.chain([newest]).map(|token| Slot::new(token).0));
        }
    }
}

impl Scorer for CriticalKv {
    fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
        let (_, lens) = self.given(view);
        self.staged(view, &lens)
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "token counts are far below 2^52 and the share is between 0 and 1"
)]
fn share_of(tokens: usize, share: f64) -> usize {
    // A share is rarely a binary fraction: 0.29 of 100 must be 29, not 28.999.
    (tokens as f64 * share + 1e-9) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{Growth, Pins, PromptRows};

    /// Ranks by the first number of a key, and keeps so many tokens of each head.
    #[derive(Debug)]
    struct Uneven([usize; 2]);

    impl Policy for Uneven {
        fn needs(&self) -> Needs {
            let reads = Reads {
                keys: true,
                ..Reads::NONE
            };
            Needs {
                reads,
                ..Needs::NONE
            }
        }

        fn scorer(&self) -> Option<&dyn Scorer> {
            Some(self)
        }

        fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
            for (head, scores) in self.scores(view).into_iter().enumerate() {
                keep.top_by(head, scores, self.0[head], 0);
                keep.grow(
                    head,
                    Growth::EvictLowest {
                        limit: self.0[head],
                        recent: 1,
                    },
                );
            }
        }
    }

    impl Scorer for Uneven {
        fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
            (0..view.heads())
                .map(|head| view.keys(head).to_vec())
                .collect()
        }
    }

    /// What stays of two heads with the same scores, and the order.
    fn kept(lens: [usize; 2], first_stage: f64) -> (Vec<Vec<u32>>, Vec<f32>) {
        let head = [0.5, 0.4, 0.3, 0.2, 0.1, 0.0, f32::INFINITY];
        let norms = [1.0, 1.0, 1.0, 2.0, 2.0, 100.0, 1.0];
        let rows = PromptRows {
            head_dim: 1,
            group: 1,
            rows: 7,
            keys: Some(&[head, head].concat()),
            output_norms: Some(&[norms, norms].concat()),
            ..PromptRows::default()
        };
        let view = LayerView::prefill(0, 2, 7, 4).with_rows(&rows);
        let policy = CriticalKv {
            over: Box::new(Uneven(lens)),
            first_stage,
            epsilon: 0.01,
        };
        let mut keep = KeepPlan::all(2);
        policy.plan(&view, &mut keep);
        let kept = keep.resolve(&view, &Pins::default());
        for (growth, limit) in kept.growth.iter().zip(lens) {
            assert_eq!(*growth, Growth::EvictLowest { limit, recent: 1 });
        }
        (kept.slots, policy.scores(&view).remove(0))
    }

    #[test]
    fn the_first_half_goes_by_score_and_the_rest_by_what_it_weighs() {
        // Of four, the newest and the best by score; then 0.01 * 100 and 0.21 * 2, before 0.41 and 0.31.
        let (slots, scores) = kept([4, 2], 0.5);
        assert_eq!(slots[0], [0, 3, 5, 6]);
        let expected = [f32::INFINITY, 0.41, 0.31, 0.42, 0.22, 1.0, f32::INFINITY];
        for (found, expected) in scores.iter().zip(expected) {
            let is_near = *found == expected || (found - expected).abs() < 1e-6;
            assert!(is_near, "{scores:?}");
        }
        // Of two, the newest is the first half.
        assert_eq!(slots[1], [5, 6]);
    }

    #[test]
    fn the_share_of_the_first_stage_runs_from_one_token_to_all() {
        assert_eq!(kept([4, 5], 1.0).0, [vec![0, 1, 2, 6], vec![0, 1, 2, 3, 6]]);
        assert_eq!(kept([4, 5], 0.0).0, [vec![0, 3, 5, 6], vec![0, 1, 3, 5, 6]]);
        assert_eq!(share_of(100, 0.29), 29);
    }

    #[test]
    fn what_the_other_policy_keeps_whole_is_kept_whole() {
        let all: Vec<u32> = (0..7).collect();
        assert_eq!(kept([7, 7], 0.5).0, [all.clone(), all]);
    }
}
