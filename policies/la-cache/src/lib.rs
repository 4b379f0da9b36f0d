//! `LaCache`: every layer keeps other tokens than its neighbours, as the rungs of a ladder, and older text more thinly.
//!
//! Shi et al., *LaCache: Ladder-Shaped KV Caching for Efficient Long-Context Modeling of Large Language Models*, ICML 2025,
//! <https://arxiv.org/abs/2507.14204>.
//!
//! Nothing is observed. Behind the `start` first tokens the cache is cut group by group: of each group of tokens a layer
//! keeps a few, the next layer those beside them, so that the layers together still know all. This happens once to a prompt
//! that is too long, and again whenever a head is full while decoding; a cursor goes on from where it stopped. When it has
//! come within `L` tokens of the end it starts over, and what was thinned once is thinned again.
//!
//! The authors give the keys new positions, those that they have in the cache; here they keep the ones of the text, as
//! everywhere. Their code counts in cache slots and moves a cursor from call to call; here the cursor is worked out from the
//! length of the prompt and of the text so far, for a policy keeps no state.
#![forbid(unsafe_code)]

mod config;
mod ladder;

pub use config::LaCacheConfig;
use kv_core::{Cadence, KeepPlan, LayerView, Needs, Phase, Policy, Room};
use ladder::Ladder;

/// A ladder over the layers of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaCache {
    ladder: Ladder,
}

impl Policy for LaCache {
    fn needs(&self) -> Needs {
        Needs {
            cadence: Cadence::Full,
            min_tokens: self.ladder.least() + 1,
            ..Needs::NONE
        }
    }

    fn room(&self, _: usize, _: usize, budget: usize) -> Room {
        Room::Each(budget)
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        if view.budget == usize::MAX {
            return;
        }
        // The authors cut when a token has come that is too many; here that token is part of the budget, and the cut
        // comes before the next one.
        let capacity = view.budget - 1;
        let (held, cursor) = match view.phase {
            Phase::Prefill => (view.budget, self.ladder.start),
            Phase::Decode => (
                capacity,
                self.ladder
                    .cursor(view.layer, capacity, view.prompt, view.seen()),
            ),
        };
        for head in 0..view.heads() {
            if view.len(head) > held {
                let tokens = view.by_age(head);
                keep.slots(head, self.ladder.cut(view.layer, capacity, cursor, tokens));
            }
        }
    }
}
