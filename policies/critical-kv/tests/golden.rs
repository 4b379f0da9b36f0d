//! The same tokens as other people's code; `testdata/` says whose, and how it was made.
use kv_core::conformance::golden_prompts;
use kv_policy_critical_kv::CriticalKvConfig;

#[test]
fn the_same_tokens_stay_in_the_same_order() {
    let cases = golden_prompts::<CriticalKvConfig>(include_str!("../testdata/prompts.json"));
    assert_eq!(cases, Ok(19), "cases in the golden data");
}
