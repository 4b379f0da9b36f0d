//! What every policy must hold.
use kv_core::{Budget, conformance::Wrong};
use kv_policy_streaming_llm::StreamingLlmConfig;

kv_core::conformance!(kit, [StreamingLlmConfig::default, a_window_alone, the_perplexity_script];
also heads_are_alike, budgets_nest;
refuses [
    Wrong::new("recent", r#"{"recent": 0}"#),
    Wrong::new("recent", r#"{"sinks": 4, "recent": 61}"#).under(Budget::Tokens(64)),
    Wrong::new("sinks", r#"{"sinks": 64}"#).under(Budget::Tokens(64)),
]);

fn a_window_alone() -> StreamingLlmConfig {
    StreamingLlmConfig {
        sinks: 0,
        recent: None,
        ..StreamingLlmConfig::default()
    }
}

/// What the authors' perplexity script sets.
fn the_perplexity_script() -> StreamingLlmConfig {
    StreamingLlmConfig {
        sinks: 1,
        recent: Some(255),
        ..StreamingLlmConfig::default()
    }
}
