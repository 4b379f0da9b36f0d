//! What every policy must hold.
use kv_core::{Budget, PolicyConfig, conformance::Wrong};
use kv_policy_lag_kv::LagKvConfig;

kv_core::conformance!(kit, [LagKvConfig::default, short_partitions, across_partitions];
also heads_are_alike, budgets_nest, keeps_the_best, rooms_spend_the_budget, ties_go_to_the_lower_head;
refuses [
    Wrong::new("lag", r#"{"lag": 0}"#),
    Wrong::new("sinks", r#"{"sinks": 64}"#).under(Budget::Tokens(64)),
    Wrong::new("sinks", r#"{"sinks": 4096}"#).under(Budget::Ratio(0.25)),
]);

fn short_partitions() -> LagKvConfig {
    LagKvConfig {
        lag: 16,
        ..LagKvConfig::default()
    }
}

fn across_partitions() -> LagKvConfig {
    LagKvConfig {
        sinks: 0,
        lag: 7,
        cross_scoring: true,
    }
}

#[test]
fn the_refusals_say_what_is_allowed() {
    let refusal = |sinks, lag| {
        let config = LagKvConfig {
            sinks,
            lag,
            ..LagKvConfig::default()
        };
        let geometry = kv_core::conformance::geometry(2);
        let refused = config.bind(&geometry, Budget::Tokens(8));
        refused.expect_err("is refused").to_string()
    };
    assert_eq!(
        refusal(8, 128),
        "policy lag-kv: `sinks` is 8, must be at most 7: 8 tokens per head less the newest"
    );
    assert_eq!(
        refusal(4, 0),
        "policy lag-kv: `lag` is 0, must be at least 1"
    );
}
