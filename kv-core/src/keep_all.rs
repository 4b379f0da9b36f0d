//! The policy that evicts nothing: the tutorial's start, and what every other is compared with.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Policy, PolicyConfig, Room,
};

/// Configuration of [`KeepAll`]: nothing to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeepAllConfig {}

/// Keeps every token, in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeepAll;

impl PolicyConfig for KeepAllConfig {
    const NAME: &'static str = "keep-all";
    const SUMMARY: &'static str = "keeps every token; what other policies are compared with";
    type Policy = KeepAll;

    fn bind(self, _: &Geometry, budget: Budget) -> Result<KeepAll, ConfigError> {
        if budget == Budget::Full {
            return Ok(KeepAll);
        }
        Err(ConfigError::Budget {
            value: budget.to_string(),
            allowed: "left out (or `full`) with the policy keep-all, which evicts nothing".into(),
        })
    }
}

impl Policy for KeepAll {
    fn needs(&self) -> Needs {
        Needs::NONE
    }

    fn room(&self, _: usize, _: usize, _: usize) -> Room {
        Room::Each(usize::MAX)
    }

    fn plan(&self, _: &LayerView<'_>, _: &mut KeepPlan) {}
}
