//! A policy: sinks and a window. The text goes on, the pages stay as many as they are.
//!
//! `cargo run --release -p headroom-examples --bin 02-policy`
#![expect(clippy::print_stdout, reason = "an example prints")]

use anyhow::{Context, Result};
use headroom_examples::model;
use mistralrs_kv::{CacheConfig, EngineConfig, Prompt, Request, policy::StreamingLlmConfig};

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<()> {
    let policy = StreamingLlmConfig {
        sinks: 4,
        ..StreamingLlmConfig::default()
    };
    let mut config = EngineConfig::new(model()?);
    // The same by name: `CacheConfig::new("streaming-llm").set("sinks", 4)`.
    config.cache = Some(CacheConfig::of(&policy).budget("96".parse()?));
    let engine = config.start().await?;
    let runtime = engine.runtime().context("a policy was configured")?;

    let mut pieces = 0;
    let request = Request::greedy(Prompt::chat("Write a short story about a lighthouse."), 200);
    let answer = engine
        .stream(request, |_| {
            pieces += 1;
            if let (0, Some(now)) = (pieces % 40, runtime.open_sequences().pop()) {
                println!(
                    "{:4} tokens: {:4} pages, {:4} if everything stayed",
                    now.cached_tokens, now.pages_held, now.pages_full
                );
            }
            true
        })
        .await?;
    println!("\n{}\n", answer.text);
    println!("{}", runtime.report(answer.text)?.summary());
    Ok(())
}
