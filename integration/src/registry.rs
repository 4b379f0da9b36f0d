//! Every policy that this build was asked for: one line each.
use kv_core::{KeepAllConfig, Registry};

/// Registers each policy and shows its configuration, if its feature is on.
macro_rules! policies {
    ($($feature:literal: $krate:ident::$config:ident;)+) => {
        /// The policies of this build, by name.
        #[must_use]
        pub fn policies() -> Registry {
            let mut registry = Registry::default();
            registry.add::<KeepAllConfig>();
            $(
                #[cfg(feature = $feature)]
                registry.add::<$krate::$config>();
            )+
            registry
        }

        /// The configurations of this build's policies, for [`CacheConfig::of`](crate::CacheConfig::of).
        pub mod policy {
            pub use kv_core::KeepAllConfig;
            $(
                #[cfg(feature = $feature)]
                pub use $krate::$config;
            )+

            /// Every policy that has a cargo feature, by the name of both, and whether this build has it.
            pub const FEATURES: &[(&str, bool)] = &[$(($feature, cfg!(feature = $feature))),+];
        }
    };
}

policies! {
    "ada-kv": kv_policy_ada_kv::AdaKvConfig;
    "cake": kv_policy_cake::CakeConfig;
    "chunk-kv": kv_policy_chunk_kv::ChunkKvConfig;
    "critical-kv": kv_policy_critical_kv::CriticalKvConfig;
    "duo-attention": kv_policy_duo_attention::DuoAttentionConfig;
    "expected-attention": kv_policy_expected_attention::ExpectedAttentionConfig;
    "fast-gen": kv_policy_fast_gen::FastGenConfig;
    "h2o": kv_policy_h2o::H2oConfig;
    "head-kv": kv_policy_head_kv::HeadKvConfig;
    "k-norm": kv_policy_k_norm::KNormConfig;
    "key-diff": kv_policy_key_diff::KeyDiffConfig;
    "la-cache": kv_policy_la_cache::LaCacheConfig;
    "lag-kv": kv_policy_lag_kv::LagKvConfig;
    "pyramid-kv": kv_policy_pyramid_kv::PyramidKvConfig;
    "snap-kv": kv_policy_snap_kv::SnapKvConfig;
    "snap-stream": kv_policy_snap_stream::SnapStreamConfig;
    "streaming-llm": kv_policy_streaming_llm::StreamingLlmConfig;
    "tova": kv_policy_tova::TovaConfig;
}
