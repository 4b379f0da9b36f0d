//! What a user can get wrong, and what the error says: field, value, and what is allowed.
use kv_core::{Budget, Policy, PolicyConfig, Registry, conformance};
use kv_policy_streaming_llm::StreamingLlmConfig;
use serde_json::{Value, json};

/// The error for a configuration as a user writes it.
fn refusal(config: &Value, budget: Budget) -> String {
    let mut registry = Registry::default();
    registry.add::<StreamingLlmConfig>();
    let fields = config.as_object().expect("a table").clone();
    let built = registry.build("streaming-llm", fields, &conformance::geometry(2), budget);
    built.expect_err("is refused").to_string()
}

#[test]
fn sinks_leave_no_room() {
    assert_eq!(
        refusal(&json!({ "sinks": 64 }), Budget::Tokens(64)),
        "policy streaming-llm: `sinks` is 64, must be below the 64 tokens that a head may hold"
    );
    assert_eq!(
        refusal(&json!({}), Budget::Tokens(4)),
        "policy streaming-llm: `sinks` is 4, must be below the 4 tokens that a head may hold"
    );
    assert_eq!(
        refusal(&json!({ "sinks": 4096 }), Budget::Ratio(0.5)),
        "policy streaming-llm: `sinks` is 4096, must be below the 4096 tokens that a head may hold"
    );
}

#[test]
fn there_is_no_window() {
    assert_eq!(
        refusal(&json!({ "recent": 0 }), Budget::Full),
        "policy streaming-llm: `recent` is 0, must be at least 1: the newest token is always kept"
    );
}

#[test]
fn the_window_is_too_long() {
    assert_eq!(
        refusal(&json!({ "recent": 253 }), Budget::Tokens(256)),
        "policy streaming-llm: `recent` is 253, must be at most 252: 256 tokens per head less 4 sinks"
    );
    assert_eq!(
        refusal(&json!({ "sinks": 0, "recent": 4097 }), Budget::Full),
        "policy streaming-llm: `recent` is 4097, must be at most 4096: 4096 tokens per head less 0 sinks"
    );
}

#[test]
fn a_field_is_misspelt_or_of_the_wrong_type() {
    let misspelt = refusal(&json!({ "sink": 4 }), Budget::Full);
    assert!(
        misspelt.starts_with("policy streaming-llm: unknown field `sink`"),
        "{misspelt}"
    );
    assert!(
        misspelt.contains("`sinks`") && misspelt.contains("`recent`"),
        "{misspelt}"
    );
    let negative = refusal(&json!({ "recent": -1 }), Budget::Full);
    assert!(negative.contains("`-1`"), "{negative}");
}

#[test]
fn the_largest_that_is_allowed_is_accepted() {
    let geometry = conformance::geometry(2);
    for (config, budget) in [
        (
            StreamingLlmConfig {
                sinks: 63,
                recent: None,
                ..StreamingLlmConfig::default()
            },
            Budget::Tokens(64),
        ),
        (
            StreamingLlmConfig {
                sinks: 4,
                recent: Some(252),
                ..StreamingLlmConfig::default()
            },
            Budget::Tokens(256),
        ),
        (
            StreamingLlmConfig {
                sinks: 4095,
                recent: Some(1),
                ..StreamingLlmConfig::default()
            },
            Budget::Full,
        ),
    ] {
        let policy = config
            .bind(&geometry, budget)
            .unwrap_or_else(|error| panic!("{config:?}: {error}"));
        assert!(policy.needs().min_tokens <= 4096);
    }
}
