//! Every case of the test data: none differs, and the verdicts are the ones known.
mod common;

use kv_conform::{Report, Verdict};

use common::{registry, testdata};

fn run(name: &str) -> Report {
    let (cases, arrays) = testdata(name);
    kv_conform::run(&registry(), &cases, &arrays).unwrap_or_else(|error| panic!("{error}"))
}

/// Equal, tied and unsupported, of the cases that `of` picks by method and source.
fn counts(report: &Report, of: impl Fn(&str, &str) -> bool) -> [usize; 3] {
    let picked = |verdict| {
        let cases = report.outcomes.iter();
        let cases = cases.filter(|case| of(&case.method, &case.source));
        cases.filter(|case| case.verdict == verdict).count()
    };
    [Verdict::Equal, Verdict::Tied, Verdict::Unsupported].map(picked)
}

/// Equal, tied and unsupported cases of every group, one list for each file.
#[expect(clippy::type_complexity, reason = "a table")]
const GROUPS: [(&str, fn(&str, &str) -> bool, [usize; 3], [usize; 3]); 21] = [
    // A budget below the window is refused: kvpress keeps a part of the window that its own code does not define.
    (
        "streaming_llm, kvpress",
        |m, s| kvpress(m, s, "streaming_llm("),
        [4, 0, 0],
        [4, 0, 0],
    ),
    (
        "snapkv, kvpress",
        |m, s| kvpress(m, s, "snapkv("),
        [6, 0, 6],
        [8, 0, 4],
    ),
    (
        "adakv, kvpress",
        |m, s| kvpress(m, s, "adakv(snapkv("),
        [7, 0, 9],
        [11, 0, 5],
    ),
    (
        "pyramidkv, kvpress",
        |m, s| kvpress(m, s, "pyramidkv("),
        [3, 0, 1],
        [4, 0, 0],
    ),
    (
        "observed_attention, kvpress",
        |m, s| kvpress(m, s, "observed"),
        [4, 0, 0],
        [4, 0, 0],
    ),
    (
        "duo_attention, kvpress",
        |m, s| kvpress(m, s, "duo"),
        [2, 0, 0],
        [2, 0, 0],
    ),
    // A maximum over neighbours makes runs of equal scores, and the authors' code takes any of them.
    (
        "snapkv, factory",
        |m, s| factory(m, s, "snapkv"),
        [12, 12, 0],
        [12, 12, 0],
    ),
    (
        "pyramidkv, factory",
        |m, s| factory(m, s, "pyramidkv"),
        [0, 2, 0],
        [0, 2, 0],
    ),
    (
        "h2o and streaming_llm, factory",
        |m, s| factory(m, s, "h2o(prefill)") || factory(m, s, "streaming_llm"),
        [4, 0, 0],
        [4, 0, 0],
    ),
    (
        "adakv, authors",
        |_, s| s.starts_with("FFY0/AdaKV"),
        [24, 24, 0],
        [27, 21, 0],
    ),
    (
        "headkv, authors and factory",
        |m, _| m == "headkv",
        [0, 8, 0],
        [0, 8, 0],
    ),
    // The fifth masks tokens that may come back.
    (
        "h2o while decoding, authors",
        |m, _| m.starts_with("h2o(running"),
        [4, 0, 1],
        [4, 0, 1],
    ),
    (
        "knorm, kvpress",
        |m, s| kvpress(m, s, "knorm"),
        [4, 0, 0],
        [4, 0, 0],
    ),
    (
        "l2norm, factory",
        |m, s| factory(m, s, "l2norm"),
        [2, 0, 0],
        [2, 0, 0],
    ),
    (
        "tova, kvpress",
        |m, s| kvpress(m, s, "tova"),
        [4, 0, 0],
        [4, 0, 0],
    ),
    (
        "keydiff, kvpress, at once and block by block",
        |m, s| kvpress(m, s, "keydiff") || kvpress(m, s, "block(keydiff"),
        [8, 0, 0],
        [8, 0, 0],
    ),
    // What is not ranked is all alike, and kvpress takes any of it.
    (
        "lagkv, kvpress",
        |m, s| kvpress(m, s, "lagkv("),
        [6, 6, 0],
        [6, 6, 0],
    ),
    (
        "expected_attention, kvpress",
        |m, s| kvpress(m, s, "expected_attention("),
        [12, 0, 0],
        [12, 0, 0],
    ),
    (
        "adakv over expected attention, kvpress",
        |m, s| kvpress(m, s, "adakv(expected_attention("),
        [4, 0, 0],
        [4, 0, 0],
    ),
    (
        "critical, alone and with adakv, kvpress",
        |m, s| kvpress(m, s, "critical"),
        [8, 0, 4],
        [10, 0, 2],
    ),
    (
        "chunkkv, kvpress",
        |m, s| kvpress(m, s, "chunkkv("),
        [2, 0, 2],
        [3, 0, 1],
    ),
];

