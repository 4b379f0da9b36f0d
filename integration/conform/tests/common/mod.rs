//! The policies and the test data.
use std::path::{Path, PathBuf};

use kv_core::Registry;

/// All policies that the test data is about.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::default();
    registry
        .add::<kv_policy_ada_kv::AdaKvConfig>()
        .add::<kv_policy_chunk_kv::ChunkKvConfig>()
        .add::<kv_policy_critical_kv::CriticalKvConfig>()
        .add::<kv_policy_duo_attention::DuoAttentionConfig>()
        .add::<kv_policy_expected_attention::ExpectedAttentionConfig>()
        .add::<kv_policy_h2o::H2oConfig>()
        .add::<kv_policy_head_kv::HeadKvConfig>()
        .add::<kv_policy_k_norm::KNormConfig>()
        .add::<kv_policy_key_diff::KeyDiffConfig>()
        .add::<kv_policy_lag_kv::LagKvConfig>()
        .add::<kv_policy_pyramid_kv::PyramidKvConfig>()
        .add::<kv_policy_snap_kv::SnapKvConfig>()
        .add::<kv_policy_streaming_llm::StreamingLlmConfig>()
        .add::<kv_policy_tova::TovaConfig>();
    registry
}

/// A file of cases and its arrays.
pub(crate) fn testdata(name: &str) -> (PathBuf, PathBuf) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    (
        folder.join(format!("{name}.json")),
        folder.join(format!("{name}.npz")),
    )
}
