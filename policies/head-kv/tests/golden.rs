//! The same budgets as other people's code, and the same tokens wherever a head's cut is not tied.
//!
//! Pooling by the largest makes equal scores, and which of them `torch.topk` takes is not specified. Where the lowest score
//! kept equals the highest dropped, the scores kept are compared and not the positions.
use std::fs;

use kv_core::{Budget, Geometry, KeepPlan, LayerView, Pins, Policy, PolicyConfig, conformance};
use kv_policy_head_kv::{HeadKvConfig, Rounding};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct File {
    prompt: usize,
    scores: Vec<Scores>,
    cases: Vec<Case>,
}

/// What was observed before it is pooled, `[L][heads][n - w]`.
#[derive(Debug, Deserialize)]
struct Scores {
    window: usize,
    group: usize,
    rows: Vec<Vec<Vec<f32>>>,
}

#[derive(Debug, Deserialize)]
struct Case {
    id: usize,
    window: usize,
    group: usize,
    /// Tokens per KV head, window included.
    budget: usize,
    beta: f64,
    temp: f64,
    /// Importance of every query head, `[L * G * H]`.
    importance: Vec<f64>,
    /// Half-open ranges, `[L][H]`.
    kept: Vec<Vec<Vec<(u32, u32)>>>,
}

/// The largest of seven neighbours.
fn pooled(row: &[f32]) -> Vec<f32> {
    let around = |at: usize| &row[at.saturating_sub(3)..(at + 4).min(row.len())];
    (0..row.len())
        .map(|at| around(at).iter().copied().fold(f32::NEG_INFINITY, f32::max))
        .collect()
}

fn sorted(positions: &[u32], scores: &[f32]) -> Vec<f32> {
    let mut kept: Vec<f32> = positions.iter().map(|&p| scores[p as usize]).collect();
    kept.sort_by(f32::total_cmp);
    kept
}

/// Whether a head's lowest score kept is also that of a token dropped.
fn is_tied(positions: &[u32], scores: &[f32]) -> bool {
    let lowest = sorted(positions, scores)[0];
    let all = scores.iter().filter(|&&score| score >= lowest).count();
    all > positions.len()
}

impl Case {
    /// What our plan keeps, `[L][H]`, for what was observed, `[L][H][n]`.
    fn planned(&self, prompt: usize, scores: &[Vec<Vec<f32>>]) -> Vec<Vec<Vec<u32>>> {
        let heads = scores[0].len();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("scores.json");
        let key = |index: usize| {
            format!(
                "{}-{}",
                index / (heads * self.group),
                index % (heads * self.group)
            )
        };
        let entries: serde_json::Map<String, serde_json::Value> = (0..)
            .zip(&self.importance)
            .map(|(index, &score)| (key(index), vec![score].into()))
            .collect();
        fs::write(&path, serde_json::Value::from(entries).to_string()).expect("written");

        let config = HeadKvConfig {
            profile: path.display().to_string(),
            window: self.window,
            beta: self.beta,
            temp: self.temp,
            rounding: Rounding::Authors,
            ..HeadKvConfig::default()
        };
        let model = Geometry {
            layers: scores.len(),
            group: self.group,
            ..conformance::geometry(heads)
        };
        let policy = config
            .bind(&model, Budget::Tokens(self.budget))
            .unwrap_or_else(|error| panic!("{error}"));
        let layer = |(layer, rows): (usize, &Vec<Vec<f32>>)| {
            let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            let view = LayerView::prefill(layer, heads, prompt, self.budget)
                .with_scores(policy.needs().observation, &rows);
            let mut keep = KeepPlan::all(heads);
            policy.plan(&view, &mut keep);
            keep.resolve(&view, &Pins::default()).slots
        };
        scores.iter().enumerate().map(layer).collect()
    }
}

#[test]
fn heads_keep_what_they_keep_elsewhere() {
    let file: File =
        serde_json::from_str(include_str!("../testdata/head_scores.json")).expect("golden data");
    let (mut tied, mut equal) = (0, 0);
    for case in &file.cases {
        let scores = file
            .scores
            .iter()
            .find(|scores| scores.window == case.window && scores.group == case.group)
            .expect("scores for the case");
        let observed = |row: &Vec<f32>| {
            let mut row = pooled(row);
            row.resize(file.prompt, f32::INFINITY);
            row
        };
        let rows: Vec<Vec<Vec<f32>>> = scores
            .rows
            .iter()
            .map(|layer| layer.iter().map(observed).collect())
            .collect();
        let planned = case.planned(file.prompt, &rows);
        for (layer, heads) in case.kept.iter().enumerate() {
            for (head, ranges) in heads.iter().enumerate() {
                let expected: Vec<u32> = ranges.iter().flat_map(|&(a, b)| a..b).collect();
                let (found, row) = (&planned[layer][head], &rows[layer][head]);
                let text = format!("case {}, layer {layer}, head {head}", case.id);
                if is_tied(&expected, row) {
                    tied += 1;
                    assert_eq!(sorted(found, row), sorted(&expected, row), "{text}");
                } else {
                    equal += 1;
                    assert_eq!(found, &expected, "{text}");
                }
            }
        }
    }
    assert_eq!(file.cases.len(), 8, "cases in the golden data");
    assert_eq!(
        (equal, tied),
        (27, 85),
        "heads without and with a tie at the cut"
    );
}
