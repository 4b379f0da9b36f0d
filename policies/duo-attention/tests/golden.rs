//! The same tokens as kvpress' `DuoAttentionPress`, whose mask of streaming heads is written out as a profile.
use std::{fmt::Write, fs};

use kv_core::{
    Budget, Policy, PolicyConfig,
    conformance::{Golden, decode, geometry},
};
use kv_policy_duo_attention::{DuoAttentionConfig, PromptSight, Selection};
use serde::Deserialize;
use tempfile::TempDir;

#[derive(Debug, Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Case {
    tokens: usize,
    sinks: usize,
    recent: usize,
    /// `[L][H]`, 1 for a streaming head.
    streaming: Vec<Vec<u8>>,
    /// Half-open ranges, `[L][H]`.
    kept: Vec<Vec<Vec<(u32, u32)>>>,
}

fn cases() -> Vec<Case> {
    let file: File = serde_json::from_str(include_str!("../testdata/duo_attention_press.json"))
        .expect("golden data");
    assert_eq!(file.cases.len(), 4, "cases in the golden data");
    file.cases
}

impl Case {
    /// The mask as a profile, and the configurations that must choose its heads.
    fn configs(&self) -> (TempDir, Vec<DuoAttentionConfig>) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut table = String::new();
        for row in &self.streaming {
            let cells: Vec<String> = row
                .iter()
                .map(|&s| format!("{:.18e}", 1.0 - f64::from(s)))
                .collect();
            writeln!(table, "{}", cells.join("\t")).expect("text");
        }
        fs::write(folder.path().join("full_attention_heads.tsv"), table).expect("written");
        let sizes = format!(
            r#"{{"sink_size": {}, "recent_size": {}, "lr": 0.02}}"#,
            self.sinks, self.recent
        );
        fs::write(folder.path().join("config.json"), sizes).expect("written");

        let heads = self.streaming.iter().flatten();
        let share =
            heads.clone().map(|&s| f64::from(s)).sum::<f64>() / heads.map(|_| 1.0).sum::<f64>();
        let by_sizes = DuoAttentionConfig {
            profile: folder.path().display().to_string(),
            sparsity: Some(share),
            ..DuoAttentionConfig::default()
        };
        let by_fields = DuoAttentionConfig {
            profile: folder
                .path()
                .join("full_attention_heads.tsv")
                .display()
                .to_string(),
            sparsity: None,
            threshold: Some(0.5),
            sinks: Some(self.sinks),
            recent: Some(self.recent),
            selection: Selection::Exact,
            prompt: PromptSight::Dense,
            positions: kv_core::Positions::Original,
        };
        (folder, vec![by_sizes, by_fields])
    }
}

#[test]
fn a_prompt_is_cut_as_by_kvpress() {
    for case in cases() {
        let (_folder, configs) = case.configs();
        for config in configs {
            for (layer, kept) in case.kept.iter().enumerate() {
                let positions =
                    |ranges: &Vec<(u32, u32)>| ranges.iter().flat_map(|&(a, b)| a..b).collect();
                let kept: Vec<Vec<u32>> = kept.iter().map(positions).collect();
                let golden = Golden {
                    budget: Budget::Full,
                    layer,
                    prompt: case.tokens,
                    scores: &[],
                    kept: &kept,
                };
                golden
                    .check(config.clone())
                    .unwrap_or_else(|failure| panic!("{failure}"));
            }
        }
    }
}

#[test]
fn a_streaming_head_rolls_and_a_retrieval_head_grows() {
    let config = DuoAttentionConfig {
        sinks: Some(2),
        recent: Some(3),
        ..DuoAttentionConfig::default()
    };
    let history =
        decode(config, 2, Budget::Full, 7, 40).unwrap_or_else(|failure| panic!("{failure}"));
    for (seen, heads) in (7..).zip(history) {
        let window: Vec<u32> = (0..2).chain(seen - 3..seen).collect();
        assert_eq!(heads, [(0..seen).collect(), window], "{seen} seen");
    }
}

/// The profile that the repository ships was learned: half of its heads retrieve, not every other one, and its window is that of its training.
#[test]
fn the_shipped_profile_was_learned() {
    let mut model = geometry(3);
    model.layers = 30;
    let bound = |profile: &str, sparsity| {
        let config = DuoAttentionConfig {
            profile: profile.into(),
            sparsity: Some(sparsity),
            ..DuoAttentionConfig::default()
        };
        config
            .bind(&model, Budget::Full)
            .unwrap_or_else(|error| panic!("{error}"))
    };
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/profiles/SmolLM2-135M-Instruct"
    );
    for (sparsity, retrieve) in [(0.0, 90), (0.25, 68), (0.5, 45), (0.75, 22), (1.0, 0)] {
        let shipped = bound(folder, sparsity);
        let heads = shipped.retrieval_heads().concat();
        let found = heads.iter().filter(|retrieves| **retrieves).count();
        assert_eq!(found, retrieve, "sparsity {sparsity}");
        assert_eq!((shipped.sinks(), shipped.recent()), (16, 32));
        assert_eq!(shipped.notice(), None);
    }
    let (shipped, neutral) = (bound(folder, 0.5), bound("neutral-alternating", 0.5));
    assert_ne!(shipped.retrieval_heads(), neutral.retrieval_heads());
    let notice = neutral.notice().expect("says that it is neutral");
    assert!(notice.contains("not learned"), "{notice}");
}

/// The heads that the largest values of the authors' Llama-3 pattern choose: ranks stand for the values, of which the
/// choice depends on nothing but the order.
#[test]
fn retrieval_heads_per_layer_of_the_authors_pattern() {
    #[derive(Deserialize)]
    struct Ranks {
        #[serde(rename = "retrieval_heads_per_layer_at_sparsity_0.5")]
        counts: Vec<usize>,
        ranks: Vec<Vec<u8>>,
    }
    let file: Ranks = serde_json::from_str(include_str!("../testdata/llama3_1048k_ranks.json"))
        .expect("golden data");
    let folder = tempfile::tempdir().expect("a folder");
    let mut table = String::new();
    for row in &file.ranks {
        let cells: Vec<String> = row
            .iter()
            .map(|&rank| (f64::from(rank) / 128.0).to_string())
            .collect();
        writeln!(table, "{}", cells.join("\t")).expect("text");
    }
    let path = folder.path().join("full_attention_heads.tsv");
    fs::write(&path, table).expect("written");
    let config = DuoAttentionConfig {
        profile: path.display().to_string(),
        sparsity: Some(0.5),
        ..DuoAttentionConfig::default()
    };
    let geometry = kv_core::Geometry {
        layers: 32,
        kv_heads: 8,
        ..geometry(8)
    };
    let policy = config.bind(&geometry, Budget::Full).expect("a profile");
    let counts: Vec<usize> = policy
        .retrieval_heads()
        .iter()
        .map(|heads| heads.iter().filter(|&&full| full).count())
        .collect();
    assert_eq!(counts, file.counts);
    assert_eq!(counts.iter().sum::<usize>(), 128);
}
