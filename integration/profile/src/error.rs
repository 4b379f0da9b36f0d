//! What can be wrong with what a user gives.
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why heads cannot be found.
#[derive(Debug, Error)]
pub enum ProfileError {
    /// A file cannot be read, or holds something else than it should.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A number that is not allowed.
    #[error("`{field}` is {value}; allowed: {allowed}")]
    OutOfRange {
        /// Its name.
        field: &'static str,
        /// What was given.
        value: String,
        /// What may be.
        allowed: String,
    },
    /// What comes of a computation.
    #[error(transparent)]
    Compute(#[from] candle_core::Error),
    /// A file that cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl ProfileError {
    /// Whether it is something that a user gave, and can mend.
    #[must_use]
    pub const fn is_users(&self) -> bool {
        matches!(self, Self::File { .. } | Self::OutOfRange { .. })
    }

    pub(crate) fn file(path: &Path, reason: impl ToString) -> Self {
        Self::File {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }

    /// Refuses the first of some numbers that is below its least.
    pub(crate) fn below(numbers: &[(&'static str, usize, usize)]) -> Result<(), Self> {
        match numbers.iter().find(|(_, value, least)| value < least) {
            Some((field, value, least)) => Err(Self::out_of_range(
                field,
                value,
                format!("at least {least}"),
            )),
            None => Ok(()),
        }
    }

    pub(crate) fn out_of_range(
        field: &'static str,
        value: impl ToString,
        allowed: impl Into<String>,
    ) -> Self {
        Self::OutOfRange {
            field,
            value: value.to_string(),
            allowed: allowed.into(),
        }
    }
}
