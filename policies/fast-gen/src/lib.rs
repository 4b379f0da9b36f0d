//! `FastGen`: every head gets the leanest of five strategies that recovers its attention on the prompt.
//!
//! Ge et al., *Model Tells You What to Discard: Adaptive KV Cache Compression for LLMs*, ICLR 2024,
//! <https://arxiv.org/abs/2310.01801>.
//!
//! The strategies are nested: special tokens; and punctuation; and heavy hitters, the tokens with the most accumulated
//! attention; and a window of the newest; everything. After the prompt a head gets the first whose tokens hold at least
//! `recovery` of its attention, as a mean over all queries. While decoding it goes on by it: special tokens and punctuation
//! that come stay, the window slides, and of the others the lowest accumulated attention goes.
//!
//! Where it differs from the paper, which was made for one query head per KV head and knows no budget:
//!
//! * The `G` query heads of a group share one strategy, by the mean of their attention.
//! * Every head keeps the newest token too, until the next one comes. It counts for no recovery but the window's.
//! * A budget bounds what the heads of a layer hold together. A prompt that fits is kept whole and every head is full.
//!   Otherwise heads that ask for less than an even share get what they ask for, the others share the rest evenly, and what
//!   then is left over is shared by all. A head that asks for more than its room keeps the first of its special tokens and
//!   punctuation, in what heavy hitters and window leave or in a third of its room where they would leave less, and splits
//!   what is left between those two in their proportion.
//! * Shares of the prompt are rounded down and stay what they were when the text goes on.
#![forbid(unsafe_code)]

mod config;
mod profile;
mod rule;

pub use config::FastGenConfig;
use kv_core::{
    KeepPlan, LayerView, Needs, Observation, Policy, Reads, Reduce, Reduction, Room, apportion,
};
use rule::Rule;
pub use rule::Strategy;

/// A strategy for every head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FastGen {
    config: FastGenConfig,
    /// KV heads of a layer, `H`.
    heads: usize,
}

impl FastGen {
    pub(crate) const fn new(config: FastGenConfig, heads: usize) -> Self {
        Self { config, heads }
    }

    /// The strategies of a layer's heads after its prompt, `[H]`. Reads scores, queries, keys and classes; where the
    /// prompt fits the budget, nothing.
    #[must_use]
    pub fn strategies(&self, view: &LayerView<'_>) -> Vec<Strategy> {
        let fits = view.budget < usize::MAX && view.prompt <= view.budget;
        let of = |head| {
            if fits {
                Strategy::Full
            } else {
                profile::strategy(&self.config, view, head)
            }
        };
        (0..view.heads()).map(of).collect()
    }
}

/// Tokens that each head may hold, of which each asks for `asks`, under a budget of `budget` tokens per head.
fn rooms(asks: &[usize], budget: usize) -> Vec<usize> {
    if budget == usize::MAX {
        return vec![usize::MAX; asks.len()];
    }
    // A split is worked out in floats, and no head holds so much.
    if asks.iter().all(|&ask| ask <= budget) && budget > u32::MAX as usize {
        return vec![budget; asks.len()];
    }
    let even = vec![1.0; asks.len()];
    let total = budget.saturating_mul(asks.len());
    let mut rooms = apportion(total, &even, asks);
    let left = total - rooms.iter().sum::<usize>();
    let more = apportion(left, &even, &vec![usize::MAX; asks.len()]);
    rooms
        .iter_mut()
        .zip(more)
        .for_each(|(room, more)| *room += more);
    rooms
}

impl Policy for FastGen {
    fn needs(&self) -> Needs {
        Needs {
            observation: Observation::Rows,
            reduction: Reduction {
                queries: Reduce::Sum,
                ..Reduction::MEAN
            },
            reads: Reads {
                queries: true,
                keys: true,
                classes: true,
                ..Reads::NONE
            },
            ..Needs::NONE
        }
    }

    fn room(&self, _: usize, _: usize, budget: usize) -> Room {
        Room::Together(budget.saturating_mul(self.heads))
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        let strategies = self.strategies(view);
        let rule = |&strategy: &Strategy| Rule::new(&self.config, strategy, view.prompt);
        let rules: Vec<Rule> = strategies.iter().map(rule).collect();
        let ask = |(head, rule): (usize, &Rule)| rule.kept(view, head, usize::MAX).len();
        let asks: Vec<usize> = rules.iter().enumerate().map(ask).collect();
        for (head, room) in rooms(&asks, view.budget).into_iter().enumerate() {
            let kept = rules[head].kept(view, head, room);
            if kept.len() < view.len(head) {
                keep.slots(
                    head,
                    kept.into_iter().map(|slot| kv_core::Slot::new(slot).0),
                );
            }
            keep.grow(head, rules[head].growth(room));
        }
    }
}
