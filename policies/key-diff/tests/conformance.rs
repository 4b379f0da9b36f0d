//! What every policy must hold.
use kv_core::{
    Budget, PolicyConfig,
    conformance::{Wrong, budgets_nest, properties},
};
use kv_policy_key_diff::KeyDiffConfig;

kv_core::conformance!(kit, [KeyDiffConfig::default, blocks, a_window];
also heads_are_alike, keeps_the_best, rooms_spend_the_budget, ties_go_to_the_lower_head;
refuses [
    Wrong::new("block", r#"{"block": 0}"#),
    Wrong::new("recent", r#"{"recent": 65}"#).under(Budget::Tokens(64)),
    Wrong::new("recent", r#"{"recent": 4097}"#).under(Budget::Ratio(0.25)),
]);

fn blocks() -> KeyDiffConfig {
    KeyDiffConfig {
        block: Some(16),
        ..KeyDiffConfig::default()
    }
}

fn a_window() -> KeyDiffConfig {
    KeyDiffConfig {
        recent: 20,
        block: Some(16),
    }
}

fn keys_alone() -> KeyDiffConfig {
    KeyDiffConfig {
        recent: 0,
        ..KeyDiffConfig::default()
    }
}

/// Where the keys alone decide, the newest token may stay only by the host's doing. All else holds.
#[test]
fn keys_alone_are_a_policy_but_for_the_newest_token() {
    for (name, property) in properties::<KeyDiffConfig>() {
        let result = property(&[keys_alone]);
        assert_eq!(
            result.is_ok(),
            name != "plan_keeps_the_newest",
            "{name}: {result:?}"
        );
    }
}

/// Scored at once, a token that a budget keeps is kept by a larger one. Block by block the survivors decide what is
/// unusual, and they differ.
#[test]
fn budgets_nest_where_the_prompt_is_scored_at_once() {
    let nested = budgets_nest(&[KeyDiffConfig::default, keys_alone]);
    assert!(nested.is_ok(), "{nested:?}");
}

#[test]
fn the_refusals_say_what_is_allowed() {
    let refusal = |recent, block| {
        let geometry = kv_core::conformance::geometry(2);
        let refused = KeyDiffConfig { recent, block }.bind(&geometry, Budget::Tokens(8));
        refused.expect_err("is refused").to_string()
    };
    assert_eq!(
        refusal(1, Some(0)),
        "policy key-diff: `block` is 0, must be at least 1, or left out"
    );
    assert_eq!(
        refusal(9, None),
        "policy key-diff: `recent` is 9, must be at most the 8 tokens that a head may hold"
    );
}
