//! Which heads of a Llama-type model retrieve: profiles for the policies `duo-attention` and `head-kv`, found without an engine.
//!
//! * [`duo`] learns a gate for every KV head, `[L][H]`, as DuoAttention's authors do
//!   (<https://arxiv.org/abs/2410.10819>): [`duo::Training`].
//! * [`needles`] scores every query head, `[L][H * G]`, by where it looks while a model says what it has found in a text, as HeadKV's authors do
//!   (<https://arxiv.org/abs/2410.19258>). Whoever runs the model says where its heads look: [`needles::Seen`].
//! * [`Profile`] and [`HeadScores`] are what is written, in the authors' formats.
//! * [`planted`] is a model in which it is known what is to be found.
//!
//! Everything that is drawn comes of a seed, and the same seed gives the same bits on the same machine.
#![forbid(unsafe_code)]

pub mod duo;
mod error;
mod files;
mod model;
pub mod needles;
mod ops;
pub mod planted;
mod sight;

pub use error::ProfileError;
pub use files::{HeadScores, Kind, Profile};
pub use model::{Model, Shape};
use sight::{Sight, Window};
