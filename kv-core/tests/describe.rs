//! What users read of a configuration, for a terminal and for a page, of fields of every kind.
use std::{collections::BTreeMap, path::PathBuf};

use kv_core::{
    Budget, ConfigError, Description, Geometry, KeepAll, KeepAllConfig, PolicyConfig, Reduce,
    Registry, schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Says nothing of its variants.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(crate = "kv_core::schemars")]
enum Bare {
    OneWay,
    Another,
}

/// Whether it counts, and how far.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "kv_core::schemars")]
struct Inner {
    far: u8,
    deep: Option<Box<Inner>>,
}

/// A table of its own, or a word.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(crate = "kv_core::schemars")]
enum Every {
    /// Never.
    Never,
    /// So many.
    Steps(usize),
}

/// Its fields are in no order that sorting would make.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
struct Zoo {
    /// Tokens per KV head,
    /// on two lines.
    ///
    /// And in another paragraph.
    zebra: usize,
    /// A share | of what is there.
    #[schemars(range(min = 0.0, max = 1.0))]
    ape: Option<f64>,
    /// Below zero too.
    cold: i64,
    #[schemars(range(max = 8))]
    undocumented: i32,
    /// A switch.
    is_fed: bool,
    /// A text.
    word: String,
    /// A file.
    #[schemars(extend("format" = "path"))]
    file: Option<PathBuf>,
    /// How.
    group: Reduce,
    /// How, if at all; set it to `group = "mean"`, or as the scripts of some authors have it, `group = "max"`.
    maybe: Option<Reduce>,
    /// Which way.
    bare: Option<Bare>,
    /// When.
    every: Every,
    /// Several.
    several: Vec<Reduce>,
    /// A pair.
    pair: (u8, String),
    /// Nested.
    inner: Inner,
    /// By name.
    by_name: BTreeMap<String, f64>,
    /// Whatever it is.
    whatever: Value,
    /// Not written where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    absent: Option<usize>,
}

impl Default for Zoo {
    fn default() -> Self {
        Self {
            zebra: 3,
            ape: None,
            cold: -1,
            undocumented: 7,
            is_fed: true,
            word: "a|b".into(),
            file: None,
            group: Reduce::Max,
            maybe: None,
            bare: None,
            every: Every::Steps(4),
            several: vec![Reduce::Mean],
            pair: (1, "one".into()),
            inner: Inner::default(),
            by_name: BTreeMap::new(),
            whatever: Value::Null,
            absent: None,
        }
    }
}

impl PolicyConfig for Zoo {
    const NAME: &'static str = "zoo";
    const SUMMARY: &'static str = "a field of every kind";
    type Policy = KeepAll;

    fn bind(self, _: &Geometry, _: Budget) -> Result<KeepAll, ConfigError> {
        Ok(KeepAll)
    }
}

