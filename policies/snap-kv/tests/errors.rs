//! What a user can get wrong, and what the error says: field, value, and what is allowed.
use kv_core::{Budget, Policy, PolicyConfig, Registry, conformance};
use kv_policy_snap_kv::SnapKvConfig;
use serde_json::{Value, json};

/// The error for a configuration as a user writes it.
fn refusal(config: &Value, budget: Budget) -> String {
    let mut registry = Registry::default();
    registry.add::<SnapKvConfig>();
    let fields = config.as_object().expect("a table").clone();
    let built = registry.build("snap-kv", fields, &conformance::geometry(2), budget);
    built.expect_err("is refused").to_string()
}

#[test]
fn the_window_leaves_no_room() {
    assert_eq!(
        refusal(&json!({}), Budget::Tokens(31)),
        "policy snap-kv: `window` is 32, must be at most the 31 tokens that a head may hold"
    );
    assert_eq!(
        refusal(&json!({ "window": 4097 }), Budget::Ratio(0.5)),
        "policy snap-kv: `window` is 4097, must be at most the 4096 tokens that a head may hold"
    );
    assert_eq!(
        refusal(&json!({ "window": 0 }), Budget::Full),
        "policy snap-kv: `window` is 0, must be at least 1: the newest token is always kept"
    );
}

#[test]
fn the_kernel_has_no_middle() {
    for kernel in [0, 4, 4097] {
        assert_eq!(
            refusal(&json!({ "kernel": kernel }), Budget::Full),
            format!(
                "policy snap-kv: `kernel` is {kernel}, must be odd, from 1 (no pooling) to 4096"
            )
        );
    }
}

#[test]
fn a_field_is_misspelt_or_of_the_wrong_type() {
    assert_eq!(
        refusal(&json!({ "windw": 4 }), Budget::Full),
        "policy snap-kv: unknown field `windw`, expected one of `group`, `kernel`, `order`, `pooling`, `window`"
    );
    assert_eq!(
        refusal(&json!({ "pooling": "median" }), Budget::Full),
        "policy snap-kv: `pooling`: unknown variant `median`, expected one of `none`, `average`, `max`"
    );
    assert_eq!(
        refusal(&json!({ "group": "first" }), Budget::Full),
        "policy snap-kv: `group`: unknown variant `first`, expected one of `mean`, `sum`, `max`"
    );
    let order = refusal(&json!({ "order": "pool" }), Budget::Full);
    assert!(order.contains("`pool`") && order.contains("`pool-then-group`"));
    let negative = refusal(&json!({ "window": -1 }), Budget::Full);
    assert!(negative.contains("`-1`"), "{negative}");
}

#[test]
fn the_largest_that_is_allowed_is_accepted() {
    let geometry = conformance::geometry(2);
    for (window, budget) in [(64, Budget::Tokens(64)), (4096, Budget::Full)] {
        let config = SnapKvConfig {
            window,
            kernel: 4095,
            ..SnapKvConfig::default()
        };
        let policy = config
            .bind(&geometry, budget)
            .unwrap_or_else(|error| panic!("{config:?}: {error}"));
        assert_eq!(policy.needs().min_tokens, window);
    }
}
