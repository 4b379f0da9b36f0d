//! Every policy on the real model, at a quarter of a prompt of 500 tokens: what each head keeps is the method's law, and
//! no page is held beyond it. A build with some of the policies has some of the tests.
#![allow(
    dead_code,
    unused_imports,
    reason = "a build with some of the policies has some of the tests"
)]
mod common;

use std::{fs, path::Path};

use common::{PROMPTS, Weights, engine, smollm, start};
use kv_core::Budget;
use mistralrs_kv::{CacheConfig, DEFAULT_BLOCK_SIZE, Prompt, Report, Request, compare};

const LAYERS: usize = 30;
const HEADS: usize = 3;
/// Tokens of the prompt: so many characters of a text, and the chat template's.
const PROMPT: usize = 500;
const CHARACTERS: usize = 2090;
/// A quarter.
const BUDGET: usize = 125;
const ANSWER: usize = 12;
/// Tokens of the answer that are read back: all but the last.
const APPENDED: usize = ANSWER - 1;
const BLOCK: usize = DEFAULT_BLOCK_SIZE;

fn prompt() -> Prompt {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/long-prompt.txt");
    let text = fs::read_to_string(path).expect("the prompt");
    Prompt::chat(&text[..CHARACTERS])
}

fn quarter(policy: &str) -> CacheConfig {
    CacheConfig::new(policy).budget(Budget::Ratio(0.25))
}

/// Reads the prompt and answers under a policy, and holds what is the same for all: the pages held are those that the
/// kept tokens need, and all go back.
async fn run(cache: CacheConfig) -> Report {
    let name = cache.policy_name().to_owned();
    let report = answered(cache).await;
    let needed = |&tokens: &usize| tokens.div_ceil(BLOCK);
    let pages: usize = report.kept.iter().flatten().map(needed).sum();
    assert_eq!(
        report.pages_held_peak, pages,
        "{name}: what the kept tokens do not need was never held"
    );
    report
}

/// As [`run`], for a policy that gives pages back on its way: what was held at most is within the pages of the budget, one begun in
/// every head.
async fn run_within(cache: CacheConfig) -> Report {
    let report = answered(cache).await;
    let most = LAYERS * HEADS * ((BUDGET + APPENDED) / BLOCK + 2);
    assert!(
        report.pages_held_peak <= most,
        "{} of {most}",
        report.pages_held_peak
    );
    report
}

/// Answers, and gives all pages back.
async fn answered(cache: CacheConfig) -> Report {
    let name = cache.policy_name().to_owned();
    let engine = start(engine(smollm(Weights::Q8), Some(cache))).await;
    let answer = engine
        .generate(Request::greedy(prompt(), ANSWER))
        .await
        .unwrap_or_else(|e| panic!("{name} answers: {e:#}"));
    assert!(!answer.text.trim().is_empty(), "{name} says something");
    let report = engine.report(answer.text).expect("a report");
    let report = report.expect("a policy is configured");
    assert_eq!(report.prompt_tokens, PROMPT, "{name}");
    assert_eq!(report.kept.len(), LAYERS);
    let full = LAYERS * HEADS * (PROMPT + APPENDED).div_ceil(BLOCK);
    assert_eq!(report.pages_full, full);
    let pool = engine
        .runtime()
        .expect("a policy")
        .stats()
        .expect("open")
        .pool;
    assert_eq!((pool.held, pool.promised), (0, 0), "{name} gives all back");
    report
}

fn layer_sums(report: &Report) -> Vec<usize> {
    report.kept.iter().map(|heads| heads.iter().sum()).collect()
}

fn all(report: &Report) -> Vec<usize> {
    report.kept.concat()
}

#[cfg(feature = "streaming-llm")]
#[tokio::test(flavor = "multi_thread")]
async fn streaming_llm_never_holds_more_than_the_budget() {
    let report = run(quarter("streaming-llm")).await;
    assert_eq!(all(&report), [BUDGET; LAYERS * HEADS]);
}

#[cfg(feature = "h2o")]
#[tokio::test(flavor = "multi_thread")]
async fn h2o_never_holds_more_than_the_budget() {
    let report = run(quarter("h2o")).await;
    assert_eq!(all(&report), [BUDGET; LAYERS * HEADS]);
}

#[cfg(feature = "snap-kv")]
#[tokio::test(flavor = "multi_thread")]
async fn snap_kv_compresses_the_prompt_and_appends_the_answer() {
    let report = run(quarter("snap-kv")).await;
    assert_eq!(all(&report), [BUDGET + APPENDED; LAYERS * HEADS]);
}

/// Methods that choose equally many tokens of the prompt in every head, each by a score of its own, and append the answer.
macro_rules! appending {
    ($($feature:literal: $name:ident;)+) => {$(
        #[cfg(feature = $feature)]
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let report = run(quarter($feature)).await;
            assert_eq!(all(&report), [BUDGET + APPENDED; LAYERS * HEADS]);
        }
    )+};
}

