//! Turns the published `mistralrs-core` 0.8.1 into one that calls [`kv-hook`](../kv_hook/index.html).
//!
//! The repository holds none of the engine's code. [`edits.toml`](https://toml.io) says, edit by edit, which file is
//! meant, a short *anchor* that must stand in it exactly once, what to put before, after or in place of it, and why.
//! Every file that an edit touches is checked against a SHA-256 first, so that a different release or a changed
//! download is refused instead of half patched.
//!
//! ```no_run
//! # fn main() -> Result<(), kv_patch::PatchError> {
//! let patch = kv_patch::Patch::load()?;
//! let report = patch.apply(
//!     "/registry/mistralrs-core-0.8.1".as_ref(),
//!     "vendor/mistralrs-core".as_ref(),
//!     r#"{ path = "../../integration/hook" }"#,
//! )?;
//! println!("{report}");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod apply;
mod error;
mod plan;

pub use apply::Report;
pub use error::PatchError;
pub use plan::{Edit, Patch, Place, Write};

/// The only engine release this patch fits.
pub const ENGINE_VERSION: &str = "0.8.1";
/// The engine's package name.
pub const ENGINE_PACKAGE: &str = "mistralrs-core";
