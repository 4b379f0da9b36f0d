//! Policies that stand in for those that a method over another one names.
use serde::{Deserialize, Serialize};

use crate::{
    Budget, ConfigError, Geometry, KeepAllConfig, KeepPlan, LayerView, Needs, Observation, Policy,
    PolicyConfig, Reads, Registry, Scorer, schemars::JsonSchema,
};

/// The policies that a method over another one finds in the kit: `keep-all`, `snap-kv` ranking by what is observed in a
/// window of 4 queries, and `key-diff` ranking by the first number of each key. The last two only stand in for the methods of these
/// names, for a policy crate knows no other.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.add::<KeepAllConfig>();
    registry.add::<ObservedConfig>();
    registry.add::<ReadConfig>();
    registry
}

/// Tokens that a stand-in never drops.
const WINDOW: usize = 4;

/// Keeps the best of the observed scores.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ObservedConfig {}

#[derive(Debug)]
struct Observed {
    is_unlimited: bool,
}

impl PolicyConfig for ObservedConfig {
    const NAME: &'static str = "snap-kv";
    const SUMMARY: &'static str = "stands in";
    type Policy = Observed;

    fn bind(self, _: &Geometry, budget: Budget) -> Result<Observed, ConfigError> {
        Ok(Observed {
            is_unlimited: budget == Budget::Full,
        })
    }
}

impl Policy for Observed {
    fn needs(&self) -> Needs {
        let observation = if self.is_unlimited {
            Observation::None
        } else {
            Observation::Window { queries: WINDOW }
        };
        Needs {
            observation,
            appends: true,
            min_tokens: WINDOW,
            ..Needs::NONE
        }
    }

    fn scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        for head in 0..view.heads() {
            if view.len(head) > view.budget {
                keep.top(head, view.budget - WINDOW, WINDOW);
            }
        }
    }
}

impl Scorer for Observed {
    fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
        view.scores_with_window(WINDOW)
    }
}

/// Keeps the best by a score that it reads from the keys.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ReadConfig {}

#[derive(Debug)]
struct Read {
    is_unlimited: bool,
}

impl PolicyConfig for ReadConfig {
    const NAME: &'static str = "key-diff";
    const SUMMARY: &'static str = "stands in";
    type Policy = Read;

    fn bind(self, _: &Geometry, budget: Budget) -> Result<Read, ConfigError> {
        Ok(Read {
            is_unlimited: budget == Budget::Full,
        })
    }
}

impl Policy for Read {
    fn needs(&self) -> Needs {
        Needs {
            reads: Reads {
                keys: !self.is_unlimited,
                ..Reads::NONE
            },
            appends: true,
            ..Needs::NONE
        }
    }

    fn scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        if view.prompt > view.budget {
            for (head, scores) in self.scores(view).into_iter().enumerate() {
                keep.top_by(head, scores, view.budget, 0);
            }
        }
    }
}

impl Scorer for Read {
    fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
        let row = |head| {
            let keys = view.keys(head).chunks_exact(view.head_dim());
            let mut row: Vec<f32> = keys.map(|key| key[0]).collect();
            if let Some(newest) = row.last_mut() {
                *newest = f32::INFINITY;
            }
            row
        };
        (0..view.heads()).map(row).collect()
    }
}
