//! A layer whose tokens another policy ranks.
use kv_core::{Growth, KeepPlan, LayerView, Needs, Observation, Reads, Scorer, apportion, top};

use crate::{AdaKv, Decode, Safeguard, split};

impl AdaKv {
    /// What a split needs of a policy that needs `over` itself.
    pub(crate) fn needs_over(&self, over: Needs) -> Needs {
        // Unless heads evict, what is generated is not ranked.
        let (observation, reads) = if self.is_unlimited {
            (Observation::None, Reads::NONE)
        } else {
            (over.observation.of_the_prompt(), over.reads)
        };
        Needs {
            observation,
            reduction: over.reduction,
            reads,
            appends: true,
            min_tokens: over.min_tokens,
            ..Needs::NONE
        }
    }

    /// Keeps the best of every head by the other policy's scores, `cap` tokens per head on average, and says how many, `[H]`.
    pub(crate) fn keep_over(
        &self,
        view: &LayerView<'_>,
        cap: usize,
        keep: &mut KeepPlan,
    ) -> Vec<usize> {
        let scores = self.scores(view);
        let given = self.given_over(view.layer, &scores, cap);
        for (head, &count) in given.iter().enumerate() {
            let order = view.by_age(head);
            let by_age: Vec<f32> = order
                .iter()
                .map(|&slot| scores[head][slot as usize])
                .collect();
            // Not by scores that the plan brings: heads that evict go on by what is observed. The newest has a place in any case.
            let newest = order.len().saturating_sub(1);
            let best = top(&by_age[..newest], count.saturating_sub(1)).into_iter();
            keep.slots(head, best.chain([newest]).map(|age| order[age]));
        }
        given
    }

    /// Tokens of every head, `[H]`: those that score positive infinity, whatever the split, and the best of the others.
    fn given_over(&self, layer: usize, scores: &[Vec<f32>], cap: usize) -> Vec<usize> {
        if self.is_even(layer) {
            return vec![cap; scores.len()];
        }
        let alpha = self.config.alpha;
        if self.config.safeguard == Safeguard::Guarantee {
            let safe = split::guaranteed(cap, alpha, 0);
            return split::counts(scores, cap.saturating_mul(scores.len()), safe);
        }
        let of = |row: &Vec<f32>| {
            row.iter()
                .copied()
                .filter(|&s| s != f32::INFINITY)
                .collect()
        };
        let mut ranked: Vec<Vec<f32>> = scores.iter().map(of).collect();
        let limits: Vec<usize> = ranked.iter().map(Vec::len).collect();
        let fixed = |head: usize| scores[head].len() - limits[head];
        // A head with more of them than its even share takes from what the others share.
        let total = cap.saturating_mul(scores.len());
        let held: usize = (0..scores.len()).map(fixed).sum();
        if held >= total {
            return split::counts(scores, total, 1);
        }
        let even: Vec<usize> = (0..scores.len())
            .map(|head| cap.saturating_sub(fixed(head)))
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "weights of a split")]
        let weights: Vec<f64> = even.iter().map(|&base| base as f64).collect();
        let bases = apportion(total - held, &weights, &even);
        if self.config.normalize {
            for (row, &base) in ranked.iter_mut().zip(&bases) {
                split::weigh(std::slice::from_mut(row), base);
            }
        }
        let counts = split::counts(&ranked, bases.iter().sum(), 0);
        let given = if self.rounds_as_authors() {
            split::mix_as_authors(&counts, &bases, alpha)
        } else {
            split::mix(&counts, &bases, alpha, &limits)
        };
        given
            .into_iter()
            .enumerate()
            .map(|(head, count)| fixed(head) + count)
            .collect()
    }

    /// The view with the layer's own budget, which a pyramid makes.
    fn of_layer<'a>(&self, view: &LayerView<'a>) -> LayerView<'a> {
        let mut view = *view;
        let base = self.base(view.layer, view.prompt, view.budget);
        view.budget = self.score.window.saturating_add(base);
        view
    }

    /// Newest tokens that a head does not evict while decoding, `[H]`: the window, or as the other policy says.
    pub(crate) fn recent(&self, view: &LayerView<'_>) -> Vec<usize> {
        let window = self.score.window;
        let over = self
            .over
            .as_ref()
            .filter(|_| self.config.decode == Decode::Evict);
        let Some(over) = over else {
            return vec![window; view.heads()];
        };
        let mut plan = KeepPlan::all(view.heads());
        over.plan(&self.of_layer(view), &mut plan);
        let recent = |growth: &Growth| match growth {
            Growth::EvictLowest { recent, .. } => *recent,
            _ => window,
        };
        plan.growth().iter().map(recent).collect()
    }
}

