//! Files of golden prompts: what other people's code kept of many layers.
use std::collections::BTreeMap;

use serde::Deserialize;

use super::Golden;
use crate::{Budget, PolicyConfig};

#[derive(Deserialize)]
#[serde(bound(deserialize = "C: PolicyConfig"))]
struct File<C> {
    /// Scores of the ranked tokens, by name, `[H][n - w]`.
    scores: BTreeMap<String, Vec<Vec<f32>>>,
    cases: Vec<Case<C>>,
}

/// One layer of one call.
#[derive(Deserialize)]
#[serde(bound(deserialize = "C: PolicyConfig"))]
struct Case<C> {
    id: String,
    config: C,
    budget: usize,
    prompt: usize,
    layer: usize,
    /// A name in [`File::scores`].
    scores: String,
    /// Half-open ranges of positions, `[H]`.
    kept: Vec<Vec<(u32, u32)>>,
}

impl<C: PolicyConfig> Case<C> {
    /// What is kept that should not be, or the other way round; `None` for the same tokens.
    fn difference(self, scores: &BTreeMap<String, Vec<Vec<f32>>>) -> Option<String> {
        let Some(ranked) = scores.get(&self.scores) else {
            return Some(format!("{}: no scores called {}", self.id, self.scores));
        };
        let with_window = |ranked: &Vec<f32>| {
            let mut row = ranked.clone();
            row.resize(self.prompt, f32::INFINITY);
            row
        };
        let scores: Vec<Vec<f32>> = ranked.iter().map(with_window).collect();
        let positions = |head: &Vec<(u32, u32)>| -> Vec<u32> {
            head.iter().flat_map(|&(start, end)| start..end).collect()
        };
        let kept: Vec<Vec<u32>> = self.kept.iter().map(positions).collect();
        let golden = Golden {
            budget: Budget::Tokens(self.budget),
            layer: self.layer,
            prompt: self.prompt,
            scores: &scores,
            kept: &kept,
        };
        let failure = golden.check(self.config).err()?;
        Some(format!("{}, layer {}: {failure}", self.id, self.layer))
    }
}

/// Compares what a policy keeps with every case of a JSON file, and says how many there are.
///
/// The file is a table of `scores`, by name, `[H][n - w]` (the window of `w` newest tokens is not scored), and a list of
/// `cases`: `id`, `config`, `budget` (tokens per KV head), `prompt`, `layer`, the name of its `scores`, and `kept`, half-open
/// ranges of positions for each head. Other fields, such as where it comes from, are for people.
///
/// # Errors
///
/// A line for each case that differs, or why the file cannot be read.
pub fn golden_prompts<C: PolicyConfig>(json: &str) -> Result<usize, String> {
    let file: File<C> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let count = file.cases.len();
    let differences: Vec<String> = file
        .cases
        .into_iter()
        .filter_map(|case| case.difference(&file.scores))
        .collect();
    if differences.is_empty() {
        Ok(count)
    } else {
        Err(differences.join("\n"))
    }
}
