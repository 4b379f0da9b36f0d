//! An OpenAI-compatible server over mistral.rs with compressed KV caches.
//!
//! Requests are read by `mistralrs-server-core`, the crate behind mistral.rs's own server; what differs is the cache: each
//! sequence is admitted by what its policy keeps, a request may ask for a budget of its own or pin its system prompt
//! (`kv_cache` in its body, see [`KvCacheField`]), a full pool makes requests wait, and `/metrics` tells Prometheus what the
//! caches hold. Errors have the shape that OpenAI's clients read.
//!
//! ```no_run
//! # #[tokio::main] async fn main() -> anyhow::Result<()> {
//! use std::{future::pending, time::Duration};
//! use mistralrs_kv::{CacheConfig, EngineConfig};
//! use mistralrs_kv_server::Server;
//!
//! let mut config = EngineConfig::new("SmolLM2-135M-Instruct-Q8_0.gguf");
//! config.cache = Some(CacheConfig::new("h2o").budget("25%".parse()?));
//! let server = Server::new(config.start().await?, "smollm2");
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:1234").await?;
//! server.run(listener, pending(), Duration::from_secs(30)).await?;
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod answer;
mod error;
mod metrics;
mod request;
mod routes;
mod run;

pub use request::{Beginning, KvCacheField};
pub use routes::Server;
pub use run::Stopped;
