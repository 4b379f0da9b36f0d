//! What every policy must hold.
use kv_core::{Budget, conformance::Wrong};
use kv_policy_expected_attention::ExpectedAttentionConfig;

kv_core::conformance!(kit, [ExpectedAttentionConfig::default, mean_alone, no_sinks];
also heads_are_alike, budgets_nest, keeps_the_best, rooms_spend_the_budget, ties_go_to_the_lower_head;
refuses [
    Wrong::new("sinks", r#"{"sinks": 64}"#).under(Budget::Tokens(64)),
    Wrong::new("sinks", r#"{"sinks": 4096}"#).under(Budget::Ratio(0.25)),
    Wrong::new("future", r#"{"future": 0}"#),
    Wrong::new("epsilon", r#"{"epsilon": -0.5}"#),
    Wrong::new("epsilon", r#"{"epsilon": 0.5, "value_norm": false}"#),
]);

fn mean_alone() -> ExpectedAttentionConfig {
    ExpectedAttentionConfig {
        covariance: false,
        value_norm: false,
        future: 1,
        ..ExpectedAttentionConfig::default()
    }
}

fn no_sinks() -> ExpectedAttentionConfig {
    ExpectedAttentionConfig {
        sinks: 0,
        epsilon: 0.02,
        ..ExpectedAttentionConfig::default()
    }
}
