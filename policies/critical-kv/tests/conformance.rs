//! What every policy must hold.
use kv_core::{Budget, Over, conformance::Wrong};
use kv_policy_critical_kv::CriticalKvConfig;

kv_core::conformance!(kit, [CriticalKvConfig::default, over_what_is_read, nearly_all_by_the_output];
also heads_are_alike, keeps_the_best, rooms_spend_the_budget, ties_go_to_the_lower_head;
refuses [
    Wrong::new("over", r#"{"over": "keep-all"}"#),
    Wrong::new("first_stage", r#"{"first_stage": -0.1}"#),
    Wrong::new("first_stage", r#"{"first_stage": 1.1}"#).under(Budget::Tokens(64)),
    Wrong::new("epsilon", r#"{"epsilon": -1.0}"#),
    Wrong::new("epsilon", r#"{"epsilon": 1e300}"#),
]);

fn over_what_is_read() -> CriticalKvConfig {
    CriticalKvConfig {
        over: Over::named("key-diff"),
        first_stage: 1.0,
        ..CriticalKvConfig::default()
    }
}

fn nearly_all_by_the_output() -> CriticalKvConfig {
    CriticalKvConfig {
        over: Over::named("key-diff"),
        first_stage: 0.0,
        epsilon: 0.5,
    }
}
