//! The same tokens as other people's code; `testdata/` says whose, and how it was made.
use std::collections::BTreeMap;

use kv_core::{Budget, conformance::Golden};
use kv_policy_snap_kv::SnapKvConfig;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct File {
    /// Scores of the ranked tokens, by name, `[H][n - w]`.
    scores: BTreeMap<String, Vec<Vec<f32>>>,
    cases: Vec<Case>,
}

/// One layer of one call.
#[derive(Debug, Deserialize)]
struct Case {
    id: String,
    config: SnapKvConfig,
    budget: usize,
    prompt: usize,
    layer: usize,
    /// A name in [`File::scores`].
    scores: String,
    /// Half-open ranges of positions, `[H]`.
    kept: Vec<Vec<(u32, u32)>>,
}

impl Case {
    /// The policy's verdict, `None` for the same tokens.
    fn difference(&self, scores: &BTreeMap<String, Vec<Vec<f32>>>) -> Option<String> {
        let with_window = |ranked: &Vec<f32>| {
            let mut row = ranked.clone();
            row.resize(self.prompt, f32::INFINITY);
            row
        };
        let scores: Vec<Vec<f32>> = scores[&self.scores].iter().map(with_window).collect();
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

#[test]
fn the_same_tokens_stay() {
    let file: File = serde_json::from_str(include_str!("../testdata/prompts.json")).expect("data");
    let differences: Vec<String> = file
        .cases
        .iter()
        .filter_map(|case| case.difference(&file.scores))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(file.cases.len(), 46, "cases in the golden data");
}
