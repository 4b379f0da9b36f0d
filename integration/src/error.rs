//! What stops a start: always something that the user can mend.
use std::path::PathBuf;

use kv_core::{ConfigError, ParseBudgetError};

/// Why an engine with a compressed cache was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The policy or the budget does not fit.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The budget does not parse.
    #[error(transparent)]
    Budget(#[from] ParseBudgetError),
    /// A `--set` or a policy file does not describe a field.
    #[error("policy setting `{text}`: {reason}")]
    Setting {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A policy's program cannot be used.
    #[error(transparent)]
    Program(#[from] kv_loader::LoadError),
    /// A file cannot be read.
    #[error("{path}: {reason}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The model's cache cannot be compressed.
    #[error("this model cannot run under a KV-cache policy: {0}")]
    Model(String),
    /// A number given to the engine is out of range.
    #[error("`{field}` is {value}, must be {allowed}")]
    OutOfRange {
        /// The option.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// The engine itself refused.
    #[error("the engine could not load the model: {0}")]
    Engine(String),
}

/// What candle says, without the backtrace that it may add.
pub(crate) fn first_line(error: &candle_core::Error) -> String {
    error
        .to_string()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}
