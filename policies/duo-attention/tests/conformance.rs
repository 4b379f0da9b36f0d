//! What every policy must hold.
use kv_core::conformance::Wrong;
use kv_policy_duo_attention::{DuoAttentionConfig, Selection};

kv_core::conformance!(kit, [DuoAttentionConfig::default, short, mostly_streaming, all_streaming, by_value];
refuses [
    Wrong::new("recent", r#"{"recent": 0}"#),
    Wrong::new("recent", r#"{"sinks": 4, "recent": 4093}"#),
    Wrong::new("sinks", r#"{"sinks": 4096}"#),
    Wrong::new("sparsity", r#"{"sparsity": 1.5}"#),
    Wrong::new("threshold", r#"{"threshold": -0.5}"#),
    Wrong::new("threshold", r#"{"sparsity": 0.5, "threshold": 0.5}"#),
    Wrong::new("selection", r#"{"sparsity": null, "threshold": 0.5, "selection": "quantile"}"#),
]);

fn short() -> DuoAttentionConfig {
    DuoAttentionConfig {
        sinks: Some(4),
        recent: Some(16),
        ..DuoAttentionConfig::default()
    }
}

fn mostly_streaming() -> DuoAttentionConfig {
    DuoAttentionConfig {
        sparsity: Some(0.75),
        sinks: Some(0),
        recent: Some(33),
        ..DuoAttentionConfig::default()
    }
}

fn all_streaming() -> DuoAttentionConfig {
    DuoAttentionConfig {
        sparsity: Some(1.0),
        sinks: Some(64),
        recent: Some(1),
        selection: Selection::Quantile,
        ..DuoAttentionConfig::default()
    }
}

fn by_value() -> DuoAttentionConfig {
    DuoAttentionConfig {
        threshold: Some(0.5),
        sinks: Some(64),
        recent: Some(64),
        ..DuoAttentionConfig::default()
    }
}
