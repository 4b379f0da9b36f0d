//! What can go wrong: files that do not hold what they should.
use std::path::{Path, PathBuf};

use attention_kernels::KernelError;
use kv_core::{CacheError, ConfigError};

/// Why cases could not be run at all. A case that cannot be run is an [`Outcome`](crate::Outcome).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConformError {
    /// A file cannot be read.
    #[error("{}: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file of cases does not describe cases.
    #[error("{}: {reason}", file.display())]
    Cases {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file of arrays is no archive of arrays.
    #[error("{}: {reason}", file.display())]
    Archive {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An array is missing, or is not what it should be.
    #[error("{}: array `{array}`: {reason}", file.display())]
    Array {
        /// The file.
        file: PathBuf,
        /// The array.
        array: String,
        /// What is wrong.
        reason: String,
    },
    /// A case cannot be run, and not for want of a policy.
    #[error("{}: case {id}: {reason}", file.display())]
    Case {
        /// The file.
        file: PathBuf,
        /// The case.
        id: String,
        /// What is wrong.
        reason: String,
    },
}

impl ConformError {
    /// Says which case it was, where the error does not know.
    pub(crate) fn in_case(self, cases: &Path, id: &str) -> Self {
        match self {
            Self::Case { reason, .. } => Self::Case {
                file: cases.to_owned(),
                id: id.to_owned(),
                reason,
            },
            other => other,
        }
    }
}

/// Why a case goes no further.
#[derive(Debug)]
pub(crate) enum Stop {
    /// There is nothing to compare, and why.
    Unsupported(String),
    /// Something is wrong.
    Error(ConformError),
}

impl Stop {
    /// The case is at fault; [`ConformError::in_case`] adds which it is.
    pub(crate) fn case(reason: impl Into<String>) -> Self {
        Self::Error(ConformError::Case {
            file: PathBuf::new(),
            id: String::new(),
            reason: reason.into(),
        })
    }

    pub(crate) fn unsupported(reason: impl Into<String>) -> Self {
        Self::Unsupported(reason.into())
    }
}

impl From<ConformError> for Stop {
    fn from(error: ConformError) -> Self {
        Self::Error(error)
    }
}

impl From<KernelError> for Stop {
    fn from(error: KernelError) -> Self {
        Self::case(error.to_string())
    }
}

impl From<CacheError> for Stop {
    fn from(error: CacheError) -> Self {
        Self::case(error.to_string())
    }
}

impl From<ConfigError> for Stop {
    /// A policy may refuse what a case asks. A configuration that it cannot even read is our own mistake.
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Malformed { .. } => Self::case(error.to_string()),
            refusal => Self::Unsupported(refusal.to_string()),
        }
    }
}
