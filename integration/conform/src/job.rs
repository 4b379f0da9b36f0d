//! A case in our own words.
use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use kv_core::Budget;
use serde_json::{Map, Value};
use tempfile::NamedTempFile;

/// A policy to bind, and what to do with it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) policy: &'static str,
    pub(crate) config: Map<String, Value>,
    pub(crate) budget: Budget,
    /// What goes into a file that the field `profile` names.
    pub(crate) profile: Option<Profile>,
    /// Layers of the model, where the case says so; else those of the mask.
    pub(crate) layers: Option<usize>,
    pub(crate) course: Course,
}

/// How far a case goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// One mask, after the prompt.
    Prompt,
    /// One mask after a prompt of `prefill` tokens, and one after each token from there on.
    Steps { prefill: usize },
}

/// What was learned about heads, offline.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Profile {
    /// A score of each query head, layer by layer.
    QueryHeads(Vec<f64>),
    /// Whether each KV head streams, `[L][H]`.
    Streaming(Vec<Vec<bool>>),
}

impl Job {
    pub(crate) fn new(policy: &'static str, budget: Budget) -> Self {
        Self {
            policy,
            config: Map::new(),
            budget,
            profile: None,
            layers: None,
            course: Course::Prompt,
        }
    }

    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.config.insert(field.to_owned(), value.into());
        self
    }
}

impl Profile {
    /// Writes the profile as its authors do: the first kind for a model with so many query heads in each layer.
    pub(crate) fn write(&self, query_heads: usize) -> io::Result<NamedTempFile> {
        let text = match self {
            Self::QueryHeads(scores) => query_head_scores(scores, query_heads),
            Self::Streaming(layers) => attention_pattern(layers),
        };
        let mut file = NamedTempFile::new()?;
        file.write_all(text.as_bytes())?;
        file.flush()?;
        Ok(file)
    }
}

/// One JSON object, `"layer-head": [score]`, in the order of the model: the authors' reader goes by it.
fn query_head_scores(scores: &[f64], query_heads: usize) -> String {
    let mut text = String::from("{");
    for (index, score) in scores.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let (layer, head) = (index / query_heads.max(1), index % query_heads.max(1));
        // Writing to a string does not fail.
        let _ = write!(text, "{comma}\"{layer}-{head}\": [{score:?}]");
    }
    text.push('}');
    text
}

/// A line for each layer, a number for each KV head: 1 for full attention, 0 for streaming.
fn attention_pattern(layers: &[Vec<bool>]) -> String {
    let number = |streams: &bool| if *streams { "0.0" } else { "1.0" };
    let line = |heads: &Vec<bool>| heads.iter().map(number).collect::<Vec<_>>().join("\t") + "\n";
    layers.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_written_as_their_authors_write_them() {
        assert_eq!(
            query_head_scores(&[0.5, 1.0, 0.25, 0.0], 2),
            r#"{"0-0": [0.5], "0-1": [1.0], "1-0": [0.25], "1-1": [0.0]}"#
        );
        let layers = [vec![true, false], vec![false, false]];
        assert_eq!(attention_pattern(&layers), "0.0\t1.0\n1.0\t1.0\n");
    }
}
