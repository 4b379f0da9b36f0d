//! One layer's plan.
use kv_core::{
    Growth, KeepPlan, LayerView, Needs, Observation, Policy, Pyramid, Room, Scorer, WindowedScore,
};

use crate::{AdaKvConfig, Decode, Safeguard, SplitRounding, split};

/// What is never dropped in every head, the window for one, and of the other prompt tokens as many as the head's scores
/// ask for.
#[derive(Debug)]
pub struct AdaKv {
    pub(crate) config: AdaKvConfig,
    /// With `over`, its window is what that policy needs.
    pub(crate) score: WindowedScore,
    /// What ranks the tokens, if it is another policy.
    pub(crate) over: Option<Box<dyn Policy>>,
    /// `None`: all layers alike.
    pub(crate) pyramid: Option<Pyramid>,
    /// `H`.
    pub(crate) heads: usize,
    /// No budget: nothing is dropped.
    pub(crate) is_unlimited: bool,
}

impl AdaKv {
    /// Tokens per KV head of a layer besides the window, as an average over its heads.
    ///
    /// A prompt that fits into the budget needs no pyramid.
    pub(crate) fn base(&self, layer: usize, prompt: usize, budget: usize) -> usize {
        let base = self.score.base(budget);
        match self.pyramid {
            Some(pyramid) if base < self.score.ranked(prompt) => {
                let bases = pyramid.bases(prompt, budget.max(self.score.window));
                bases.get(layer).copied().unwrap_or_default()
            }
            _ => base,
        }
    }

    pub(crate) const fn is_even(&self, layer: usize) -> bool {
        layer < self.config.skip
    }

    pub(crate) fn rounds_as_authors(&self) -> bool {
        self.config.safeguard == Safeguard::Mix && self.config.rounding == SplitRounding::Authors
    }

    /// Tokens besides the window of every head, `[H]`, where they do not all fit.
    fn given(&self, view: &LayerView<'_>, base: usize) -> Vec<usize> {
        if self.is_even(view.layer) {
            return vec![base; view.heads()];
        }
        let mut scores = split::ranked(view, self.score.window);
        let total = base.saturating_mul(view.heads());
        if self.config.safeguard == Safeguard::Guarantee {
            return split::counts(&scores, total, self.floor(base));
        }
        if self.config.normalize {
            split::weigh(&mut scores, base);
        }
        let (counts, bases) = (split::counts(&scores, total, 0), vec![base; view.heads()]);
        if self.rounds_as_authors() {
            return split::mix_as_authors(&counts, &bases, self.config.alpha);
        }
        let limits: Vec<usize> = scores.iter().map(Vec::len).collect();
        split::mix(&counts, &bases, self.config.alpha, &limits)
    }

    fn floor(&self, base: usize) -> usize {
        let cap = self.score.window.saturating_add(base);
        split::guaranteed(cap, self.config.alpha, self.score.window)
    }

    /// A head that may not grow past `limit`, and never drops its `recent` newest tokens.
    fn grow(&self, head: usize, limit: usize, recent: usize, keep: &mut KeepPlan) {
        if self.config.decode == Decode::Evict {
            keep.grow(head, Growth::EvictLowest { limit, recent });
        }
    }

    /// Everything fits: the heads share what the layer's room still has.
    fn grow_into(&self, room: &Room, lens: &[usize], recent: &[usize], keep: &mut KeepPlan) {
        let spare = match room {
            Room::Together(total) => total.saturating_sub(lens.iter().sum()) / lens.len().max(1),
            _ => 0,
        };
        for (head, &len) in lens.iter().enumerate() {
            let limit = match room {
                Room::Each(limit) => *limit,
                _ => len.saturating_add(spare),
            };
            self.grow(head, limit, recent[head], keep);
        }
    }
}

impl Policy for AdaKv {
    fn needs(&self) -> Needs {
        let needs = match &self.over {
            Some(over) => self.needs_over(over.needs()),
            None => self.score.needs(self.is_unlimited),
        };
        match self.config.decode {
            _ if self.is_unlimited => needs,
            Decode::Append => needs,
            Decode::Evict => Needs {
                observation: match needs.observation {
                    Observation::Latest => Observation::Latest,
                    _ => Observation::Rows,
                },
                appends: false,
                ..needs
            },
        }
    }

    fn room(&self, layer: usize, prompt: usize, budget: usize) -> Room {
        if budget == usize::MAX {
            return Room::Together(usize::MAX);
        }
        let cap = self
            .score
            .window
            .saturating_add(self.base(layer, prompt, budget));
        if self.is_even(layer) {
            return Room::Each(cap);
        }
        // Rounding every head by itself adds half a token at most.
        let drift = if self.rounds_as_authors() {
            self.heads / 2
        } else {
            0
        };
        Room::Together(self.heads.saturating_mul(cap).saturating_add(drift))
    }

