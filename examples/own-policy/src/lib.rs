//! Two windows: every head keeps the first tokens and the newest, and even layers twice as many of these as odd ones.
#![forbid(unsafe_code)]

use kv_core::{
    Budget, ConfigError, Geometry, Growth, KeepPlan, LayerView, Needs, Policy, PolicyConfig, Room,
    schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

/// First tokens that every head keeps: without them a model falls apart once the text outgrows the window.
const SINKS: usize = 4;

/// What a user may set; checked, it is the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct TwoWindows {
    /// Latest tokens that every KV head of an odd layer keeps, from 1; even layers keep twice as many, which fits the budget
    /// together with 4 first ones.
    #[schemars(range(min = 1))]
    pub window: usize,
}

impl Default for TwoWindows {
    fn default() -> Self {
        Self { window: 64 }
    }
}

impl PolicyConfig for TwoWindows {
    const NAME: &'static str = "two-windows";
    const SUMMARY: &'static str = "first and newest tokens, in even layers twice as many new ones";
    type Policy = Self;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<Self, ConfigError> {
        let tokens = budget
            .fixed_tokens(geometry)
            .unwrap_or(geometry.max_positions);
        if (1..=tokens.saturating_sub(SINKS) / 2).contains(&self.window) {
            return Ok(self);
        }
        let allowed = format!(
            "at least 1, and {SINKS} + 2 * `window` at most the {tokens} tokens that a head may hold"
        );
        Err(ConfigError::out_of_range(
            Self::NAME,
            "window",
            self.window,
            allowed,
        ))
    }
}

impl TwoWindows {
    fn recent(&self, layer: usize) -> usize {
        let windows = if layer.is_multiple_of(2) { 2 } else { 1 };
        windows * self.window
    }
}

impl Policy for TwoWindows {
    fn needs(&self) -> Needs {
        Needs {
            min_tokens: SINKS + self.recent(0),
            ..Needs::NONE
        }
    }

    fn room(&self, layer: usize, _prompt: usize, _budget: usize) -> Room {
        Room::Each(SINKS + self.recent(layer))
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        let recent = self.recent(view.layer);
        let growth = Growth::Ring {
            sinks: SINKS,
            recent,
        };
        for head in 0..view.heads() {
            keep.window(head, SINKS, recent);
            keep.grow(head, growth);
        }
    }
}
