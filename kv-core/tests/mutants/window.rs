//! Sinks and a window, right and wrong in many ways.
use std::{
    marker::PhantomData,
    sync::atomic::{AtomicUsize, Ordering},
};

use kv_core::{
    Budget, ConfigError, Geometry, Growth, KeepPlan, LayerView, Needs, Observation, Policy,
    PolicyConfig, Room, schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

crate::faults! { Nothing DropsNewest SlotsForAges OneTooLong IgnoresBudget RoomForOthers Uneven UnevenGrowth ReadsScores AsksInVain Counts ChangesNeeds LongRing Appends MinTokens MinTokensAbove DropsWithRoom PositionsForSlots Unbounded AsksTooMuch PrefersAHead Strides Underflows Overflows BlamesNoField BlamesAnother ShowsAnotherValue AcceptsNothing BadName ForgetsSinks ShortRing }

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, bound = "")]
#[schemars(crate = "kv_core::schemars")]
pub(crate) struct WindowConfig<F: Wrong> {
    /// First tokens of a head.
    pub(crate) sinks: usize,
    /// Latest tokens of a head; what the budget leaves where it is not given.
    #[schemars(range(min = 1))]
    pub(crate) recent: Option<usize>,
    #[serde(skip)]
    pub(crate) fault: PhantomData<F>,
}

impl<F: Wrong> Default for WindowConfig<F> {
    fn default() -> Self {
        Self {
            sinks: 4,
            recent: None,
            fault: PhantomData,
        }
    }
}

impl<F: Wrong> WindowConfig<F> {
    pub(crate) fn narrow() -> Self {
        Self {
            sinks: 0,
            recent: Some(1),
            fault: PhantomData,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Window {
    fault: Fault,
    sinks: usize,
    recent: Option<usize>,
    calls: AtomicUsize,
}

impl<F: Wrong> PolicyConfig for WindowConfig<F> {
    const NAME: &'static str = if matches!(F::FAULT, Fault::BadName) {
        "Right_Window"
    } else {
        "window"
    };
    const SUMMARY: &'static str = "sinks and a window";
    type Policy = Window;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<Window, ConfigError> {
        let refuse = |field: &'static str, value: usize, allowed: &str| match F::FAULT {
            Fault::BlamesNoField => Err(ConfigError::Malformed {
                policy: Self::NAME,
                reason: "it is wrong".into(),
            }),
            Fault::BlamesAnother => Err(out_of_range("window", value, allowed)),
            Fault::ShowsAnotherValue => Err(out_of_range(field, value + 1, allowed)),
            _ => Err(out_of_range(field, value, allowed)),
        };
        let most = budget
            .fixed_tokens(geometry)
            .unwrap_or(geometry.max_positions);
        if F::FAULT == Fault::Overflows {
            // What `+` does in a debug build, in every build.
            let kept = self.sinks.checked_add(self.recent.unwrap_or(1));
            if kept.expect("attempt to add with overflow") > most {
                return refuse("sinks", self.sinks, "below the budget");
            }
        }
        if (self.sinks >= most && F::FAULT != Fault::MinTokensAbove)
            || F::FAULT == Fault::AcceptsNothing
        {
            return refuse("sinks", self.sinks, "below the budget");
        }
        let recent = match self.recent {
            Some(0) => return refuse("recent", 0, "at least 1"),
            Some(recent) if recent > most - self.sinks => {
                return refuse("recent", recent, "within the budget");
            }
            Some(recent) => Some(recent),
            None if budget == Budget::Full => Some(most - self.sinks),
            None => None,
        };
        Ok(Window {
            fault: F::FAULT,
            sinks: self.sinks,
            recent,
            calls: AtomicUsize::new(0),
        })
    }
}

fn out_of_range(field: &'static str, value: usize, allowed: &str) -> ConfigError {
    ConfigError::OutOfRange {
        policy: "window",
        field,
        value: value.to_string(),
        allowed: allowed.into(),
    }
}

impl Policy for Window {
    fn needs(&self) -> Needs {
        let calls = self.calls.load(Ordering::Relaxed);
        let min_tokens = match self.fault {
            Fault::MinTokens => 1,
            Fault::ChangesNeeds => self.sinks + 1 + calls % 7,
            _ => self.sinks + self.recent.unwrap_or(1),
        };
        let observation = if self.fault == Fault::AsksInVain {
            Observation::Accumulated
        } else {
            Observation::None
        };
        Needs {
            min_tokens,
            observation,
            ..Needs::NONE
        }
    }

    fn room(&self, _: usize, _: usize, budget: usize) -> Room {
        let tokens = self.recent.map(|recent| self.sinks + recent);
        match self.fault {
            Fault::Unbounded => Room::Each(usize::MAX),
            Fault::AsksTooMuch => Room::Each(100),
            Fault::RoomForOthers => Room::Heads(vec![0; 7]),
            _ => Room::Each(tokens.unwrap_or(budget)),
        }
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let sinks = if self.fault == Fault::ForgetsSinks {
            0
        } else {
            self.sinks
        };
        let budget = match self.recent {
            Some(recent) => self.sinks + recent,
            None => view.budget.max(self.sinks + 1),
        };
        let recent = budget - sinks;
        for head in 0..view.heads() {
            let held = view.len(head);
            match self.fault {
                Fault::DropsNewest => keep.slots(
                    head,
                    view.by_age(head).into_iter().rev().skip(1).take(recent),
                ),
                Fault::SlotsForAges => {
                    keep.slots(head, (0..).take(held).skip(held.saturating_sub(recent)));
                }
                Fault::OneTooLong => keep.window(head, sinks, recent + 1),
                Fault::IgnoresBudget => keep.window(head, sinks, 40),
                Fault::Uneven if head == 0 => keep.window(head, sinks, recent.div_ceil(2)),
                Fault::ReadsScores if view.scores(head).is_empty() => {}
                Fault::Counts => keep.window(head, sinks, recent - call % 2 % recent),
                Fault::DropsWithRoom => keep.window(head, 0, 1),
                Fault::PositionsForSlots => {
                    let newest_first = view.by_age(head).into_iter().rev().take(budget);
                    keep.slots(
                        head,
                        newest_first.map(|slot| view.position(head, slot as usize).0),
                    );
                }
                Fault::PrefersAHead if head == 0 => keep.window(head, 0, budget),
                Fault::Strides => {
                    let step = held.div_ceil(budget).max(1);
                    keep.slots(head, view.by_age(head).into_iter().rev().step_by(step));
                }
                Fault::Underflows => keep.slots(head, (0..).take(held - sinks)),
                _ => keep.window(head, sinks, recent),
            }
            let ring = match self.fault {
                Fault::LongRing => recent + 1,
                Fault::ShortRing => recent.max(2) - 1,
                Fault::UnevenGrowth if head > 0 => recent.div_ceil(2),
                _ => recent,
            };
            if self.fault != Fault::Appends {
                keep.grow(
                    head,
                    Growth::Ring {
                        sinks,
                        recent: ring,
                    },
                );
            }
        }
    }
}
