//! The most recent tokens, and nothing else.
#![forbid(unsafe_code)]

use kv_core::{
    Budget, ConfigError, Geometry, Growth, KeepPlan, LayerView, Needs, Policy, PolicyConfig, Room,
    schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

// ANCHOR: config
/// What a user may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct TemplateConfig {
    /// Latest tokens that every KV head keeps, from 1 to the budget. Left out, it is the budget; without either, everything
    /// stays.
    #[schemars(range(min = 1))]
    pub recent: Option<usize>,
}
// ANCHOR_END: config

// ANCHOR: bind
/// What is left of it once it has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    recent: Option<usize>,
}

impl PolicyConfig for TemplateConfig {
    const NAME: &'static str = "template";
    const SUMMARY: &'static str = "the most recent tokens in every head";
    type Policy = Template;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<Template, ConfigError> {
        let most = budget
            .fixed_tokens(geometry)
            .unwrap_or(geometry.max_positions);
        match self.recent {
            Some(recent) if !(1..=most).contains(&recent) => {
                let allowed = format!("from 1 to the {most} tokens that a head may hold");
                Err(ConfigError::out_of_range(
                    Self::NAME,
                    "recent",
                    recent,
                    allowed,
                ))
            }
            recent => Ok(Template { recent }),
        }
    }
}
// ANCHOR_END: bind

// ANCHOR: policy
impl Policy for Template {
    /// Nothing to observe. A share of a short prompt that comes out smaller is raised to the window.
    fn needs(&self) -> Needs {
        Needs {
            min_tokens: self.recent.unwrap_or(1),
            ..Needs::NONE
        }
    }

    /// The most that a head will hold: pages are promised by it.
    fn room(&self, _layer: usize, _prompt: usize, budget: usize) -> Room {
        Room::Each(self.recent.unwrap_or(budget))
    }

    /// What stays of the prompt, and what a head does with the tokens that come later.
    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        let recent = self.recent.unwrap_or(view.budget);
        for head in 0..view.heads() {
            keep.window(head, 0, recent);
            keep.grow(head, Growth::Ring { sinks: 0, recent });
        }
    }
}
// ANCHOR_END: policy