appending! {
    "critical-kv": critical_kv_reads_the_output_projection_from_the_models_file;
    "expected-attention": expected_attention_knows_how_the_model_turns_its_queries;
    "k-norm": k_norm_keeps_short_keys;
    "key-diff": key_diff_keeps_keys_that_are_not_alike;
    "lag-kv": lag_kv_keeps_what_the_next_partition_does_not_say;
}

#[cfg(feature = "tova")]
#[tokio::test(flavor = "multi_thread")]
async fn tova_never_holds_more_than_the_budget() {
    let report = run(quarter("tova")).await;
    assert_eq!(all(&report), [BUDGET; LAYERS * HEADS]);
}

/// Whole chunks of 20, and no more than fit.
#[cfg(feature = "chunk-kv")]
#[tokio::test(flavor = "multi_thread")]
async fn chunk_kv_keeps_whole_chunks() {
    let report = run(quarter("chunk-kv")).await;
    assert_eq!(all(&report), [BUDGET / 20 * 20 + APPENDED; LAYERS * HEADS]);
}

#[cfg(feature = "snap-stream")]
#[tokio::test(flavor = "multi_thread")]
async fn snap_stream_holds_a_choice_of_the_prompt_and_a_ring() {
    let cache = quarter("snap-stream").set("recent", 8);
    let report = run(cache.clone()).await;
    // 11 tokens were appended, and the ring has room for 8.
    assert_eq!(all(&report), [BUDGET; LAYERS * HEADS]);
    let report = run(cache.set("over", "ada-kv")).await;
    assert_eq!(layer_sums(&report), [HEADS * BUDGET; LAYERS]);
}

/// The layers share the budget as they report, heads of a layer alike, and all of it is spent.
#[cfg(feature = "cake")]
#[tokio::test(flavor = "multi_thread")]
async fn cake_cuts_layers_as_later_ones_report() {
    let report = run_within(quarter("cake")).await;
    for heads in &report.kept {
        assert!(heads.iter().all(|len| *len == heads[0]), "{heads:?}");
    }
    let lens: Vec<usize> = report.kept.iter().map(|heads| heads[0]).collect();
    assert!(lens.iter().any(|len| *len != lens[0]), "{lens:?}");
    let spent: usize = lens.iter().sum();
    let budget = LAYERS * (BUDGET + APPENDED);
    // A rise that comes too late is lost.
    assert!(
        spent <= budget && 100 * spent > 99 * budget,
        "{spent} of {budget}"
    );
}

#[cfg(feature = "la-cache")]
#[tokio::test(flavor = "multi_thread")]
async fn la_cache_compacts_and_never_holds_more_than_the_budget() {
    let report = run_within(quarter("la-cache")).await;
    let lens = all(&report);
    assert!(
        lens.iter().all(|&len| len == lens[0] && len <= BUDGET),
        "{lens:?}"
    );
}

/// Each head is as long as its rule makes it, and all are within the budget together.
#[cfg(feature = "fast-gen")]
#[tokio::test(flavor = "multi_thread")]
async fn fast_gen_gives_every_head_its_rule() {
    let report = run(quarter("fast-gen")).await;
    let lens = all(&report);
    assert!(lens.iter().any(|&len| len != lens[0]), "{lens:?}");
    for sum in layer_sums(&report) {
        assert!(sum <= HEADS * BUDGET, "{sum}");
    }
}

#[cfg(all(
    feature = "ada-kv",
    feature = "key-diff",
    feature = "expected-attention"
))]
#[tokio::test(flavor = "multi_thread")]
async fn ada_kv_splits_by_the_scores_of_any_method() {
    for over in ["key-diff", "expected-attention"] {
        let report = run(quarter("ada-kv").set("over", over)).await;
        assert_eq!(layer_sums(&report), [HEADS * (BUDGET + APPENDED); LAYERS]);
        let lens = all(&report);
        assert!(lens.iter().any(|&len| len != lens[0]), "{lens:?}");
    }
}

#[cfg(feature = "pyramid-kv")]
#[tokio::test(flavor = "multi_thread")]
async fn pyramid_kv_gives_low_layers_more() {
    let report = run(quarter("pyramid-kv")).await;
    let sums = layer_sums(&report);
    assert_eq!(
        sums.iter().sum::<usize>(),
        LAYERS * HEADS * (BUDGET + APPENDED)
    );
    assert!(sums.is_sorted_by(|a, b| a >= b), "{sums:?}");
    let prompt = |layer: usize| sums[layer] - HEADS * APPENDED;
    assert!(prompt(0) > 5 * prompt(LAYERS - 1), "{sums:?}");
    assert!(
        report
            .kept
            .iter()
            .all(|heads| heads.iter().all(|len| *len == heads[0]))
    );
}

