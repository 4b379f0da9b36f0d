//! The same tokens as other people's code; `testdata/` says whose, and how it was made.
use kv_core::conformance::golden_prompts;
use kv_policy_expected_attention::ExpectedAttentionConfig;

#[test]
fn the_same_tokens_stay_for_the_same_scores() {
    let cases = golden_prompts::<ExpectedAttentionConfig>(include_str!("../testdata/prompts.json"));
    assert_eq!(cases, Ok(36), "cases in the golden data");
}
