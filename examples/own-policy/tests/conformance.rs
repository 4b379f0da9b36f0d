//! What every policy must hold, and what a user is told.
use kv_core::{Budget, conformance::Wrong};
use own_policy::TwoWindows;

fn narrow() -> TwoWindows {
    TwoWindows { window: 5 }
}

kv_core::conformance!(kit, [TwoWindows::default, narrow]; also heads_are_alike, budgets_nest; refuses [
    Wrong::new("window", r#"{"window": 0}"#),
    Wrong::new("window", r#"{"window": 31}"#).under(Budget::Tokens(64)),
]);
