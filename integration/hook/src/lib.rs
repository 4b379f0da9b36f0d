//! What the patched engine and a KV-cache runtime say to each other.
//!
//! The patched `mistralrs-core` depends on this crate and on nothing else of ours, so that policies, kernels and the
//! runtime change without the engine being compiled again. The engine knows a runtime only as a [`Handle`]: it asks
//! [`make`] for one whenever it makes a cache configuration, lets it open the pool, asks it for room before a sequence
//! is scheduled, hands it every layer's queries, keys and values, and tells it when a sequence has ended.
//!
//! Letters: `S` sequences of a batch, `H` KV heads, `G` query heads per KV head, `D` head dimension, `T` new tokens.
#![forbid(unsafe_code)]

mod causal;
mod factory;
mod rotation;
mod runtime;
mod seed;

pub use causal::{is_causal, note_causal};
pub use factory::{Factory, install, installed, make, scoped, uninstall};
pub use rotation::{RotationTables, note_rotation, take_rotation, want_rotation};
pub use runtime::{Batch, Full, Handle, KvRuntime, LayerCall, LayerSpec, PoolSpec};
pub use seed::{seed, set_seed};

/// Version of this interface. The patched engine repeats it, and `mistralrs-kv` compares the two at compile time.
pub const ABI: u32 = 8;
