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
    "duo-attention": kv_policy_duo_attention::DuoAttentionConfig;
    "fast-gen": kv_policy_fast_gen::FastGenConfig;
    "h2o": kv_policy_h2o::H2oConfig;
    "head-kv": kv_policy_head_kv::HeadKvConfig;
    "pyramid-kv": kv_policy_pyramid_kv::PyramidKvConfig;
    "snap-kv": kv_policy_snap_kv::SnapKvConfig;
    "streaming-llm": kv_policy_streaming_llm::StreamingLlmConfig;
}
