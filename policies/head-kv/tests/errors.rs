//! What a user can get wrong, and what the error says.
use std::{fmt::Write, fs};

use kv_core::{Budget, Geometry, PolicyConfig, Registry, conformance};
use kv_policy_head_kv::HeadKvConfig;
use serde_json::{Value, json};

/// Two layers of one KV head and two query heads.
const MODEL: Geometry = conformance::geometry(1);

/// The error for a configuration as a user writes it.
fn refusal(config: &Value, budget: Budget) -> String {
    let mut registry = Registry::default();
    registry.add::<HeadKvConfig>();
    let fields = config.as_object().expect("a table").clone();
    let built = registry.build("head-kv", fields, &MODEL, budget);
    built.expect_err("is refused").to_string()
}

/// The error for a profile, after the file's name.
fn profile_refusal(text: impl AsRef<[u8]>) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scores.json");
    fs::write(&path, text).expect("written");
    let text = refusal(&json!({ "profile": path }), Budget::Full);
    let start = format!("policy head-kv: `profile` {}", path.display());
    text.strip_prefix(&start)
        .unwrap_or_else(|| panic!("{text}"))
        .to_owned()
}

/// A profile whose key `1-0` holds something else.
fn with_entry(entry: &str) -> String {
    format!(r#"{{"0-0": [0.5, 1], "0-1": 0.25, "1-0": {entry}, "1-1": [0]}}"#)
}

#[test]
fn numbers_are_out_of_range() {
    for (config, expected) in [
        (
            json!({ "window": 65 }),
            "policy head-kv: `window` is 65, must be at most the 64 tokens that a head may hold",
        ),
        (
            json!({ "kernel": 6 }),
            "policy head-kv: `kernel` is 6, must be odd, from 1 (no pooling) to 4096",
        ),
        (
            json!({ "beta": 0.5 }),
            "policy head-kv: `beta` is 0.5, must be a number from 1: one part in beta of the budget is shared by importance",
        ),
        (
            json!({ "temp": 1e300 }),
            "policy head-kv: `temp` is 1e300, must be from 0 (all heads equal) to 16: an exponent",
        ),
        (
            json!({ "layers": "pyramid", "pyramid_beta": 0.5 }),
            "policy head-kv: `pyramid_beta` is 0.5, must be a number from 1 (no pyramid): the last layer gets \
             1/pyramid_beta of the average",
        ),
    ] {
        assert_eq!(refusal(&config, Budget::Tokens(64)), expected);
    }
    for config in [
        HeadKvConfig {
            beta: f64::NAN,
            ..HeadKvConfig::default()
        },
        HeadKvConfig {
            beta: f64::INFINITY,
            ..HeadKvConfig::default()
        },
        HeadKvConfig {
            temp: f64::NAN,
            ..HeadKvConfig::default()
        },
    ] {
        assert!(config.bind(&MODEL, Budget::Full).is_err());
    }
}

#[test]
fn fields_do_not_go_together() {
    for (config, expected) in [
        (
            json!({ "pyramid_beta": 20 }),
            "policy head-kv: `pyramid_beta` is 20, must be left out unless `layers` is pyramid",
        ),
        (
            json!({ "layers": "pyramid", "rounding": "authors" }),
            "policy head-kv: `layers` is pyramid, must be uniform where `rounding` is authors: their budgets are over all \
             layers",
        ),
        (
            json!({ "head_group": "max", "rounding": "authors" }),
            "policy head-kv: `head_group` is max, must be mean where `rounding` is authors: query heads are rounded first",
        ),
    ] {
        assert_eq!(refusal(&config, Budget::Tokens(64)), expected);
    }
}

#[test]
fn the_budget_is_less_than_the_window() {
    assert_eq!(
        refusal(&json!({}), Budget::Tokens(7)),
        "policy head-kv: `window` is 8, must be at most the 7 tokens that a head may hold"
    );
}

#[test]
fn there_is_no_profile() {
    assert_eq!(
        refusal(&json!({ "profile": "neutral" }), Budget::Full),
        "policy head-kv: `profile` neutral: found no such file, expected `neutral-equal` or a JSON file of head scores"
    );
    let folder = tempfile::tempdir().expect("a folder");
    let text = refusal(&json!({ "profile": folder.path() }), Budget::Full);
    assert!(text.contains(": found something that is no file"), "{text}");
}

#[test]
fn the_file_is_no_json() {
    for (text, place) in [
        (String::new(), ", line 1, column 0: "),
        (r#"{"0-0": [0.5, 0."#.to_owned(), ", line 1, column 16: "),
        (
            "{\"0-0\": [0.5],\n \"0-1\": NaN}".to_owned(),
            ", line 2, column 9: ",
        ),
        (with_entry("1e999"), ", line 1, column 43: "),
        ("[1, 2]".to_owned(), ", line 1, column 0: "),
        (with_entry("1") + "{}", ", line 1, column 53: "),
    ] {
        let refusal = profile_refusal(&text);
        assert!(
            refusal.starts_with(place)
                && refusal
                    .ends_with(", expected a JSON object with a list of scores for each head"),
            "{text}: {refusal}"
        );
    }
    assert_eq!(
        profile_refusal([b'{', 0xff]),
        ", byte 1: found bytes that are not UTF-8, expected text"
    );
}

#[test]
fn the_file_is_huge() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scores.json");
    let file = fs::File::create(&path).expect("made");
    file.set_len(1 << 40).expect("a hole");
    let text = refusal(&json!({ "profile": path }), Budget::Full);
    assert!(
        text.ends_with(": found 1099511627776 bytes or more, expected at most 67108864"),
        "{text}"
    );
}

#[test]
fn a_head_has_no_scores() {
    for (entry, found) in [
        ("[]", "an empty list"),
        ("[0.5, -0.25]", "-0.25"),
        ("-1", "-1"),
        ("[1e101]", "1e101"),
        ("null", "null"),
        ("[true]", "true"),
        (r#""high""#, "the text `high`"),
        (r#"{"score": [1]}"#, "an object"),
        ("[[1], 2]", "a list in a list"),
    ] {
        assert_eq!(
            profile_refusal(with_entry(entry)),
            format!(", key `1-0`: found {found}, expected a list of scores from 0")
        );
    }
}

#[test]
fn the_heads_are_not_the_models() {
    assert_eq!(
        profile_refusal(r#"{"0-0": [1], "0-1": [1], "1-1": [1]}"#),
        ", key `1-0`: found nothing, expected scores of every head: 2 layers of 2 query heads"
    );
    for key in [
        "2-0",
        "0-2",
        "1-00",
        "+1-0",
        "layer 1",
        "1",
        "1-0-0",
        "",
        "99999999999999999999-0",
    ] {
        let mut text = with_entry("1");
        text.pop();
        write!(text, r#", "{key}": [1]}}"#).expect("text");
        assert_eq!(
            profile_refusal(text),
            format!(
                ", key `{key}`: found no head of this model, expected \"layer-head\" with 2 layers of 2 query heads, \
                 counted from 0"
            )
        );
    }
    assert_eq!(
        profile_refusal(r#"{"0-0": [1], "0-1": [1], "0-0": [2]}"#),
        ", key `0-0`: found the key twice, expected it once"
    );
}

#[test]
fn a_field_is_misspelt_or_of_the_wrong_type() {
    let misspelt = refusal(&json!({ "betta": 1.5 }), Budget::Full);
    assert!(
        misspelt.starts_with("policy head-kv: unknown field `betta`")
            && misspelt.contains("`beta`"),
        "{misspelt}"
    );
    let rounding = refusal(&json!({ "rounding": "up" }), Budget::Full);
    assert!(
        rounding.contains("`up`") && rounding.contains("`authors`"),
        "{rounding}"
    );
}
