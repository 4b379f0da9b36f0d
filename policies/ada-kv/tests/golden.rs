//! The same tokens as other people's code; `testdata/` says whose, and how it was made.
use kv_core::conformance::golden_prompts;
use kv_policy_ada_kv::AdaKvConfig;

#[test]
fn the_same_tokens_stay() {
    let cases = golden_prompts::<AdaKvConfig>(include_str!("../testdata/prompts.json"));
    assert_eq!(cases, Ok(72), "cases in the golden data");
}

#[test]
fn the_same_tokens_stay_by_another_policys_score() {
    let cases = golden_prompts::<AdaKvConfig>(include_str!("../testdata/over.json"));
    assert_eq!(cases, Ok(26), "cases in the golden data");
}
