//! Text from a model whose cache holds 128 tokens per head.
//!
//! `cargo run --release -p headroom-examples --bin 01-generate -- .headroom/models/SmolLM2-135M-Instruct-Q8_0.gguf`
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::time::Duration;

use anyhow::{Context, Result};
use mistralrs_kv::{CacheConfig, EngineConfig, Prompt, Request};

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<()> {
    let model = std::env::args()
        .nth(1)
        .context("usage: 01-generate MODEL.gguf")?;
    let mut config = EngineConfig::new(model);
    config.cache = Some(
        CacheConfig::new("streaming-llm")
            .budget("128".parse()?)
            .set("sinks", 4),
    );
    let engine = config.start().await?;

    let request = Request::greedy(Prompt::chat("Write a short story about a lighthouse."), 200);
    let answer = engine.generate(request).await?;
    println!("{}", answer.text);

    // The engine gives the pages back after it has sent the last token.
    let runtime = engine.runtime().context("a policy was configured")?;
    anyhow::ensure!(
        runtime.wait_ended(Duration::from_secs(10)),
        "the request ends"
    );
    let ended = runtime
        .take_ended()
        .pop()
        .context("the request has a report")?;
    println!(
        "held at most {} pages; a full cache would hold {}",
        ended.pages_held_peak, ended.pages_full
    );
    Ok(())
}
