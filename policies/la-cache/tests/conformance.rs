//! What every policy must hold.
use kv_core::{Budget, conformance::Wrong};
use kv_policy_la_cache::LaCacheConfig;

kv_core::conformance!(kit, [LaCacheConfig::default, without_a_start, a_long_start];
also heads_are_alike, rooms_spend_the_budget, ties_go_to_the_lower_head;
refuses [
    Wrong::new("start", r#"{"start": 61}"#).under(Budget::Tokens(64)),
    Wrong::new("start", r#"{"start": 4093}"#),
    Wrong::new("span", r#"{"span": 0}"#),
    Wrong::new("span", r#"{"span": 2}"#),
    Wrong::new("overlap", r#"{"overlap": 1}"#),
]);

fn without_a_start() -> LaCacheConfig {
    LaCacheConfig {
        start: 0,
        ..LaCacheConfig::default()
    }
}

fn a_long_start() -> LaCacheConfig {
    LaCacheConfig {
        start: 20,
        span: Some(1),
        overlap: 0,
    }
}
