//! Several policies on one prompt: how far each moves the model's next-token distribution, and what it holds. A minute.
//!
//! `cargo run --release -p headroom-examples --bin 03-compare`
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::fs;

use anyhow::Result;
use headroom_examples::{in_checkout, model};
use mistralrs_kv::{CacheConfig, EngineConfig, Prompt, compare, policies};

/// Next tokens to compare.
const TOKENS: usize = 16;

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<()> {
    let engine = EngineConfig::new(model()?);
    let prompt = Prompt::chat(fs::read_to_string(in_checkout("docs/demo-prompt.txt"))?);
    println!(
        "A quarter of the prompt; {TOKENS} tokens after it. KL(full || policy) in nats: 0 is no difference.\n"
    );
    println!(
        "{:14} {:>10} {:>10} {:>10}   pages",
        "policy", "first", "mean", "same top"
    );
    // The others want a profile of the model's heads, see docs/src/policies.
    let shown = ["streaming-llm", "h2o", "snap-kv", "pyramid-kv", "ada-kv"];
    let all = policies();
    for name in all.names().filter(|name| shown.contains(name)) {
        let cache = CacheConfig::new(name).budget("25%".parse()?);
        let found = compare(&engine, cache, &prompt, TOKENS).await?;
        println!(
            "{name:14} {:10.4} {:10.4} {:7}/{TOKENS}   {} of {}",
            found.divergence.first().copied().unwrap_or(0.0),
            found.mean(),
            found.agreements,
            found.report.pages_held_peak,
            found.report.pages_full,
        );
    }
    println!("\nOne prompt is an example, not a ranking: docs/src/use/choose.md.");
    Ok(())
}
