//! Programs that use Headroom, in reading order. Each runs with one command, after `cargo xtask setup`:
//!
//! ```sh
//! cargo run --release -p headroom-examples --bin 01-keep-all
//! ```
//!
//! An argument names another model: a GGUF file or, except for 04, a folder with `config.json`, `tokenizer.json` and
//! safetensors.
use std::path::PathBuf;

use anyhow::{Result, ensure};

/// The model of the first argument, of HEADROOM_MODEL, or else the one that set-up has made.
///
/// # Errors
///
/// If there is none.
pub fn model() -> Result<PathBuf> {
    let named = std::env::args_os().nth(1);
    let named = named.or_else(|| std::env::var_os("HEADROOM_MODEL"));
    let model = named.map_or_else(
        || in_checkout(".headroom/models/SmolLM2-135M-Instruct-Q8_0.gguf"),
        PathBuf::from,
    );
    ensure!(
        model.exists(),
        "{} is missing; run `cargo xtask setup`, or name a model as the first argument",
        model.display()
    );
    Ok(model)
}

/// A file of this checkout.
#[must_use]
pub fn in_checkout(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(path)
}
