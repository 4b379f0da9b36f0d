//! The best scores of all heads together, right and wrong.
use std::{
    marker::PhantomData,
    sync::atomic::{AtomicUsize, Ordering},
};

use kv_core::{
    Budget, ConfigError, Geometry, Growth, KeepPlan, LayerView, Needs, Observation, Pins, Policy,
    PolicyConfig, Protected, Room, schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

crate::faults! { Nothing FloorTwice SaysEven EvenLimits OnTop NoWindow Lowest LaterWins Saves Overspends LastHeadWins ChangesRoom WatchesForNothing }

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, bound = "")]
#[schemars(crate = "kv_core::schemars")]
pub(crate) struct ScoresConfig<F: Wrong> {
    #[serde(skip)]
    fault: PhantomData<F>,
}

#[derive(Debug)]
pub(crate) struct Scores {
    fault: Fault,
    heads: usize,
    is_unlimited: bool,
    calls: AtomicUsize,
}

impl<F: Wrong> PolicyConfig for ScoresConfig<F> {
    const NAME: &'static str = "scores";
    const SUMMARY: &'static str = "the best scores of a layer";
    type Policy = Scores;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<Scores, ConfigError> {
        Ok(Scores {
            fault: F::FAULT,
            heads: geometry.kv_heads,
            is_unlimited: budget == Budget::Full,
            calls: AtomicUsize::new(0),
        })
    }
}

impl Policy for Scores {
    fn needs(&self) -> Needs {
        if self.is_unlimited && self.fault != Fault::WatchesForNothing {
            return Needs::NONE;
        }
        Needs {
            observation: Observation::Rows,
            ..Needs::NONE
        }
    }

    fn room(&self, _: usize, _: usize, budget: usize) -> Room {
        match self.fault {
            Fault::SaysEven => Room::Each(budget),
            Fault::ChangesRoom => {
                let call = self.calls.fetch_add(1, Ordering::Relaxed);
                Room::Together(budget.saturating_mul(self.heads) - call % 2)
            }
            Fault::Saves => Room::Together(budget.saturating_mul(self.heads) - 1),
            Fault::Overspends => Room::Together(budget.saturating_mul(self.heads) + 1),
            _ => Room::Together(budget.saturating_mul(self.heads)),
        }
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        let heads = view.heads();
        if view.budget == usize::MAX {
            return;
        }
        let total = heads * view.budget;
        let (floor, recent) = (
            view.budget.saturating_sub(2) / 5,
            usize::from(self.fault != Fault::NoWindow),
        );
        match self.fault {
            Fault::FloorTwice => keep.top_across_heads(total + heads * floor, floor, recent),
            Fault::Lowest if (0..heads).map(|head| view.len(head)).sum::<usize>() <= total => {}
            Fault::LastHeadWins => last_head_wins(view, keep),
            Fault::LaterWins => later_wins(view, keep),
            Fault::Lowest => (0..heads).for_each(|head| keep.slots(head, lowest(view, head))),
            _ => keep.top_across_heads(total, floor, recent),
        }
        // What a head got of the budget is what it may grow to, and what nobody needs yet is divided.
        let kept = keep.resolve(view, &Pins::default());
        let spare = total.saturating_sub(kept.slots.iter().map(Vec::len).sum());
        for (head, slots) in kept.slots.iter().enumerate() {
            let limit = if self.fault == Fault::EvenLimits {
                view.budget
            } else {
                slots.len() + spare / heads
            };
            let growth = if self.fault == Fault::OnTop {
                Growth::Protect {
                    classes: Protected {
                        special: true,
                        punctuation: false,
                    },
                    limit,
                    recent: 1,
                    most: usize::MAX,
                }
            } else {
                Growth::EvictLowest { limit, recent: 1 }
            };
            keep.grow(head, growth);
        }
    }
}

/// Equal shares, and a token less for the first head.
fn last_head_wins(view: &LayerView<'_>, keep: &mut KeepPlan) {
    for head in 0..view.heads() {
        let less = usize::from(head == 0 && view.budget > 1);
        keep.top(head, view.budget - 1 - less, 1);
    }
}

/// The best scores, but of equal ones the later.
fn later_wins(view: &LayerView<'_>, keep: &mut KeepPlan) {
    for head in 0..view.heads() {
        let mut slots = view.by_age(head);
        let newest = slots.pop();
        slots.reverse();
        slots.sort_by(|&a, &b| {
            let score = |slot: u32| (view.scores(head)[slot as usize], 0);
            kv_core::rank(score(a), score(b))
        });
        slots.truncate(view.budget - 1);
        keep.slots(head, slots.into_iter().chain(newest));
    }
}

/// The newest token, and those with the lowest scores.
fn lowest(view: &LayerView<'_>, head: usize) -> Vec<u32> {
    let mut slots = view.by_age(head);
    let newest = slots.pop();
    slots.sort_by(|&a, &b| view.scores(head)[a as usize].total_cmp(&view.scores(head)[b as usize]));
    slots.truncate(view.budget - 1);
    slots.into_iter().chain(newest).collect()
}
