//! What a user can get wrong, and what the error says.
use std::{fs, path::PathBuf};

use kv_core::{Budget, ConfigError, Geometry, PolicyConfig, Registry, conformance};
use kv_policy_duo_attention::DuoAttentionConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Two layers of three heads.
const MODEL: Geometry = conformance::geometry(3);
const GOOD: &str = "0.5\t1.0\t0.0\n1e-3\t-0.01\t1.02\n";

/// The error for a configuration as a user writes it.
fn refusal(config: &Value, budget: Budget) -> String {
    let mut registry = Registry::default();
    registry.add::<DuoAttentionConfig>();
    let fields = config.as_object().expect("a table").clone();
    let built = registry.build("duo-attention", fields, &MODEL, budget);
    built.expect_err("is refused").to_string()
}

/// A folder with a table and, unless it is empty, a `config.json`.
fn profile(table: impl AsRef<[u8]>, sizes: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("full_attention_heads.tsv");
    fs::write(&path, table).expect("written");
    if !sizes.is_empty() {
        fs::write(folder.path().join("config.json"), sizes).expect("written");
    }
    (folder, path)
}

/// The error for a profile, after the file's name.
fn profile_refusal(table: impl AsRef<[u8]>, sizes: &str) -> String {
    let (folder, path) = profile(table, sizes);
    let text = refusal(&json!({ "profile": folder.path() }), Budget::Full);
    let sizes = path.with_file_name("config.json");
    let start = |file: PathBuf| format!("policy duo-attention: `profile` {}", file.display());
    let (table, sizes) = (start(path), start(sizes));
    let rest = text
        .strip_prefix(&table)
        .or_else(|| text.strip_prefix(&sizes));
    rest.unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn a_budget_does_not_set_the_memory() {
    for (budget, written) in [
        (Budget::Tokens(256), "256"),
        (Budget::Ratio(0.25), "25%"),
        (Budget::Bytes(1 << 20), "1MiB"),
    ] {
        assert_eq!(
            refusal(&json!({}), budget),
            format!(
                "`budget` is {written}, must be full: duo-attention's memory is set by `sparsity`, `sinks` and `recent`"
            )
        );
    }
}

#[test]
fn shares_and_thresholds_are_between_0_and_1() {
    assert_eq!(
        refusal(&json!({ "sparsity": 50 }), Budget::Full),
        "policy duo-attention: `sparsity` is 50, must be from 0 to 1: a share of the KV heads"
    );
    assert_eq!(
        refusal(&json!({ "threshold": -1e300 }), Budget::Full),
        "policy duo-attention: `threshold` is -1e300, must be from 0 to 1: values are clipped to that"
    );
    let config = DuoAttentionConfig {
        sparsity: Some(f64::NAN),
        ..DuoAttentionConfig::default()
    };
    assert!(config.bind(&MODEL, Budget::Full).is_err());
}

#[test]
fn only_one_of_them_divides_the_heads() {
    assert_eq!(
        refusal(&json!({ "sparsity": 0.5, "threshold": 0.25 }), Budget::Full),
        "policy duo-attention: `threshold` is 0.25, must be left out where `sparsity` is given: either of them divides the \
         heads"
    );
    assert_eq!(
        refusal(
            &json!({ "threshold": 0.25, "selection": "quantile" }),
            Budget::Full
        ),
        "policy duo-attention: `selection` is quantile, must be exact where `threshold` is given: it divides the heads by \
         itself"
    );
}

#[test]
fn the_window_is_none_or_too_long() {
    assert_eq!(
        refusal(&json!({ "recent": 0 }), Budget::Full),
        "policy duo-attention: `recent` is 0, must be at least 1: the newest token is always kept"
    );
    assert_eq!(
        refusal(&json!({ "sinks": 4, "recent": 4093 }), Budget::Full),
        "policy duo-attention: `recent` is 4093, must be at most 4092: 4096 positions of the model less 4 sinks"
    );
    assert_eq!(
        refusal(&json!({ "sinks": u64::MAX }), Budget::Full),
        "policy duo-attention: `sinks` is 18446744073709551615, must be below the 4096 positions of the model"
    );
}

#[test]
fn there_is_no_profile() {
    assert_eq!(
        refusal(&json!({ "profile": "neutral" }), Budget::Full),
        "policy duo-attention: `profile` neutral: found no such file, expected `neutral-alternating`, a \
         full_attention_heads.tsv or the folder that holds it"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let text = refusal(&json!({ "profile": folder.path() }), Budget::Full);
    assert!(
        text.contains("full_attention_heads.tsv: found no such file"),
        "{text}"
    );
    fs::create_dir(folder.path().join("full_attention_heads.tsv")).expect("made");
    let text = refusal(&json!({ "profile": folder.path() }), Budget::Full);
    assert!(text.contains(": found something that is no file"), "{text}");
}

#[test]
fn the_table_does_not_fit_the_model() {
    for (table, expected) in [
        (
            "",
            ", at the end: found 0 rows, expected 2: one for each layer of the model",
        ),
        (
            "1\t1\t1\n",
            ", at the end: found 1 rows, expected 2: one for each layer of the model",
        ),
        (
            "1\t1\t1\n\n1\t0\t0\n0\t0\t0\n",
            ", line 4: found another row, expected the end: one row for each of the model's 2 layers",
        ),
        (
            "1\t1\t1\n1\t0\n",
            ", line 2: found 2 columns, expected 3: one for each KV head of a layer",
        ),
        (
            "1\t1\t1\t1\n1\t0\t0\t0\n",
            ", line 1: found 4 columns, expected 3: one for each KV head of a layer",
        ),
    ] {
        assert_eq!(profile_refusal(table, ""), expected);
    }
}

#[test]
fn the_table_holds_something_else() {
    for (cell, expected) in [
        ("one", "found `one`, expected a number"),
        ("1,5", "found `1,5`, expected a number"),
        ("9.99e+", "found `9.99e+`, expected a number"),
        (
            "{\"a\":[\u{7}",
            "found `{\"a\":[\u{fffd}`, expected a number",
        ),
        (
            "nan",
            "found `nan`, expected a number from 0 to 1, or at least from -1 to 2",
        ),
        (
            "-inf",
            "found `-inf`, expected a number from 0 to 1, or at least from -1 to 2",
        ),
        (
            "1e999",
            "found `1e999`, expected a number from 0 to 1, or at least from -1 to 2",
        ),
        (
            "2.5",
            "found `2.5`, expected a number from 0 to 1, or at least from -1 to 2",
        ),
    ] {
        let table = format!("1\t1\t1\n1\t{cell}\t0\n");
        assert_eq!(
            profile_refusal(table, ""),
            format!(", line 2, column 2: {expected}")
        );
    }
    let long = profile_refusal("x".repeat(1000) + "\t1\t1\n", "");
    assert!(long.len() < 120 && long.contains("x...`"), "{long}");
    assert_eq!(
        profile_refusal([b'1', b'\t', 0xff, 0xfe], ""),
        ", byte 2: found bytes that are not UTF-8, expected text"
    );
}

#[test]
fn the_table_is_huge() {
    let (folder, path) = profile("", "");
    let file = fs::File::create(&path).expect("made");
    file.set_len(1 << 40).expect("a hole");
    let text = refusal(&json!({ "profile": folder.path() }), Budget::Full);
    assert!(
        text.ends_with(": found 1099511627776 bytes or more, expected at most 16777216"),
        "{text}"
    );
}

#[test]
fn the_sizes_beside_it_are_wrong() {
    for (sizes, expected) in [
        (
            r#"{"sink_size": 128, "recent_size": 0}"#,
            ", `recent_size`: found `0`, expected a whole number of tokens from 1, below the 4096 positions of the model",
        ),
        (
            r#"{"sink_size": -1}"#,
            ", `sink_size`: found `-1`, expected a whole number of tokens from 0, below the 4096 positions of the model",
        ),
        (
            r#"{"sink_size": "128"}"#,
            ", `sink_size`: found `\"128\"`, expected a whole number of tokens from 0, below the 4096 positions of the model",
        ),
        (
            r#"{"recent_size": 1.5}"#,
            ", `recent_size`: found `1.5`, expected a whole number of tokens from 1, below the 4096 positions of the model",
        ),
    ] {
        assert_eq!(profile_refusal(GOOD, sizes), expected);
    }
    for sizes in ["{\n\"sink_size\": ", "[1, 2]", "not JSON"] {
        let text = profile_refusal(GOOD, sizes);
        assert!(
            text.starts_with(", line ") && text.ends_with("expected a JSON object"),
            "{text}"
        );
    }
}

#[test]
fn what_is_not_needed_is_not_read() -> Result<(), ConfigError> {
    let (_folder, path) = profile(GOOD, "not JSON");
    let config = |sinks, recent| DuoAttentionConfig {
        profile: path.display().to_string(),
        sinks,
        recent,
        ..DuoAttentionConfig::default()
    };
    config(Some(4), Some(16)).bind(&MODEL, Budget::Full)?;
    assert!(config(Some(4), None).bind(&MODEL, Budget::Full).is_err());
    Ok(())
}

#[test]
fn sizes_come_from_the_user_then_the_profile_then_the_defaults() -> Result<(), ConfigError> {
    for (sizes, sinks, expected) in [
        (
            r#"{"sink_size": 128, "recent_size": 256, "lr": 0.02}"#,
            None,
            (128, 256),
        ),
        (
            r#"{"sink_size": 128, "recent_size": 512}"#,
            Some(4),
            (4, 512),
        ),
        (r#"{"recent_size": 512}"#, None, (64, 512)),
        ("", None, (64, 256)),
    ] {
        let (folder, _path) = profile(GOOD.replace('\n', "\r\n"), sizes);
        let config = DuoAttentionConfig {
            profile: folder.path().display().to_string(),
            sinks,
            ..DuoAttentionConfig::default()
        };
        let policy = config.bind(&MODEL, Budget::Full)?;
        assert_eq!((policy.sinks(), policy.recent()), expected);
        assert_eq!(
            policy.retrieval_heads(),
            [[true, true, false], [false, false, true]]
        );
    }
    Ok(())
}

#[test]
fn a_field_is_misspelt_or_of_the_wrong_type() {
    let misspelt = refusal(&json!({ "sparcity": 0.5 }), Budget::Full);
    assert!(
        misspelt.starts_with("policy duo-attention: unknown field `sparcity`")
            && misspelt.contains("`sparsity`"),
        "{misspelt}"
    );
    let selection = refusal(&json!({ "selection": "noise" }), Budget::Full);
    assert!(
        selection.contains("`noise`") && selection.contains("`quantile`"),
        "{selection}"
    );
}
