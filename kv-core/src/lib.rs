//! The ledger of head pages and the interface that a KV-cache policy implements.
//!
//! This crate knows no tensor, no device and no engine. It says which page holds which token of which head, how many
//! pages a sequence may still take, and what a policy has to answer.
//!
//! | letter | meaning |
//! |---|---|
//! | `L` | layers |
//! | `H` | KV heads of a layer |
//! | `G` | query heads per KV head |
//! | `D` | head dimension |
//! | `B` | tokens per page |
//! | `T` | tokens that a head holds |
//! | `S` | sequences |
//! | `n` | tokens of a prompt |
//!
//! A *page* is physical: `B` tokens of keys and of values of one KV head of one layer. A *slot* is a place in one
//! head's table. A *position* is an index in the text. Each is a type of its own ([`PageId`], [`Slot`], [`Position`]).
//! Budgets count tokens per KV head, as an average over the heads.
//!
//! * Authors of a policy implement [`Policy`] and [`PolicyConfig`]; [`KeepAll`] is the smallest one.
//! * A host keeps a [`Ledger`], finds policies in a [`Registry`], and carries out what a [`KeepPlan`] says.
//!
//! # Locks
//!
//! There is one lock here, inside [`PagePool`]; it protects the free list and the promises, is taken for a few
//! instructions, and no other lock is ever taken under it. A [`Ledger`] has none: its host locks it as a whole, and
//! that lock comes before the pool's.
#![forbid(unsafe_code)]

mod attention;
mod budget;
pub mod checker;
#[cfg(feature = "conformance")]
pub mod conformance;
mod demand;
mod describe;
mod error;
mod geometry;
mod ids;
mod keep;
mod keep_all;
mod layers;
mod ledger;
mod over;
mod policy;
mod pool;
mod profile;
mod prompt;
mod protect;
mod registry;
mod score;
mod select;
mod sight;
mod table;
mod view;

pub use attention::PromptAttention;
pub use budget::{Budget, ParseBudgetError, apportion};
pub use demand::{Demand, Room, granted};
pub use describe::{Choice, Description, Field};
pub use error::{CacheError, ConfigError, ProfileError};
pub use geometry::Geometry;
pub use ids::{PageId, Position, SeqId, Slot};
pub use keep::{Growth, KeepPlan, Kept, Pins, Verb};
pub use keep_all::{KeepAll, KeepAllConfig};
pub use layers::{LayerShares, Pyramid, PyramidRounding};
pub use ledger::{Address, Entered, Ledger, Move, Parked, Rebased, Sequence, SequenceReport};
pub use over::Over;
pub use policy::{
    Cadence, Chunks, Needs, Observation, Policy, PolicyConfig, Pool, Positions, Reduce, Reduction,
    ReductionOrder, Scorer,
};
pub use pool::{Full, PagePool, Pages, PoolUsage, Reservation};
pub use profile::ProfileFile;
pub use prompt::{PromptRows, Reads, Rotation, TokenClass};
pub use protect::Protected;
pub use registry::Registry;
pub use schemars;
pub use score::{Pooling, ScoreKind, WindowedScore};
pub use select::{counts_across, rank, top};
pub use sight::Sight;
pub use table::{HeadTable, Place, Target};
pub use view::{LayerView, Phase, ScoreSource};
