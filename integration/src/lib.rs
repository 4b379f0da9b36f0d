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
//! let mut config = EngineConfig::new("SmolLM2-135M-Instruct-Q8_0.gguf");
//! config.cache = Some(CacheConfig::new("streaming-llm").budget("256".parse()?));
//! let engine = config.start().await?;
//! let answer = engine.generate(Request::greedy(Prompt::chat("Why is the sky blue?"), 64)).await?;
//! println!("{}", answer.text);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "builders")]
mod builders;
mod compare;
mod config;
mod engine;
mod error;
mod facts;
mod generate;
mod model;
mod picture;
mod place;
mod pool;
mod registry;
mod report;
mod runtime;
mod stream;
mod study;
mod warm_up;

pub use attention_kernels::KvDtype;
#[cfg(feature = "builders")]
pub use builders::{Builder, KvModel, KvPolicyExt, WithKvPolicy};
pub use compare::{Comparison, Trace, compare};
pub use config::CacheConfig;
pub use engine::{Engine, EngineConfig};
pub use error::StartError;
pub use generate::{Answer, CONTEXT_FULL, Finish, Prompt, Request};
pub use kv_core;
pub use picture::heads_picture;
pub use place::device;
pub use pool::{DEFAULT_BLOCK_SIZE, PoolSize};
pub use registry::{policies, policy};
pub use report::Report;
pub use runtime::{
    KernelCalls, RequestCache, RequestTerms, Reuse, Runtime, SeenRows, Stats, TensorDevice,
    TimeSpent,
};
pub use study::{GoneOn, Study};

const _: () = assert!(
    mistralrs_core::KV_HOOK_ABI == kv_hook::ABI,
    "the engine was patched for another kv-hook: run `cargo xtask setup` again, or for an app `cargo xtask vendor --into DIR`"
);
