//! Everything stays: the cache in pages, before any policy takes something away.
//!
//! `cargo run --release -p headroom-examples --bin 01-keep-all`
#![expect(clippy::print_stdout, reason = "an example prints")]

use anyhow::{Context, Result};
use headroom_examples::model;
use mistralrs_kv::{CacheConfig, EngineConfig, Prompt, Request};

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<()> {
    let mut config = EngineConfig::new(model()?);
    config.cache = Some(CacheConfig::new("keep-all"));
    let engine = config.start().await?;
    let runtime = engine.runtime().context("a policy was configured")?;
    let geometry = runtime.geometry().context("the engine has started")?;
    println!(
        "{} layers of {} KV heads, each with pages of {} tokens ({} bytes)\n",
        geometry.layers,
        geometry.kv_heads,
        geometry.block,
        geometry.page_bytes()
    );

    // Every 40 tokens, what the sequence holds now.
    let mut pieces = 0;
    let request = Request::greedy(Prompt::chat("Write a short story about a lighthouse."), 200);
    let answer = engine
        .stream(request, |_| {
            pieces += 1;
            if let (0, Some(now)) = (pieces % 40, runtime.open_sequences().pop()) {
                println!("{:4} tokens: {:4} pages", now.cached_tokens, now.pages_held);
            }
            true
        })
        .await?;
    println!("\n{}\n", answer.text);
    println!("{}", runtime.report(answer.text)?.summary());
    Ok(())
}
