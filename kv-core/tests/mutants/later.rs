//! Plans of what is held already, right and wrong: a cascade that shares one budget out evenly, and a cut of full heads.
use std::marker::PhantomData;

use kv_core::{
    Budget, Cadence, ConfigError, Geometry, KeepPlan, LayerView, Needs, Phase, Policy,
    PolicyConfig, Room, schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

crate::faults! { Nothing MakesNoPlace CutsAtEveryPlan NeverCutsEarlier PromisesTooLittle ReportsNothingReal ReportsAnew ReadsReports }

#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, bound = "")]
#[schemars(crate = "kv_core::schemars")]
pub(crate) struct LaterConfig<F: Wrong> {
    /// Whether the layers share one budget; else full heads are cut.
    pub(crate) cascades: bool,
    #[serde(skip)]
    pub(crate) fault: PhantomData<F>,
}

impl<F: Wrong> Default for LaterConfig<F> {
    fn default() -> Self {
        Self {
            cascades: !matches!(
                F::FAULT,
                Fault::MakesNoPlace | Fault::CutsAtEveryPlan | Fault::ReadsReports
            ),
            fault: PhantomData,
        }
    }
}

impl<F: Wrong> LaterConfig<F> {
    pub(crate) fn cutting() -> Self {
        Self {
            cascades: false,
            fault: PhantomData,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Later {
    fault: Fault,
    cascades: bool,
    geometry: Geometry,
    calls: std::sync::atomic::AtomicU32,
}

impl<F: Wrong> PolicyConfig for LaterConfig<F> {
    const NAME: &'static str = "later";
    const SUMMARY: &'static str = "plans again";
    type Policy = Later;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<Later, ConfigError> {
        if budget.fixed_tokens(geometry) == Some(1) {
            return Err(ConfigError::Budget {
                value: budget.to_string(),
                allowed: "at least 2 tokens: one of them makes place".into(),
            });
        }
        Ok(Later {
            fault: F::FAULT,
            cascades: self.cascades,
            geometry: *geometry,
            calls: 0.into(),
        })
    }
}

impl Policy for Later {
    fn needs(&self) -> Needs {
        Needs {
            appends: self.cascades,
            min_tokens: 2,
            cadence: if self.cascades {
                Cadence::Cascade
            } else {
                Cadence::Full
            },
            ..Needs::NONE
        }
    }

    fn room(&self, _: usize, prompt: usize, budget: usize) -> Room {
        Room::Each(if self.cascades && budget < usize::MAX {
            prompt.min(self.geometry.layers * budget)
        } else {
            budget
        })
    }

    fn together(&self, _: usize, budget: usize) -> Option<usize> {
        let all = budget.saturating_mul(self.geometry.heads());
        let promised = if self.fault == Fault::PromisesTooLittle {
            all / 2
        } else {
            all
        };
        (self.cascades && budget < usize::MAX).then_some(promised)
    }

    fn report(&self, _: &LayerView<'_>) -> f64 {
        match self.fault {
            Fault::ReportsNothingReal => f64::NAN,
            Fault::ReportsAnew => self
                .calls
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed)
                .into(),
            _ => 1.0,
        }
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        if view.budget == usize::MAX {
            return;
        }
        let cuts = view.phase == Phase::Decode || self.fault == Fault::CutsAtEveryPlan;
        let newest = if !self.cascades && self.fault == Fault::ReadsReports {
            view.reports().len()
        } else if !self.cascades {
            match self.fault {
                Fault::MakesNoPlace => view.budget,
                _ if cuts && view.len(0) >= view.budget => view.budget - 1,
                _ => view.budget,
            }
        } else if self.fault == Fault::NeverCutsEarlier && view.phase == Phase::Decode {
            usize::MAX
        } else if view.prompt <= view.budget {
            view.prompt
        } else {
            view.budget * self.geometry.layers / view.reports().len()
        };
        for head in 0..view.heads() {
            keep.window(head, 0, newest);
        }
    }
}
