//! 6. What every policy must hold, in one line; and 7. what the user is told.
use kv_core::{Budget, PolicyConfig, conformance};
use kv_policy_template::RecentOnlyConfig;

// ANCHOR: kit
kv_core::conformance!(kit, RecentOnlyConfig::default; also heads_are_alike, budgets_nest);
// ANCHOR_END: kit

// ANCHOR: error
#[test]
fn a_window_longer_than_the_budget_is_refused_by_name() {
    let config = RecentOnlyConfig { recent: 65 };
    let error = config
        .bind(&conformance::geometry(2), Budget::Tokens(64))
        .expect_err("65 are more than 64");
    assert_eq!(
        error.to_string(),
        "policy template: `recent` is 65, must be from 1 to the 64 tokens that a head may hold"
    );
}
// ANCHOR_END: error
