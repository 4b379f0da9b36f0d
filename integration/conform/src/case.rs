//! The file of cases.
use std::{fs, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ConformError;

/// All cases. What else the file says is not read.
#[derive(Debug, Deserialize)]
pub(crate) struct CaseFile {
    pub(crate) cases: Vec<Case>,
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
        serde_json::from_str(&text).map_err(|error| ConformError::Cases {
            file: file.to_owned(),
            reason: error.to_string(),
        })
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
