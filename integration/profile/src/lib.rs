//! Which heads of a Llama-type model retrieve: profiles for `duo-attention` and `head-kv`, without an engine.
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
pub use sight::{Sight, Window};
