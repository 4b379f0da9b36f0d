//! The same tokens as other people's code; `testdata/` says whose, and how it was made.
use kv_core::conformance::golden_prompts;
use kv_policy_tova::TovaConfig;

#[test]
fn the_same_tokens_stay() {
    let cases = golden_prompts::<TovaConfig>(include_str!("../testdata/prompts.json"));
    assert_eq!(cases, Ok(24), "cases in the golden data");
}
