//! The same tokens as other people's code; `testdata/` says whose, and how it was made.
use kv_core::conformance::golden_prompts;
use kv_policy_chunk_kv::ChunkKvConfig;

#[test]
fn the_same_chunks_stay() {
    let cases = golden_prompts::<ChunkKvConfig>(include_str!("../testdata/prompts.json"));
    assert_eq!(cases, Ok(16), "cases in the golden data");
}
