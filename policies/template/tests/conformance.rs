//! What every policy must hold, and what a user is told.
use kv_core::{Budget, conformance::Wrong};
use kv_policy_template::TemplateConfig;

// ANCHOR: kit
kv_core::conformance!(kit, [TemplateConfig::default, a_window];
also heads_are_alike, budgets_nest;
refuses [
    Wrong::new("recent", r#"{"recent": 0}"#),
    Wrong::new("recent", r#"{"recent": 65}"#).under(Budget::Tokens(64)),
]);
// ANCHOR_END: kit

fn a_window() -> TemplateConfig {
    TemplateConfig { recent: Some(8) }
}
