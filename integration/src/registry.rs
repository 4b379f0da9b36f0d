//! Every policy that this build was asked for: one line each.
use kv_core::{KeepAllConfig, Registry};

/// The policies of this build, by name.
#[must_use]
pub fn policies() -> Registry {
    let mut registry = Registry::default();
    registry.add::<KeepAllConfig>();
    #[cfg(feature = "streaming-llm")]
    registry.add::<kv_policy_streaming_llm::StreamingLlmConfig>();
    registry
}