fn kvpress(method: &str, source: &str, name: &str) -> bool {
    source.starts_with("kvpress") && method.starts_with(name)
}

fn factory(method: &str, source: &str, name: &str) -> bool {
    source.starts_with("KVCache-Factory") && method == name
}

fn check(name: &str, expected: impl Fn(usize) -> [usize; 3], totals: [usize; 3]) {
    let report = run(name);
    assert!(report.is_ok(), "{report}");
    for (index, &(group, of, ..)) in GROUPS.iter().enumerate() {
        assert_eq!(
            counts(&report, of),
            expected(index),
            "{group}, {name}\n{report}"
        );
    }
    assert_eq!(counts(&report, |_, _| true), totals, "{report}");
    let skipped = totals[1] + totals[2];
    let summary = format!("\n{} passed, 0 failed, {skipped} skipped", totals[0]);
    assert!(report.to_string().ends_with(&summary), "{report}");
}

#[test]
fn heads_of_16_and_96_tokens() {
    check("synth_d16_t96", |group| GROUPS[group].2, [120, 52, 26]);
}

#[test]
fn heads_of_32_and_160_tokens() {
    check("synth_d32_t160", |group| GROUPS[group].3, [133, 49, 16]);
}

/// Where an independent computation that breaks ties in order agrees with the reference to the last bit, so do we.
#[test]
fn what_others_confirm_is_equal() {
    let mut confirmed = 0;
    for name in ["synth_d16_t96", "synth_d32_t160"] {
        let text = std::fs::read_to_string(testdata(name).0).expect("cases");
        let file: serde_json::Value = serde_json::from_str(&text).expect("cases");
        let cases = file["cases"].as_array().expect("cases");
        for (case, outcome) in cases.iter().zip(run(name).outcomes) {
            let bits = case["numpy_stable_mismatch_bits"].as_u64();
            match (bits, outcome.verdict) {
                (_, Verdict::Unsupported) | (None, _) => (),
                (Some(0), Verdict::Equal) => confirmed += 1,
                (Some(0), _) | (_, Verdict::Equal) => panic!("{bits:?} bits, but {outcome}"),
                (Some(bits), _) => {
                    let ours = format!("{bits} bits differ, in ");
                    assert!(
                        outcome.detail.starts_with(&ours),
                        "{bits} bits, but {outcome}"
                    );
                }
            }
        }
    }
    assert_eq!(confirmed, 160, "cases confirmed");
}

/// An observed method says that the newest token is kept on top.
#[test]
fn what_a_host_adds_is_said() {
    let report = run("synth_d16_t96");
    let mut observed = report.outcomes.iter();
    let observed = observed.find(|case| case.method == "observed_attention");
    let detail = &observed.expect("a case").detail;
    assert_eq!(detail, "a host keeps the newest token besides in 6 rows");
}
