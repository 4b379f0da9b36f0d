//! What every policy must hold.
use kv_core::{
    Budget, PolicyConfig,
    conformance::{Property, Wrong, budgets_nest, heads_are_alike, properties},
};
use kv_policy_k_norm::KNormConfig;

kv_core::conformance!(kit, [KNormConfig::default, a_window];
also heads_are_alike, budgets_nest, keeps_the_best, rooms_spend_the_budget, ties_go_to_the_lower_head;
refuses [
    Wrong::new("recent", r#"{"recent": 65}"#).under(Budget::Tokens(64)),
    Wrong::new("recent", r#"{"recent": 4097}"#).under(Budget::Ratio(0.25)),
]);

fn a_window() -> KNormConfig {
    KNormConfig { recent: 10 }
}

fn keys_alone() -> KNormConfig {
    KNormConfig { recent: 0 }
}

/// Where the keys alone decide, the newest token may stay only by the host's doing. All else holds.
#[test]
fn keys_alone_are_a_policy_but_for_the_newest_token() {
    let more: [(&str, Property<KNormConfig>); 2] = [
        ("heads_are_alike", heads_are_alike),
        ("budgets_nest", budgets_nest),
    ];
    for (name, property) in properties().into_iter().chain(more) {
        let result = property(&[keys_alone]);
        assert_eq!(
            result.is_ok(),
            name != "plan_keeps_the_newest",
            "{name}: {result:?}"
        );
    }
}

#[test]
fn the_refusal_says_what_is_allowed() {
    let geometry = kv_core::conformance::geometry(2);
    let refused = KNormConfig { recent: 9 }.bind(&geometry, Budget::Tokens(8));
    assert_eq!(
        refused.expect_err("is refused").to_string(),
        "policy k-norm: `recent` is 9, must be at most the 8 tokens that a head may hold"
    );
}
