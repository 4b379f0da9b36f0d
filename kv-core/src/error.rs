//! What can go wrong: a user's configuration, or the pool running out.
use std::fmt;

use crate::{Full, SeqId};

/// Why a policy could not be built for a model. Always the user's to mend, always found at start-up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// No policy is registered under this name.
    UnknownPolicy {
        /// The name asked for.
        name: String,
        /// Every registered name, sorted.
        known: Vec<&'static str>,
    },
    /// The configuration does not describe this policy: an unknown field, a wrong type.
    Malformed {
        /// The policy's name.
        policy: &'static str,
        /// What the deserialiser said; it names the field and what was expected.
        reason: String,
    },
    /// A field is well formed but out of range, or does not fit the model or the budget.
    OutOfRange {
        /// The policy's name.
        policy: &'static str,
        /// The field.
        field: &'static str,
        /// The value given.
        value: String,
        /// What is allowed, in words that follow "must be".
        allowed: String,
    },
    /// A file that the configuration names cannot be used with this model.
    Profile(Box<ProfileError>),
    /// The budget fits no cache of this model.
    Budget {
        /// The budget given.
        value: String,
        /// What is allowed, in words that follow "must be".
        allowed: String,
    },
    /// The policy asks for something that this host cannot supply.
    Unsupported {
        /// The policy's name.
        policy: String,
        /// What it asks for.
        need: String,
        /// What the host offers.
        offered: String,
    },
}

/// What is wrong with a file that a configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileError {
    /// The policy's name.
    pub policy: &'static str,
    /// The field that names the file.
    pub field: &'static str,
    /// The file.
    pub file: String,
    /// Where in the file: a line, a key; empty for the whole of it.
    pub place: String,
    /// What was found there.
    pub found: String,
    /// What was expected.
    pub expected: String,
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            policy,
            field,
            file,
            place,
            found,
            expected,
        } = self;
        let comma = if place.is_empty() { "" } else { ", " };
        write!(
            f,
            "policy {policy}: `{field}` {file}{comma}{place}: found {found}, expected {expected}"
        )
    }
}

impl ConfigError {
    /// Refuses a value: `allowed` follows "must be". For a number that is not whole, see [`ConfigError::written`].
    ///
    /// ```
    /// use kv_core::ConfigError;
    /// let error = ConfigError::out_of_range("h2o", "recent", 0, "at least 1");
    /// assert_eq!(error.to_string(), "policy h2o: `recent` is 0, must be at least 1");
    /// ```
    #[must_use]
    pub fn out_of_range(
        policy: &'static str,
        field: &'static str,
        value: impl fmt::Display,
        allowed: impl Into<String>,
    ) -> Self {
        Self::OutOfRange {
            policy,
            field,
            value: value.to_string(),
            allowed: allowed.into(),
        }
    }

    /// A number as a user would write it: with an exponent from 1e15 on.
    ///
    /// ```
    /// use kv_core::ConfigError;
    /// assert_eq!(ConfigError::written(0.5), "0.5");
    /// assert_eq!(ConfigError::written(1e300), "1e300");
    /// ```
    #[must_use]
    pub fn written(number: f64) -> String {
        if number.abs() < 1e15 {
            number.to_string()
        } else {
            format!("{number:e}")
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPolicy { name, known } => {
                write!(
                    f,
                    "no policy is called `{name}`; known are {}",
                    known.join(", ")
                )
            }
            Self::Malformed { policy, reason } => write!(f, "policy {policy}: {reason}"),
            Self::OutOfRange {
                policy,
                field,
                value,
                allowed,
            } => {
                write!(
                    f,
                    "policy {policy}: `{field}` is {value}, must be {allowed}"
                )
            }
            Self::Profile(error) => error.fmt(f),
            Self::Budget { value, allowed } => write!(f, "`budget` is {value}, must be {allowed}"),
            Self::Unsupported {
                policy,
                need,
                offered,
            } => {
                write!(
                    f,
                    "policy {policy} needs {need}, but this host offers {offered}"
                )
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// Why the ledger refused. Values, never panics: a host may meet them at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The pool has no room now.
    #[error(transparent)]
    Full(#[from] Full),
    /// No sequence is open under this id.
    #[error("sequence {0} is not open")]
    UnknownSequence(SeqId),
    /// A sequence is open under this id already.
    #[error("sequence {0} is open already")]
    AlreadyOpen(SeqId),
    /// A plan or a token names a layer that the model does not have.
    #[error("layer {layer} of a model with {layers}")]
    UnknownLayer {
        /// The layer named.
        layer: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// A prompt was written into heads that hold tokens already.
    #[error("layer {layer} of sequence {seq} holds tokens already; a prompt must come first")]
    NotEmpty {
        /// The sequence.
        seq: SeqId,
        /// The layer.
        layer: usize,
    },
    /// A layer was to be planned anew whose tokens only a device knows.
    #[error(
        "only the device knows what layer {layer} of sequence {seq} holds; it cannot be planned anew"
    )]
    Blind {
        /// The sequence.
        seq: SeqId,
        /// The layer.
        layer: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_as_a_user_would() {
        for (number, text) in [
            (0.0, "0"),
            (-0.1, "-0.1"),
            (20.0, "20"),
            (999_999_999_999_999.0, "999999999999999"),
            (1e15, "1e15"),
            (-1.5e300, "-1.5e300"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(ConfigError::written(number), text);
        }
    }

    #[test]
    fn a_refusal_holds_what_it_was_given() {
        let expected = ConfigError::OutOfRange {
            policy: "h2o",
            field: "recent",
            value: "65".into(),
            allowed: "at most 64".into(),
        };
        let error = ConfigError::out_of_range("h2o", "recent", 65, format!("at most {}", 64));
        assert_eq!(error, expected);
    }
}
