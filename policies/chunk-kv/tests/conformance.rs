//! What every policy must hold.
use kv_core::{Budget, Over, conformance::Wrong};
use kv_policy_chunk_kv::ChunkKvConfig;

kv_core::conformance!(kit, [ChunkKvConfig::default, over_what_is_read, single_tokens];
also heads_are_alike, ties_go_to_the_lower_head;
refuses [
    Wrong::new("over", r#"{"over": "keep-all"}"#),
    Wrong::new("chunk", r#"{"chunk": 0}"#),
    Wrong::new("chunk", r#"{"chunk": 65}"#).under(Budget::Tokens(64)),
    Wrong::new("chunk", r#"{"chunk": 4097}"#).under(Budget::Ratio(0.25)),
]);

fn over_what_is_read() -> ChunkKvConfig {
    ChunkKvConfig {
        over: Over::named("key-diff"),
        chunk: 8,
    }
}

fn single_tokens() -> ChunkKvConfig {
    ChunkKvConfig {
        chunk: 1,
        ..ChunkKvConfig::default()
    }
}