    fn failure(&self) -> Option<String> {
        self.over.as_ref().and_then(|over| over.failure())
    }

    fn notice(&self) -> Option<String> {
        let over = self.over.as_ref().and_then(|over| over.notice());
        if !self.rounds_as_authors() {
            return over;
        }
        let layers = if self.pyramid.is_some() {
            ", and the layers' budgets need not sum to the budget"
        } else {
            ""
        };
        let own = format!(
            "`rounding` = authors: a layer may hold more than its budget, by half a token per head at most{layers}"
        );
        Some(over.map_or_else(|| own.clone(), |over| format!("{own}; {over}")))
    }

    fn scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        if view.budget == usize::MAX {
            return;
        }
        let window = self.score.window;
        let lens: Vec<usize> = (0..view.heads()).map(|head| view.len(head)).collect();
        let room = self.room(view.layer, view.prompt, view.budget);
        if room.holds(&lens) {
            return self.grow_into(&room, &lens, &self.recent(view), keep);
        }
        let base = self.base(view.layer, view.prompt, view.budget);
        if self.over.is_some() {
            let recent = self.recent(view);
            let kept = self.keep_over(view, window.saturating_add(base), keep);
            for (head, limit) in kept.into_iter().enumerate() {
                self.grow(head, limit, recent[head], keep);
            }
            return;
        }
        let is_ranked_as_one = self.config.safeguard == Safeguard::Guarantee
            && self.config.decode == Decode::Append
            && !self.is_even(view.layer);
        if is_ranked_as_one {
            let total = view.heads().saturating_mul(window.saturating_add(base));
            return keep.top_across_heads(total, self.floor(base), window);
        }
        for (head, count) in self.given(view, base).into_iter().enumerate() {
            keep.top(head, count, window);
            self.grow(head, window.saturating_add(count), window, keep);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{
        Budget, Geometry, LayerShares, Pins, PolicyConfig, ScoreKind, conformance::geometry,
    };

    const HEADS: usize = 2;

    fn bound(config: AdaKvConfig, layers: usize, budget: Budget) -> AdaKv {
        let geometry = Geometry {
            layers,
            ..geometry(HEADS)
        };
        config
            .bind(&geometry, budget)
            .expect("a good configuration")
    }

    fn small(alpha: f64, safeguard: Safeguard) -> AdaKvConfig {
        AdaKvConfig {
            window: 1,
            alpha,
            safeguard,
            ..AdaKvConfig::default()
        }
    }

    fn evicting(config: AdaKvConfig) -> AdaKvConfig {
        AdaKvConfig {
            score: ScoreKind::Accumulated,
            decode: Decode::Evict,
            ..config
        }
    }

    /// What each head keeps of a prompt of 7 with four tokens per head, and how it grows.
    fn kept(config: AdaKvConfig) -> (Vec<Vec<u32>>, Vec<Growth>) {
        let rows: [&[f32]; HEADS] = [
            &[0.30, 0.25, 0.20, 0.15, 0.05, 0.01, 9.0],
            &[0.40, 0.04, 0.03, 0.02, 0.01, 0.01, 9.0],
        ];
        let policy = bound(config, 2, Budget::Tokens(4));
        let view =
            LayerView::prefill(0, HEADS, 7, 4).with_scores(policy.needs().observation, &rows);
        let mut keep = KeepPlan::all(HEADS);
        policy.plan(&view, &mut keep);
        let kept = keep.resolve(&view, &Pins::default());
        (kept.slots, kept.growth)
    }

    fn lens(config: AdaKvConfig) -> Vec<usize> {
        kept(config).0.iter().map(Vec::len).collect()
    }

    #[test]
    fn the_two_heads_of_the_method_page() {
        let authors = |alpha| AdaKvConfig {
            rounding: SplitRounding::Authors,
            ..small(alpha, Safeguard::Mix)
        };
        // The window is one token more in each head.
        assert_eq!(lens(authors(0.5)), [4 + 1, 2 + 1]);
        assert_eq!(lens(authors(0.2)), [4 + 1, 1 + 1]);
        assert_eq!(lens(small(0.5, Safeguard::Mix)), [4 + 1, 2 + 1]);
        assert_eq!(lens(small(0.2, Safeguard::Mix)), [5 + 1, 1 + 1]);
        // A quarter of four is one token, the window's; three quarters are two besides it.
        assert_eq!(lens(small(0.25, Safeguard::Guarantee)), [5 + 1, 1 + 1]);
        assert_eq!(lens(small(0.75, Safeguard::Guarantee)), [4 + 1, 2 + 1]);
        let (slots, growth) = kept(small(0.5, Safeguard::Mix));
        assert_eq!(slots, [vec![0, 1, 2, 3, 6], vec![0, 1, 6]]);
        assert_eq!(growth, [Growth::Append; HEADS]);
    }

    /// Whatever the scores and the options, as long as nobody rounds as the authors.
    #[test]
    fn a_layer_holds_its_budget_and_not_a_token_less() {
        const PROMPT: usize = 60;
        let score = |head: usize, slot: usize| {
            let mixed = (head * 97 + slot + 1).wrapping_mul(2_654_435_761) % 1009;
            f32::from(u16::try_from(mixed).unwrap_or(0)).powi(3 * (1 - i32::from(head == 0)))
        };
        let rows: Vec<Vec<f32>> = (0..HEADS)
            .map(|head| (0..PROMPT).map(|slot| score(head, slot)).collect())
            .collect();
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        for safeguard in [Safeguard::Mix, Safeguard::Guarantee] {
            for (alpha, budget) in [(0.0, 7), (0.05, 20), (0.2, 31), (0.37, 59), (1.0, 12)] {
                let policy = bound(small(alpha, safeguard), 2, Budget::Tokens(budget));
                let view = LayerView::prefill(0, HEADS, PROMPT, budget)
                    .with_scores(policy.needs().observation, &rows);
                let mut keep = KeepPlan::all(HEADS);
                policy.plan(&view, &mut keep);
                let kept = keep.resolve(&view, &Pins::default()).slots;
                let held: usize = kept.iter().map(Vec::len).sum();
                assert_eq!(held, HEADS * budget, "{safeguard:?}, {alpha}");
            }
        }
    }

    #[test]
    fn skipped_layers_are_even() {
        let config = AdaKvConfig {
            skip: 1,
            ..small(0.0, Safeguard::Mix)
        };
        assert_eq!(lens(config.clone()), [4, 4]);
        let policy = bound(config, 2, Budget::Tokens(4));
        assert_eq!(policy.room(0, 7, 4), Room::Each(4));
        assert_eq!(policy.room(1, 7, 4), Room::Together(8));
    }

    #[test]
    fn an_evicting_head_stays_as_long_as_it_was_made() {
        for safeguard in [Safeguard::Mix, Safeguard::Guarantee] {
            let config = small(0.75, safeguard);
            let (slots, growth) = kept(evicting(config.clone()));
            assert_eq!(slots, kept(config).0);
            for (slots, growth) in slots.iter().zip(growth) {
                let limit = slots.len();
                assert_eq!(growth, Growth::EvictLowest { limit, recent: 1 });
            }
        }
    }

    #[test]
    fn after_a_short_prompt_the_heads_grow_to_the_budget() {
        for layers in [LayerShares::Uniform, LayerShares::Pyramid] {
            for skip in [0, 2] {
                let config = AdaKvConfig {
                    layers,
                    skip,
                    ..evicting(small(0.2, Safeguard::Mix))
                };
                let policy = bound(config, 2, Budget::Tokens(8));
                let rows: [&[f32]; HEADS] = [&[0.1; 5]; HEADS];
                let view = LayerView::prefill(1, HEADS, 5, 8).with_scores(Observation::Rows, &rows);
                let mut keep = KeepPlan::all(HEADS);
                policy.plan(&view, &mut keep);
                let kept = keep.resolve(&view, &Pins::default());
                let growth = Growth::EvictLowest {
                    limit: 8,
                    recent: 1,
                };
                assert_eq!(kept.growth, [growth; HEADS]);
                assert_eq!(kept.slots[0].len(), 5);
            }
        }
    }

    #[test]
    fn a_pyramid_gives_the_layers_different_rooms() {
        let config = AdaKvConfig {
            layers: LayerShares::Pyramid,
            ..AdaKvConfig::default()
        };
        let policy = bound(config, 32, Budget::Tokens(512));
        let rooms: Vec<usize> = (0..32)
            .map(|layer| policy.room(layer, 4000, 512).total(HEADS))
            .collect();
        assert_eq!((rooms[0], rooms[31]), (HEADS * 968, HEADS * 56));
        assert_eq!(rooms.iter().sum::<usize>(), 32 * HEADS * 512);
        assert_eq!(policy.room(9, 400, 512), Room::Together(HEADS * 512));
        assert_eq!(policy.room(9, 400, usize::MAX), Room::Together(usize::MAX));
    }

    #[test]
    fn the_authors_drift_is_in_the_room_and_announced() {
        let config = AdaKvConfig {
            rounding: SplitRounding::Authors,
            layers: LayerShares::Pyramid,
            ..AdaKvConfig::default()
        };
        let policy = bound(config, 2, Budget::Tokens(64));
        assert_eq!(policy.room(0, 64, 64), Room::Together(HEADS * 64 + 1));
        let notice = policy.notice().expect("a notice");
        assert!(
            notice.contains("half a token") && notice.contains("layers"),
            "{notice}"
        );
        assert_eq!(
            bound(AdaKvConfig::default(), 2, Budget::Full).notice(),
            None
        );
    }
}
