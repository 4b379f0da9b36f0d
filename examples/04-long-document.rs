//! A long document and a question at its end, through the builders of the crate `mistralrs`; and a picture of what stayed.
//!
//! `cargo run --release -p headroom-examples --bin 04-long-document`
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::{fs, path::Path};

use anyhow::{Context, Result};
use headroom_examples::{in_checkout, model};
use mistralrs::{GgufModelBuilder, RequestBuilder, TextMessageRole};
use mistralrs_kv::{CacheConfig, KvPolicyExt};

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<()> {
    let path = model()?;
    let folder = path
        .parent()
        .unwrap_or(Path::new("."))
        .display()
        .to_string();
    let file = path.file_name().context("a GGUF file")?.to_string_lossy();
    // Keeps what the end of the prompt, here the question, looks at; a layer's heads share its budget by their scores.
    let model = GgufModelBuilder::new(folder, vec![file])
        .with_kv_policy(CacheConfig::new("ada-kv").budget("25%".parse()?))
        .build()
        .await?;

    let document = fs::read_to_string(in_checkout("docs/long-prompt.txt"))?;
    let request = RequestBuilder::new()
        .set_deterministic_sampler()
        .set_sampler_max_len(120)
        .add_message(TextMessageRole::User, document);
    let mut answer = model.send_chat_request(request).await?;
    let choice = answer.choices.pop().context("the model gave no answer")?;
    let text = choice.message.content.unwrap_or_default();
    println!("{text}\n");

    let report = model.runtime().report(text)?;
    println!("{}", report.summary());
    println!("tokens kept in each head:\n{}", report.heads());
    let picture = std::env::temp_dir().join("headroom-kept.svg");
    report.save_picture(&picture)?;
    println!("\na picture of that: {}", picture.display());
    Ok(())
}
