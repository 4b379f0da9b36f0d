//! Every policy that this build was asked for: one line each.
use kv_core::{KeepAllConfig, Registry};

/// The policies of this build, by name.
#[must_use]
pub fn policies() -> Registry {
    let mut registry = Registry::default();
    registry.add::<KeepAllConfig>();
    #[cfg(feature = "ada-kv")]
    registry.add::<kv_policy_ada_kv::AdaKvConfig>();
    #[cfg(feature = "duo-attention")]
    registry.add::<kv_policy_duo_attention::DuoAttentionConfig>();
    #[cfg(feature = "h2o")]
    registry.add::<kv_policy_h2o::H2oConfig>();
    #[cfg(feature = "head-kv")]
    registry.add::<kv_policy_head_kv::HeadKvConfig>();
    #[cfg(feature = "pyramid-kv")]
    registry.add::<kv_policy_pyramid_kv::PyramidKvConfig>();
    #[cfg(feature = "snap-kv")]
    registry.add::<kv_policy_snap_kv::SnapKvConfig>();
    #[cfg(feature = "streaming-llm")]
    registry.add::<kv_policy_streaming_llm::StreamingLlmConfig>();
    registry
}