#[cfg(feature = "ada-kv")]
#[tokio::test(flavor = "multi_thread")]
async fn ada_kv_splits_a_layer_and_keeps_its_sum() {
    let report = run(quarter("ada-kv")).await;
    assert_eq!(layer_sums(&report), [HEADS * (BUDGET + APPENDED); LAYERS]);
    let uneven = report
        .kept
        .iter()
        .filter(|heads| heads.iter().any(|len| *len != heads[0]));
    assert!(uneven.count() > LAYERS / 2, "{:?}", report.kept);
}

/// Ada-KV over H2O's score with pinned sinks, from configuration alone; pins come on top.
#[cfg(feature = "ada-kv")]
#[tokio::test(flavor = "multi_thread")]
async fn ada_kv_over_accumulated_attention_with_pinned_sinks() {
    // Too many for all of them to be kept for their scores.
    let cache = quarter("ada-kv")
        .set("score", "accumulated")
        .pin_prefix(200);
    let report = run(cache).await;
    for sum in layer_sums(&report) {
        let more = sum - HEADS * (BUDGET + APPENDED);
        assert!((1..=HEADS * 200).contains(&more), "{sum}");
        assert!(
            sum >= HEADS * (200 + 32 + APPENDED),
            "all pins are held: {sum}"
        );
    }
    let cache = quarter("ada-kv")
        .set("score", "accumulated")
        .set("decode", "evict");
    let report = run(cache).await;
    assert_eq!(layer_sums(&report), [HEADS * BUDGET; LAYERS]);
}

#[cfg(feature = "head-kv")]
#[tokio::test(flavor = "multi_thread")]
async fn head_kv_spends_the_budget_by_its_profile() {
    let report = run(quarter("head-kv")).await;
    assert_eq!(
        all(&report),
        [BUDGET + APPENDED; LAYERS * HEADS],
        "the neutral profile"
    );
    let notice = report.notice.expect("says that nothing was learned");
    assert!(notice.contains("not learned"), "{notice}");

    // A file in which the first query head of every layer is all that counts.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("scores.json");
    let scores = (0..LAYERS).flat_map(|layer| {
        (0..9).map(move |head| format!("\"{layer}-{head}\": [{}]", u8::from(head == 0)))
    });
    let text = format!("{{{}}}", scores.collect::<Vec<_>>().join(", "));
    fs::write(&file, text).expect("writes");
    let path = file.to_str().expect("a path").to_owned();
    let report = run(quarter("head-kv")
        .set("profile", path.clone())
        .set("beta", 1.2))
    .await;
    assert_eq!(report.notice, None);
    assert_eq!(
        all(&report).iter().sum::<usize>(),
        LAYERS * HEADS * (BUDGET + APPENDED)
    );
    for heads in &report.kept {
        assert!(heads[0] > 4 * heads[1] && heads[1] == heads[2], "{heads:?}");
    }

    // The same over PyramidKV's layer shares.
    let cache = quarter("head-kv")
        .set("profile", path)
        .set("layers", "pyramid");
    let report = run(cache).await;
    let sums = layer_sums(&report);
    assert!(
        sums.is_sorted_by(|a, b| a >= b) && sums[0] > 5 * sums[LAYERS - 1],
        "{sums:?}"
    );
}

#[cfg(feature = "duo-attention")]
#[tokio::test(flavor = "multi_thread")]
async fn duo_attention_keeps_some_heads_whole_and_the_others_streaming() {
    let cache = CacheConfig::new("duo-attention")
        .set("sparsity", 0.8)
        .set("sinks", 4)
        .set("recent", 21);
    let report = run(cache).await;
    let held = all(&report);
    let whole = held.iter().filter(|len| **len == PROMPT + APPENDED).count();
    let streaming = held.iter().filter(|len| **len == 25).count();
    assert_eq!((whole, streaming), (18, 72), "{held:?}");
    let share = held.iter().sum::<usize>();
    assert!(share <= LAYERS * HEADS * BUDGET, "a quarter: {share}");
    assert!(report.notice.expect("a notice").contains("not learned"));
}

/// The measure itself: nothing dropped is no divergence at all, and a tiny cache is a large one.
#[cfg(feature = "streaming-llm")]
#[tokio::test(flavor = "multi_thread")]
async fn compare_measures_what_was_dropped() {
    let config = engine(smollm(Weights::Q8), None);
    let prompt = Prompt::chat(PROMPTS[1]);
    let same = compare(&config, CacheConfig::new("keep-all"), &prompt, 8).await;
    let same = same.expect("compares");
    assert_eq!((same.divergence, same.agreements), (vec![0.0; 8], 8));
    let tiny = CacheConfig::new("streaming-llm").budget(Budget::Tokens(8));
    let tiny = compare(&config, tiny.prompt_tail(4), &prompt, 8)
        .await
        .expect("compares");
    assert!(
        tiny.divergence[0] > 0.01 && tiny.mean() > 0.1,
        "{:?}",
        tiny.divergence
    );
    assert!(tiny.max() < 30.0, "{:?}", tiny.divergence);
}