#[test]
fn every_field_is_described_in_the_order_of_the_struct() {
    let fields = Description::of::<Zoo>().fields;
    let found: Vec<(&str, &str, bool, String)> = fields
        .iter()
        .map(|field| {
            let default = field.default.to_string();
            (&*field.name, &*field.kind, field.is_optional, default)
        })
        .collect();
    let reduce = r#"one of "mean", "sum", "max""#;
    let expected = [
        ("zebra", "integer from 0", false, "3"),
        ("ape", "number from 0 to 1", true, "null"),
        ("cold", "integer", false, "-1"),
        ("undocumented", "integer up to 8", false, "7"),
        ("is_fed", "true or false", false, "true"),
        ("word", "text", false, r#""a|b""#),
        ("file", "path", true, "null"),
        ("group", reduce, false, r#""max""#),
        ("maybe", reduce, true, "null"),
        ("bare", r#"one of "one-way", "another""#, true, "null"),
        (
            "every",
            r#""never" or table with steps"#,
            false,
            r#"{"steps":4}"#,
        ),
        (
            "several",
            r#"list of one of "mean", "sum", "max""#,
            false,
            r#"["mean"]"#,
        ),
        (
            "pair",
            "list of integer from 0 to 255, text",
            false,
            r#"[1,"one"]"#,
        ),
        (
            "inner",
            "table with deep, far",
            false,
            &json!(Inner::default()).to_string(),
        ),
        ("by_name", "table of number", false, "{}"),
        ("whatever", "value", false, "null"),
        ("absent", "integer from 0", true, "null"),
    ]
    .map(|(name, kind, is_optional, default)| (name, kind, is_optional, default.to_owned()));
    assert_eq!(found, expected);
}

#[test]
fn a_doc_comment_is_one_paragraph_and_never_the_one_of_the_type() {
    let fields = Description::of::<Zoo>().fields;
    let doc = |name: &str| {
        let mut named = fields.iter().filter(|field| field.name == name);
        named.next().expect("the field").doc.clone()
    };
    assert_eq!(
        doc("zebra"),
        "Tokens per KV head, on two lines. And in another paragraph."
    );
    assert_eq!(doc("group"), "How.");
    assert_eq!(doc("inner"), "Nested.");
    assert_eq!(doc("undocumented"), "");
}

#[test]
fn choices_are_explained_where_their_type_does() {
    let fields = Description::of::<Zoo>().fields;
    let choices = |name: &str| -> Vec<(String, String)> {
        let field = fields.iter().find(|field| field.name == name);
        let choices = field.expect("the field").choices.iter();
        choices
            .map(|choice| (choice.value.to_string(), choice.doc.clone()))
            .collect()
    };
    let text = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|&(a, b)| (a.to_owned(), b.to_owned()))
            .collect()
    };
    let reduce = text(&[
        (r#""mean""#, "Their mean."),
        (r#""sum""#, "Their sum."),
        (r#""max""#, "The largest."),
    ]);
    assert_eq!(choices("group"), reduce);
    assert_eq!(choices("maybe"), reduce);
    assert_eq!(
        choices("bare"),
        text(&[(r#""one-way""#, ""), (r#""another""#, "")])
    );
    assert_eq!(choices("every"), text(&[(r#""never""#, "Never.")]));
    assert_eq!(choices("zebra"), []);
}

#[test]
fn a_terminal_shows_what_to_set() {
    let text = Description::of::<Zoo>().to_string();
    for part in [
        "zoo\n    a field of every kind\n    --set zebra=3 (integer from 0)\n        Tokens per KV head, on two",
        "    --set ape=... (number from 0 to 1; none by default)\n        A share | of what is there.\n",
        "    --set undocumented=7 (integer up to 8)\n    --set is_fed=true (true or false)\n        A switch.\n",
        "    --set group=\"max\" (one of \"mean\", \"sum\", \"max\")\n        How.\n        \"mean\": Their mean.\n",
        "        How, if at all; set it to `group = \"mean\"`, or as the scripts of some authors have it,\n        `group = \"max\"`.\n",
        "    --set bare=... (one of \"one-way\", \"another\"; none by default)\n        Which way.\n    --set every",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert!(!text.ends_with('\n'));
    let longest = text.lines().map(|line| line.chars().count()).max();
    assert!(longest <= Some(100), "{longest:?} columns in {text}");
    let keep_all = Description::of::<KeepAllConfig>().to_string();
    assert_eq!(
        keep_all,
        "keep-all\n    keeps every token; what other policies are compared with"
    );
}

#[test]
fn a_page_has_a_row_for_each_field() {
    let page = Description::of::<Zoo>().markdown();
    let head = "## zoo\n\na field of every kind\n\n| field | kind | default | what it is |\n|---|---|---|---|\n";
    assert!(page.starts_with(head), "{page}");
    for row in [
        "| `ape` | number from 0 to 1, optional | none | A share \\| of what is there. |",
        "| `word` | text | `\"a\\|b\"` | A text. |",
        "| `group` | one of \"mean\", \"sum\", \"max\" | `\"max\"` | How.<br>`\"mean\"`: Their mean.<br>`\"sum\"`: Their sum.<br>`\"max\"`: The largest. |",
    ] {
        assert!(page.lines().any(|line| line == row), "{row:?} in {page}");
    }
    for row in page.lines().skip(4) {
        let bars = row.matches('|').count() - row.matches("\\|").count();
        assert_eq!(bars, 5, "four cells in {row}");
    }
    assert_eq!(page.lines().count(), 4 + 2 + 17);
    let nothing = Description::of::<KeepAllConfig>().markdown();
    assert!(
        nothing.ends_with("\n\nThere is nothing to set.\n"),
        "{nothing}"
    );
}

#[test]
fn a_registry_describes_its_policies_by_name() {
    let mut registry = Registry::default();
    registry.add::<Zoo>().add::<KeepAllConfig>();
    let found: Vec<Description> = registry.describe().collect();
    assert_eq!(
        found,
        [Description::of::<KeepAllConfig>(), Description::of::<Zoo>()]
    );
}
