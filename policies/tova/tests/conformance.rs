//! What every policy must hold.
use kv_core::{Budget, PolicyConfig};
use kv_policy_tova::{Decode, TovaConfig};

kv_core::conformance!(kit, [TovaConfig::default, prompt_only];
also heads_are_alike, budgets_nest, keeps_the_best, rooms_spend_the_budget, ties_go_to_the_lower_head);

fn prompt_only() -> TovaConfig {
    TovaConfig {
        decode: Decode::Append,
    }
}

#[test]
fn a_head_that_evicts_needs_two_slots() {
    let geometry = kv_core::conformance::geometry(2);
    let refused = TovaConfig::default().bind(&geometry, Budget::Tokens(1));
    assert_eq!(
        refused.expect_err("is refused").to_string(),
        "`budget` is 1, must be at least 2 tokens per KV head: one and a slot for the newcomer"
    );
    for (config, tokens) in [(TovaConfig::default(), 2), (prompt_only(), 1)] {
        assert!(
            config.bind(&geometry, Budget::Tokens(tokens)).is_ok(),
            "{config:?}"
        );
    }
}
