//! The smallest useful policy, to copy from: the most recent tokens, and nothing else.
//!
//! Copy this folder, rename the crate to `kv-policy-<name>`, and change what follows the numbers.
#![forbid(unsafe_code)]

use kv_core::{
    Budget, ConfigError, Geometry, Growth, KeepPlan, LayerView, Needs, Policy, PolicyConfig, Room,
    schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

// ANCHOR: config
/// 1. What a user may set. `deny_unknown_fields` makes a typo an error, `default` makes every field optional. Users read
///    the doc comments of the fields, and the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct RecentOnlyConfig {
    /// Latest tokens that every KV head keeps, from 1 to the budget.
    #[schemars(range(min = 1))]
    pub recent: usize,
}

impl Default for RecentOnlyConfig {
    fn default() -> Self {
        Self { recent: 256 }
    }
}
// ANCHOR_END: config

// ANCHOR: bind
/// 2. What is left of it once it has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecentOnly {
    recent: usize,
}

impl PolicyConfig for RecentOnlyConfig {
    const NAME: &'static str = "template";
    const SUMMARY: &'static str = "the most recent tokens in every head; an example for authors";
    type Policy = RecentOnly;

    /// 3. Everything that a user can get wrong is refused here, by name.
    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<RecentOnly, ConfigError> {
        let most = budget
            .fixed_tokens(geometry)
            .unwrap_or(geometry.max_positions);
        if (1..=most).contains(&self.recent) {
            return Ok(RecentOnly {
                recent: self.recent,
            });
        }
        Err(ConfigError::out_of_range(
            Self::NAME,
            "recent",
            self.recent,
            format!("from 1 to the {most} tokens that a head may hold"),
        ))
    }
}
// ANCHOR_END: bind

// ANCHOR: policy
impl Policy for RecentOnly {
    /// 4. What the engine must know before it asks: nothing to observe, and at most `recent` tokens in a head.
    fn needs(&self) -> Needs {
        Needs {
            min_tokens: self.recent,
            ..Needs::NONE
        }
    }

    fn room(&self, _layer: usize, _prompt: usize, _budget: usize) -> Room {
        Room::Each(self.recent)
    }

    /// 5. The method: what stays of the prompt, and what a head does with the tokens that come later.
    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        for head in 0..view.heads() {
            keep.window(head, 0, self.recent);
            keep.grow(
                head,
                Growth::Ring {
                    sinks: 0,
                    recent: self.recent,
                },
            );
        }
    }
}
// ANCHOR_END: policy
