//! What crosses the pipes: the questions of a host and the answers of a program.
use kv_core::{Budget, ConfigError, Field, Geometry, Growth, Needs, Phase, Room, Verb};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of the frames and of the first question. It changes when they do.
pub const PROTOCOL: u32 = 1;

/// The version of all that crosses after it: questions, answers and the types of kv-core in them. It changes when they do;
/// a test compares their text with `testdata/wire.json`.
pub const ABI: u32 = 2;

/// A host's question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Question {
    Hello {
        protocol: u32,
        abi: u32,
    },
    Bind {
        fields: Value,
        geometry: Geometry,
        budget: Amount,
    },
    Rooms {
        prompt: usize,
        budget: usize,
    },
    Plan(Layer),
    /// What a method over the policy ranks by.
    Score(Layer),
    /// What the host observed of the layer, `f32 [H][T]`.
    Observed {
        lens: Vec<usize>,
    },
}

/// A layer that is asked about. Numbers follow: where there are `lens` the positions, `u32 [H][T]`, and where there are
/// `rows`, what the policy reads of the prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layer {
    pub(crate) layer: usize,
    pub(crate) phase: Phase,
    pub(crate) heads: usize,
    pub(crate) prompt: usize,
    pub(crate) budget: usize,
    /// Tokens of each head, `[H]`, where it does not hold the whole prompt and nothing else.
    pub(crate) lens: Option<Vec<usize>>,
    pub(crate) rows: Option<Rows>,
}

impl Layer {
    /// Rows of each head as they are shown: as many as the head has that holds most.
    pub(crate) fn stride(&self) -> usize {
        let held = self.lens.iter().flatten().copied().max();
        held.unwrap_or(self.prompt)
    }

    /// Tokens of each head, `[H]`.
    pub(crate) fn held(&self) -> Vec<usize> {
        let of_prompt = || vec![self.prompt; self.heads];
        self.lens.clone().unwrap_or_else(of_prompt)
    }
}

/// Of the prompt's rows, what is not numbers of 4 bytes. Floats are text, for a JSON parser may miss their last bit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rows {
    pub(crate) head_dim: usize,
    pub(crate) group: usize,
    pub(crate) scale: String,
    pub(crate) softcap: Option<String>,
    pub(crate) rotation: Option<Turns>,
}

/// How the model turns queries and keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Turns {
    /// As before.
    Same,
    /// By these tables, `[P, pairs]` of cosines and as many sines.
    By {
        pairs: usize,
        positions: usize,
        is_adjacent: bool,
    },
}

/// A program's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    Hello(Hello),
    Bound {
        needs: Needs,
        notice: Option<String>,
        /// Whether methods over it can rank by it.
        ranks: bool,
    },
    Refused(Refusal),
    Rooms(Vec<Room>),
    /// The scores that verbs bring are not in them: they follow, verb by verb, rows of `lens`.
    Plan {
        verbs: Vec<Verb>,
        growth: Vec<Growth>,
        lens: Vec<usize>,
    },
    /// Scores follow, `f32 [H][n]`.
    Scores {
        lens: Vec<usize>,
    },
    /// What was observed, please.
    Read,
    Panicked(String),
}

/// What a program says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    pub(crate) abi: u32,
    pub(crate) name: String,
    pub(crate) summary: String,
    pub(crate) fields: Vec<Field>,
}

/// A budget. A share is text, for a JSON parser may miss its last bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Amount {
    Full,
    Tokens(usize),
    Ratio(String),
    Bytes(u64),
}

impl From<Budget> for Amount {
    fn from(budget: Budget) -> Self {
        match budget {
            Budget::Full => Self::Full,
            Budget::Tokens(tokens) => Self::Tokens(tokens),
            Budget::Ratio(share) => Self::Ratio(share.to_string()),
            Budget::Bytes(bytes) => Self::Bytes(bytes),
        }
    }
}

impl Amount {
    /// The budget; `None` for a share that is no number.
    pub(crate) fn budget(&self) -> Option<Budget> {
        Some(match self {
            Self::Full => Budget::Full,
            Self::Tokens(tokens) => Budget::Tokens(*tokens),
            Self::Ratio(share) => Budget::Ratio(share.parse().ok()?),
            Self::Bytes(bytes) => Budget::Bytes(*bytes),
        })
    }
}

/// Why a policy does not bind; the policy's name is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Refusal {
    Malformed(String),
    OutOfRange {
        field: String,
        value: String,
        allowed: String,
    },
    Profile {
        field: String,
        file: String,
        place: String,
        found: String,
        expected: String,
    },
    Budget {
        value: String,
        allowed: String,
    },
    Unsupported {
        need: String,
        offered: String,
    },
}

impl Refusal {
    /// Why the policy `name` does not bind; what another policy under it refuses is told in its own words.
    pub(crate) fn of(error: ConfigError, name: &str) -> Self {
        match error {
            ConfigError::OutOfRange { policy, .. } | ConfigError::Malformed { policy, .. }
                if policy != name =>
            {
                Self::Malformed(error.to_string())
            }
            ConfigError::Profile(error) if error.policy != name => {
                Self::Malformed(error.to_string())
            }
            ConfigError::Malformed { reason, .. } => Self::Malformed(reason),
            ConfigError::OutOfRange {
                field,
                value,
                allowed,
                ..
            } => Self::OutOfRange {
                field: field.into(),
                value,
                allowed,
            },
            ConfigError::Profile(error) => Self::Profile {
                field: error.field.into(),
                file: error.file,
                place: error.place,
                found: error.found,
                expected: error.expected,
            },
            ConfigError::Budget { value, allowed } => Self::Budget { value, allowed },
            ConfigError::Unsupported { need, offered, .. } => Self::Unsupported { need, offered },
            other => Self::Malformed(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
