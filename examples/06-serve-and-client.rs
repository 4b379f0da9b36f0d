//! A server on a loopback port, two clients at once, and what Prometheus would read.
//!
//! `cargo run --release -p headroom-examples --bin 06-serve-and-client`
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::time::Duration;

use anyhow::{Context, Result};
use headroom_examples::model;
use mistralrs_kv::{CacheConfig, EngineConfig};
use mistralrs_kv_server::Server;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<()> {
    let mut config = EngineConfig::new(model()?);
    config.cache = Some(CacheConfig::new("h2o").budget("128".parse()?));
    let server = Server::new(config.start().await?, "lighthouse");
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("listening on {url}\n");
    let (stop, told_to_stop) = oneshot::channel::<()>();
    let stopping = async {
        let _ = told_to_stop.await;
    };
    let serving = tokio::spawn(server.run(listener, stopping, Duration::from_secs(10)));

    // The second asks for a cache of its own kind; with OpenAI's Python client that goes into `extra_body`.
    let system = "You are the keeper of a lighthouse. You answer in one sentence.";
    let plain = json!({});
    let own = json!({ "budget": "64", "pin": "system" });
    let (first, second) = tokio::join!(
        ask(&url, system, "What do you see at night?", &plain),
        ask(&url, system, "What do you fear most?", &own),
    );
    println!("{}\n\n{}\n", first?, second?);

    let metrics = reqwest::get(format!("{url}/metrics")).await?.text().await?;
    let is_shown = |line: &&str| {
        [
            "blocks_",
            "evicted_total",
            "freed_total",
            "requests_total",
            "sequences_",
        ]
        .iter()
        .any(|part| line.contains(part))
            && !line.starts_with('#')
    };
    for line in metrics.lines().filter(is_shown) {
        println!("{line}");
    }
    // Dropping the sender would do, too.
    let _ = stop.send(());
    let stopped = serving.await??;
    println!(
        "\nstopped: {} of {} pages held",
        stopped.pages_held, stopped.pages
    );
    Ok(())
}

/// One question over HTTP.
async fn ask(url: &str, system: &str, question: &str, kv_cache: &Value) -> Result<String> {
    let body = json!({
        "model": "lighthouse",
        "messages": [{ "role": "system", "content": system }, { "role": "user", "content": question }],
        "max_tokens": 40,
        "temperature": 0,
        "kv_cache": kv_cache,
    });
    let answer = reqwest::Client::new()
        .post(format!("{url}/v1/chat/completions"))
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await?;
    let answer: Value = serde_json::from_str(&answer.text().await?)?;
    let text = answer.pointer("/choices/0/message/content");
    let text = text.and_then(Value::as_str);
    Ok(format!(
        "> {question}\n{}",
        text.with_context(|| answer.to_string())?
    ))
}
