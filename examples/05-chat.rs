//! A conversation whose system prompt is never evicted, turn by turn under one budget.
//!
//! `cargo run --release -p headroom-examples --bin 05-chat`
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::io::{self, Write};

use anyhow::{Context, Result};
use headroom_examples::model;
use mistralrs_kv::{CacheConfig, EngineConfig, Prompt, Request, RequestCache};

const SYSTEM: &str =
    "You are Marta, the keeper of a lighthouse. You are friendly and answer in two sentences.";
/// Tokens of the system prompt and of what the chat template writes around it, and a few more.
const PINNED: u32 = 32;
const QUESTIONS: [&str; 4] = [
    "Who are you, and where do you live?",
    "What do you do when a storm comes?",
    "And what do you do in summer, when the nights are short?",
    "Would you like to live in a city?",
];

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<()> {
    let mut config = EngineConfig::new(model()?);
    config.cache = Some(CacheConfig::new("h2o").budget("128".parse()?));
    let engine = config.start().await?;
    let runtime = engine.runtime().context("a policy was configured")?;

    let mut history = vec![("system".to_owned(), SYSTEM.to_owned())];
    for question in QUESTIONS {
        println!("> {question}");
        history.push(("user".into(), question.into()));
        // Every turn is sent with the whole history; one request may have terms of its own.
        let request = Request::greedy(Prompt::Chat(history.clone()), 80).with_cache(RequestCache {
            pin_prefix: Some(PINNED),
            ..RequestCache::default()
        });
        let answer = engine
            .stream(request, |piece| {
                print!("{piece}");
                io::stdout().flush().is_ok()
            })
            .await?;
        println!();
        let report = runtime.report(answer.text.clone())?;
        println!(
            "  [{} tokens read, {} of {} pages held]\n",
            report.prompt_tokens + report.generated_tokens,
            report.pages_held_peak,
            report.pages_full
        );
        history.push(("assistant".into(), answer.text));
    }
    Ok(())
}
