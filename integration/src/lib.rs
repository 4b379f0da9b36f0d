//! Compressed KV caches for [mistral.rs](https://github.com/EricLBuehler/mistral.rs).
//!
//! The engine's scheduler, cache manager and paged layers, patched to call [`kv_hook`], meet a [`Runtime`] here. It
//! keeps every (sequence, layer, KV head) in pages of its own, asks a policy what stays, and gives real pages back.
//!
//! ```no_run
//! # #[tokio::main(flavor = "multi_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! use mistralrs_kv::{CacheConfig, EngineConfig, Prompt, Request};
//!
//! let mut config = EngineConfig::gguf("SmolLM2-135M-Instruct-Q8_0.gguf");
//! config.cache = Some(CacheConfig::new("streaming-llm").budget("256".parse()?));
//! let engine = config.start().await?;
//! let answer = engine.generate(Request::greedy(Prompt::chat("Why is the sky blue?"), 64)).await?;
//! println!("{}", answer.text);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod compare;
mod config;
mod engine;
mod error;
mod generate;
mod place;
mod registry;
mod report;
mod runtime;

pub use compare::{Comparison, Trace, compare};
pub use config::CacheConfig;
pub use engine::{Engine, EngineConfig, PoolSize};
pub use error::StartError;
pub use generate::{Answer, Finish, Prompt, Request};
pub use kv_core;
pub use place::device;
pub use registry::policies;
pub use report::Report;
pub use runtime::{KernelCalls, Runtime, Stats, TensorDevice};

const _: () = assert!(
    mistralrs_core::KV_HOOK_ABI == kv_hook::ABI,
    "the engine was patched for another kv-hook: run `cargo xtask setup` again"
);
