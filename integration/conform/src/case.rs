//! The file of cases.
use std::{fs, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ConformError;

/// All cases, and what they have in common. What else the file says is not read.
#[derive(Debug, Deserialize)]
pub(crate) struct CaseFile {
    #[serde(default)]
    pub(crate) meta: Meta,
    pub(crate) cases: Vec<Case>,
}

/// What is known of the model.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Meta {
    /// The base of `RoPE`'s angles.
    #[serde(default)]
    pub(crate) rope_theta: Option<f64>,
    /// Layers of the arrays of scores, where those are not all.
    #[serde(default)]
    pub(crate) score_layers: Option<Vec<usize>>,
}

/// One run of somebody else's code.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    id: Value,
    pub(crate) method: String,
    pub(crate) source: String,
    #[serde(default)]
    pub(crate) params: Map<String, Value>,
    /// The array that holds the mask.
    pub(crate) keep: String,
    /// Shape of the mask, its last axis counted in tokens.
    pub(crate) shape: Vec<usize>,
    pub(crate) granularity: Granularity,
    /// The array that holds the scores by which it was chosen.
    #[serde(default)]
    pub(crate) score: Option<String>,
    /// Layers of that array, where those are not all and `meta` does not say it.
    #[serde(default)]
    pub(crate) score_layers: Option<Vec<usize>>,
    /// Least distance of the reference's scores at the cut.
    #[serde(default)]
    pub(crate) min_margin_kept_minus_evicted: Option<f64>,
    /// Bits in which an independent computation that breaks ties in order differs from the reference.
    #[serde(default)]
    pub(crate) numpy_stable_mismatch_bits: Option<u64>,
}

/// What a head of the mask is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Granularity {
    /// A KV head.
    KvHead,
    /// A query head, whose KV head was repeated for it.
    QueryHead,
}

impl CaseFile {
    pub(crate) fn read(file: &Path) -> Result<Self, ConformError> {
        let text = fs::read_to_string(file).map_err(|error| ConformError::Read {
            file: file.to_owned(),
            error,
        })?;
        let wrong = |reason| ConformError::Cases {
            file: file.to_owned(),
            reason,
        };
        let cases: Self = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        match cases.meta.rope_theta {
            Some(base) if !(base.is_finite() && base > 0.0) => Err(wrong(format!(
                "`rope_theta` is {base}, must be a number above 0"
            ))),
            _ => Ok(cases),
        }
    }
}

impl Case {
    pub(crate) fn id(&self) -> String {
        match &self.id {
            Value::String(id) => id.clone(),
            other => other.to_string(),
        }
    }
}
