//! Scores of query heads: one JSON object with a key `"layer-head"` for each, and under it the score of every run.
use std::{fmt::Write as _, path::Path};

use serde_json::{Map, Value};

use super::write;
use crate::ProfileError;

/// Scores of every query head, one for each run that counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeadScores {
    /// `[L][H * G][runs]`.
    pub runs: Vec<Vec<Vec<f64>>>,
}

impl HeadScores {
    /// Of a single run.
    pub(super) fn of_means(means: &[Vec<f64>]) -> Self {
        let layer = |layer: &Vec<f64>| layer.iter().map(|&mean| vec![mean]).collect();
        Self {
            runs: means.iter().map(layer).collect(),
        }
    }

    /// Adds a run, `[L][H * G]`.
    pub fn add(&mut self, run: Vec<Vec<f64>>) {
        self.runs.resize(run.len(), Vec::new());
        for (layer, run) in self.runs.iter_mut().zip(run) {
            layer.resize(run.len(), Vec::new());
            for (runs, score) in layer.iter_mut().zip(run) {
                runs.push(score);
            }
        }
    }

    /// Runs that were added.
    #[must_use]
    pub fn count(&self) -> usize {
        self.runs.iter().flatten().map(Vec::len).max().unwrap_or(0)
    }

    /// Writes the authors' JSON.
    ///
    /// # Errors
    ///
    /// What cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ProfileError> {
        write(path, &self.json())
    }

    /// The mean over all runs, `[L][H * G]`; 0 without any.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a few runs")]
    pub fn means(&self) -> Vec<Vec<f64>> {
        let mean = |runs: &Vec<f64>| runs.iter().sum::<f64>() / runs.len().max(1) as f64;
        let layer = |layer: &Vec<Vec<f64>>| layer.iter().map(mean).collect();
        self.runs.iter().map(layer).collect()
    }

    /// The authors' JSON, a line for each head. Scores have six significant digits, which is more than they tell.
    #[must_use]
    pub fn json(&self) -> String {
        let mut text = String::from("{");
        let heads = self.runs.iter().enumerate();
        let heads = heads.flat_map(|(layer, heads)| {
            let heads = heads.iter().enumerate();
            heads.map(move |(head, runs)| (layer, head, runs))
        });
        for (layer, head, runs) in heads {
            let runs: Vec<String> = runs.iter().map(|&run| short(run)).collect();
            let comma = if text.len() > 1 { "," } else { "" };
            // Writing to a string cannot fail.
            let _ = std::write!(text, "{comma}\n\"{layer}-{head}\": [{}]", runs.join(", "));
        }
        text + "\n}\n"
    }

    /// Reads them back. Lists may differ in length, and heads come in any order.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let fields: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut runs: Vec<Vec<Vec<f64>>> = Vec::new();
        let mut found = 0;
        while let Some(heads) = layer(&fields, runs.len())? {
            found += heads.len();
            runs.push(heads);
        }
        let ragged = runs.iter().position(|heads| heads.len() != runs[0].len());
        if let Some(layer) = ragged {
            let (found, allowed) = (runs[layer].len(), runs[0].len());
            return Err(format!(
                "layer {layer} has {found} heads; allowed: {allowed}, as layer 0"
            ));
        }
        if found == 0 || found != fields.len() {
            let keys = fields.len();
            return Err(format!(
                "{keys} keys, of which {found} are `\"layer-head\"`, counted from 0"
            ));
        }
        Ok(Self { runs })
    }
}

fn layer(fields: &Map<String, Value>, layer: usize) -> Result<Option<Vec<Vec<f64>>>, String> {
    let mut heads = Vec::new();
    while let Some(value) = fields.get(&format!("{layer}-{}", heads.len())) {
        let numbers = match value {
            Value::Array(numbers) => numbers.as_slice(),
            one => std::slice::from_ref(one),
        };
        let numbers: Option<Vec<f64>> = numbers.iter().map(Value::as_f64).collect();
        let numbers = numbers.filter(|numbers| !numbers.is_empty());
        let at = heads.len();
        heads.push(numbers.ok_or_else(|| format!("`{layer}-{at}` holds no numbers"))?);
    }
    Ok(if heads.is_empty() { None } else { Some(heads) })
}

fn short(value: f64) -> String {
    if value == 0.0 {
        "0.0".to_owned()
    } else {
        format!("{value:.5e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_come_back() {
        let scores = HeadScores {
            runs: vec![vec![vec![0.0, 0.5], vec![0.25, 1e-4]]; 3],
        };
        let text = scores.json();
        assert_eq!(HeadScores::parse(&text).expect("no error"), scores);
        assert!(
            text.starts_with("{\n\"0-0\": [0.0, 5.00000e-1],\n\"0-1\": ["),
            "{text}"
        );
        assert_eq!(scores.means()[2][0], 0.25);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wanted) in [
            ("{}", "0 keys"),
            ("[]", "invalid type"),
            (r#"{"0-0": [1], "0-1": []}"#, "`0-1` holds no numbers"),
            (r#"{"0-0": ["x"]}"#, "`0-0` holds no numbers"),
            (
                r#"{"0-0": [1], "0-1": [1], "1-0": [1]}"#,
                "layer 1 has 1 heads",
            ),
            (r#"{"0-0": [1], "7-0": [1]}"#, "2 keys, of which 1"),
        ] {
            let error = HeadScores::parse(text).expect_err("refused");
            assert!(error.contains(wanted), "{error}");
        }
    }
}