impl Scorer for AdaKv {
    fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
        let Some(scorer) = self.over.as_ref().and_then(|over| over.scorer()) else {
            return view.scores_with_window(self.score.window);
        };
        let mut scores = scorer.scores(&self.of_layer(view));
        for (head, row) in scores.iter_mut().enumerate() {
            if let Some(&newest) = view.by_age(head).last() {
                row[newest as usize] = f32::INFINITY;
            }
        }
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AdaKvConfig, SplitRounding};
    use kv_core::{
        Budget, ConfigError, Geometry, LayerShares, Over, Pins, Policy, PolicyConfig, Room,
        conformance::{geometry, registry},
        schemars::JsonSchema,
    };
    use serde::{Deserialize, Serialize};

    const KEPT: f32 = f32::INFINITY;

    /// Ranks by what is observed, never drops the newest half of its budget, and evicts all but the two newest while decoding.
    #[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
    #[schemars(crate = "kv_core::schemars")]
    struct EvictsConfig {}

    #[derive(Debug)]
    struct Evicts;

    impl PolicyConfig for EvictsConfig {
        const NAME: &'static str = "evicts";
        const SUMMARY: &'static str = "evicts";
        type Policy = Evicts;

        fn bind(self, _: &Geometry, _: Budget) -> Result<Evicts, ConfigError> {
            Ok(Evicts)
        }
    }

    impl Policy for Evicts {
        fn needs(&self) -> Needs {
            Needs {
                observation: Observation::Rows,
                ..Needs::NONE
            }
        }

        fn scorer(&self) -> Option<&dyn Scorer> {
            Some(self)
        }

        fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
            for head in 0..view.heads() {
                let limit = view.budget;
                keep.top(head, limit - 2, 2);
                keep.grow(head, Growth::EvictLowest { limit, recent: 2 });
            }
        }
    }

    impl Scorer for Evicts {
        fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
            view.scores_with_window(view.budget / 2)
        }
    }

    /// What two heads keep of the page's scores, their two newest tokens and perhaps the first never dropped: slots, growth
    /// and the scores that stay with the first head.
    fn kept(
        config: AdaKvConfig,
        first: [f32; 2],
        budget: usize,
    ) -> (Vec<Vec<u32>>, Vec<Growth>, Vec<f32>) {
        let mut registry = registry();
        registry.add::<EvictsConfig>();
        let rows: [&[f32]; 2] = [
            &[first[0], 0.30, 0.25, 0.20, 0.15, 0.05, 0.01, 9.0],
            &[first[1], 0.40, 0.04, 0.03, 0.02, 0.01, 0.01, 9.0],
        ];
        let policy = config
            .bind_in(&registry, &geometry(2), Budget::Tokens(budget))
            .expect("a good configuration");
        let view =
            LayerView::prefill(0, 2, 8, budget).with_scores(policy.needs().observation, &rows);
        let mut keep = KeepPlan::all(2);
        policy.plan(&view, &mut keep);
        let kept = keep.resolve(&view, &Pins::default());
        let scores = kept.scores.map(|mut scores| scores.remove(0));
        (kept.slots, kept.growth, scores.unwrap_or_default())
    }

    fn lens(config: AdaKvConfig, first: [f32; 2]) -> Vec<usize> {
        kept(config, first, 5).0.iter().map(Vec::len).collect()
    }

    fn split(safeguard: Safeguard, alpha: f64) -> AdaKvConfig {
        AdaKvConfig {
            over: Some(Over::named("evicts")),
            safeguard,
            alpha,
            ..AdaKvConfig::default()
        }
    }

    #[test]
    fn the_two_heads_of_the_method_page() {
        // Of the six tokens that are not fixed, five and one are the best.
        assert_eq!(lens(split(Safeguard::Mix, 0.0), [0.0; 2]), [5 + 2, 1 + 2]);
        assert_eq!(lens(split(Safeguard::Mix, 0.5), [0.0; 2]), [4 + 2, 2 + 2]);
        let authors = AdaKvConfig {
            rounding: SplitRounding::Authors,
            ..split(Safeguard::Mix, 0.2)
        };
        assert_eq!(lens(authors, [0.0; 2]), [4 + 2, 1 + 2]);
        assert_eq!(
            lens(split(Safeguard::Guarantee, 0.2), [0.0; 2]),
            [5 + 2, 1 + 2]
        );
        // Four of five guaranteed are two besides those that are fixed.
        assert_eq!(
            lens(split(Safeguard::Guarantee, 0.8), [0.0; 2]),
            [4 + 2, 2 + 2]
        );
        let (slots, growth, _) = kept(split(Safeguard::Mix, 0.5), [0.0; 2], 5);
        assert_eq!(slots, [vec![1, 2, 3, 4, 6, 7], vec![1, 2, 6, 7]]);
        assert_eq!(growth, [Growth::Append; 2]);
    }

    #[test]
    fn what_is_never_dropped_comes_before_the_split() {
        // A sink in the first head: five tokens are left, four and one the best.
        for safeguard in [Safeguard::Mix, Safeguard::Guarantee] {
            assert_eq!(lens(split(safeguard, 0.0), [KEPT, 0.0]), [4 + 3, 1 + 2]);
        }
        assert_eq!(
            lens(split(Safeguard::Mix, 1.0), [KEPT, 0.0]),
            [2 + 3, 3 + 2]
        );
    }

    #[test]
    fn skipped_layers_are_even() {
        let config = AdaKvConfig {
            skip: 1,
            ..split(Safeguard::Mix, 0.0)
        };
        assert_eq!(lens(config, [0.0; 2]), [5, 5]);
    }

    #[test]
    fn in_a_pyramid_the_other_policy_has_the_layers_budget() {
        let config = AdaKvConfig {
            layers: LayerShares::Pyramid,
            ..split(Safeguard::Mix, 0.0)
        };
        let mut registry = registry();
        registry.add::<EvictsConfig>();
        let policy = config
            .bind_in(&registry, &geometry(2), Budget::Tokens(20))
            .expect("a good configuration");
        let row: Vec<f32> = (0..60_u8).map(f32::from).collect();
        let rows = [row.as_slice(); 2];
        let mut lens = Vec::new();
        for layer in 0..2 {
            let view =
                LayerView::prefill(layer, 2, 60, 20).with_scores(Observation::Accumulated, &rows);
            let mut keep = KeepPlan::all(2);
            policy.plan(&view, &mut keep);
            let kept = keep.resolve(&view, &Pins::default()).slots;
            let held: usize = kept.iter().map(Vec::len).sum();
            assert_eq!(policy.room(layer, 60, 20), Room::Together(held));
            let fixed = |row: &Vec<f32>| row.iter().filter(|score| **score == KEPT).count();
            lens.push((held, policy.scores(&view).iter().map(fixed).max()));
        }
        // Of 80 tokens the last layer has two windows of one token and a twentieth of the average besides.
        assert_eq!(lens, [(76, Some(19)), (4, Some(1))]);
    }

    #[test]
    fn heads_evict_by_what_is_observed_as_the_other_policy_would() {
        let config = AdaKvConfig {
            decode: Decode::Evict,
            ..split(Safeguard::Mix, 0.5)
        };
        let evict = |limit| Growth::EvictLowest { limit, recent: 2 };
        let (_, growth, scores) = kept(config.clone(), [0.0; 2], 5);
        assert_eq!(growth, [evict(6), evict(4)]);
        assert_eq!(scores, [0.30, 0.25, 0.20, 0.15, 0.01, 9.0]);
        assert_eq!(kept(config, [0.0; 2], 20).1, [evict(20); 2]);
    }

    #[test]
    fn only_what_the_split_needs_is_observed() {
        let mut registry = registry();
        registry.add::<EvictsConfig>();
        let needs = |decode, budget| {
            let config = AdaKvConfig {
                decode,
                ..split(Safeguard::Mix, 0.5)
            };
            let policy = config.bind_in(&registry, &geometry(2), budget);
            let needs = policy.expect("a good configuration").needs();
            (needs.observation, needs.appends)
        };
        let tokens = Budget::Tokens(9);
        assert_eq!(
            needs(Decode::Append, tokens),
            (Observation::Accumulated, true)
        );
        assert_eq!(needs(Decode::Evict, tokens), (Observation::Rows, false));
        assert_eq!(
            needs(Decode::Evict, Budget::Full),
            (Observation::None, true)
        );
    }
}
