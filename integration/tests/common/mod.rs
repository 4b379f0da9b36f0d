//! What the engine tests share: where the model is, a recorder of logits, and a tiny random model.
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod desk;
pub(crate) mod gpu;
pub(crate) mod host;
pub(crate) mod tiny;

use std::path::{Path, PathBuf};

use kv_core::Budget;
use mistralrs_kv::{Answer, CacheConfig, Engine, EngineConfig, Prompt, Report, Request, Trace};

/// Which of the prepared models.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Weights {
    Q8,
    F32,
}

/// The prepared SmolLM2.
pub(crate) fn smollm(weights: Weights) -> PathBuf {
    let file = match weights {
        Weights::Q8 => "SmolLM2-135M-Instruct-Q8_0.gguf",
        Weights::F32 => "SmolLM2-135M-Instruct-F32.gguf",
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../.headroom/models")
        .join(file);
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask setup` first",
        path.display()
    );
    path
}

/// One of the tiny models with random weights that stand in a folder, as `cargo xtask tiny-models` writes them.
pub(crate) fn tiny_folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../.headroom/models")
        .join(name);
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask tiny-models` first",
        path.display()
    );
    path
}

/// A policy with a size that leaves out some of a prompt of 200 tokens.
pub(crate) fn compressed(policy: &str) -> CacheConfig {
    let config = CacheConfig::new(policy);
    match policy {
        // Its size is its own business.
        "duo-attention" => config.set("sinks", 4).set("recent", 28),
        "snap-stream" => config.budget(Budget::Tokens(64)).set("recent", 16),
        _ => config.budget(Budget::Tokens(64)),
    }
}

/// Answers with 30 tokens, and holds that less than everything was held and that all of it came back.
pub(crate) async fn holds_less(engine: &Engine, prompt: Prompt, what: &str) -> Report {
    let answer = engine.generate(Request::greedy(prompt, 30)).await;
    let answer = answer.unwrap_or_else(|e| panic!("{what} answers: {e:#}"));
    let report = engine.report(answer.text).expect("a report");
    let report = report.expect("a policy is configured");
    assert_eq!(report.generated_tokens, 30, "{what}");
    assert!(
        report.pages_held_peak < report.pages_full,
        "{what} holds {} of {} pages",
        report.pages_held_peak,
        report.pages_full
    );
    let stats = engine.runtime().expect("a policy").stats();
    let pool = stats.expect("open").pool;
    assert_eq!((pool.held, pool.promised), (0, 0), "{what}");
    report
}

/// A fresh seed that the failure message prints; `HEADROOM_SEED` repeats a run.
pub(crate) fn seed() -> u64 {
    std::env::var("HEADROOM_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(rand::random)
}

/// Three different prompts.
pub(crate) const PROMPTS: [&str; 3] = [
    "Why is the sky blue?",
    "Name the capital of France and tell me one thing that the city is known for.",
    "Explain what a cache is to somebody who has never used a computer.",
];

/// Goes on after the end of the text, so that every answer has as many tokens as were asked for.
pub(crate) fn engine(model: PathBuf, cache: Option<CacheConfig>) -> EngineConfig {
    EngineConfig {
        cache,
        ignore_eos: true,
        ..EngineConfig::new(model)
    }
}

pub(crate) async fn start(config: EngineConfig) -> Engine {
    config
        .start()
        .await
        .unwrap_or_else(|e| panic!("the engine starts: {e}"))
}

fn argmax(row: &[f32]) -> u32 {
    let best = (0..row.len())
        .max_by(|&a, &b| row[a].total_cmp(&row[b]).then(b.cmp(&a)))
        .expect("some logits");
    u32::try_from(best).expect("a token")
}

/// Generates `tokens` tokens and records every step's logits. With `forced`, the model is made to say those tokens.
pub(crate) async fn record(
    engine: &Engine,
    prompt: Prompt,
    tokens: usize,
    forced: Option<Vec<u32>>,
) -> (Answer, Trace) {
    let trace = engine.trace(prompt, tokens, forced).await;
    let trace = trace.unwrap_or_else(|e| panic!("the engine answers: {e:#}"));
    (trace.answer.clone(), trace)
}

/// The two largest logits and the gap between them.
pub(crate) fn top_two(row: &[f32]) -> (u32, f32) {
    let best = argmax(row);
    let second = row
        .iter()
        .enumerate()
        .filter(|&(i, _)| i != best as usize)
        .map(|(_, &x)| x)
        .fold(f32::NEG_INFINITY, f32::max);
    (best, row[best as usize] - second)
}

/// The largest difference between two rows of logits.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "rows of equal length");
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}
