//! Programs that are no policies, or none for this host: refused with a reason, and soon.
use std::{path::PathBuf, time::Instant};

use kv_core::{Budget, Registry};
use kv_loader::{LoadError, load, load_within};
use serde_json::json;

use crate::{
    programs::{liar, program},
    reader::ReaderConfig,
    wrong::{GEOMETRY, SHORT},
};

#[test]
fn a_program_that_is_no_policy_is_refused_by_name() {
    let cases = [
        ("silent", "it gave no answer within 2s"),
        ("quits", "it ended without an answer (exit status: 3)"),
        (
            "prints",
            "it wrote `hello, world\u{fffd}` to its standard output",
        ),
        ("cut", "it ended without an answer (exit status: 0)"),
        (
            "huge",
            "it wrote an answer of 1099511627776 bytes (at most 1073741824 are read) to",
        ),
        (
            "long",
            "it wrote an answer of 4294967295 bytes (at most 268435456 are read) to",
        ),
        (
            "echo",
            "it wrote `{\"hello\":{\"protocol\":1,\"abi\":2}}` (missing field `name`",
        ),
        ("noise", "it wrote `[1, 2` (EOF while parsing a list"),
        (
            "nameless",
            "it answered another question, with `{\"rooms\":",
        ),
    ];
    for (name, what) in cases {
        let started = Instant::now();
        let error = load_within(liar(name), SHORT).expect_err(name).to_string();
        assert!(
            error.contains(&format!("/{name} is no policy: asked for its name, {what}")),
            "{error}"
        );
        assert!(
            started.elapsed() < 4 * SHORT,
            "{name} took {:?}",
            started.elapsed()
        );
    }
}

#[test]
fn another_version_is_refused_by_its_numbers() {
    for (name, theirs) in [("older", (0, 9)), ("newer", (1, 3))] {
        let error = load(liar(name)).expect_err(name);
        let LoadError::Version {
            theirs: found,
            ours,
            ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!((*found, *ours), (theirs, (1, 2)));
        let (protocol, abi) = theirs;
        let words = format!(
            "/{name} speaks protocol {protocol} with ABI {abi}, this program speaks protocol 1 with ABI 2"
        );
        assert!(error.to_string().contains(&words), "{error}");
    }
}

#[test]
fn a_name_that_is_none_is_refused() {
    for (name, words) in [
        (
            "misnamed",
            "its `name` is `My Policy`, must be in kebab case, such as `my-policy`",
        ),
        (
            "wordy",
            "its `summary` is `one\u{fffd}two`, must be one line of text",
        ),
    ] {
        let error = load(liar(name)).expect_err(name).to_string();
        assert!(error.ends_with(words), "{error}");
    }
}

#[test]
fn what_cannot_be_started_is_refused() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    for (path, words) in [
        (folder.join("no-such-policy"), "No such file"),
        (folder.clone(), "it is a folder"),
        (folder.join("Cargo.toml"), "ermission denied"),
        // Not looked up among the system's programs.
        (PathBuf::from("cargo"), "No such file"),
    ] {
        let error = load(&path).expect_err("is no program");
        assert!(matches!(error, LoadError::Start { .. }), "{error}");
        let error = error.to_string();
        let start = format!("the policy {} cannot be started: ", path.display());
        assert!(
            error.starts_with(&start) && error.contains(words),
            "{error}"
        );
    }
}

#[test]
fn a_name_that_is_taken_or_was_not_asked_for_is_refused() {
    let loaded = load(program("reader")).expect("a good program");
    let loaded = loaded.called("reader").expect("its name");
    let error = loaded
        .clone()
        .called("writer")
        .expect_err("another name")
        .to_string();
    assert!(
        error.ends_with("says that its `name` is `reader`, must be `writer`, as asked for"),
        "{error}"
    );
    let mut registry = Registry::default();
    registry.add::<ReaderConfig>();
    let error = loaded
        .register(&mut registry)
        .expect_err("it is there")
        .to_string();
    assert!(
        error.ends_with("`name` is `reader`, must be one that no other policy of this program has"),
        "{error}"
    );
}

#[test]
fn what_the_policy_under_another_refuses_is_told_in_its_words() {
    let outer = load(program("outer")).expect("a good program");
    for (over, words) in [
        (
            "keep-all",
            "policy outer: `over` is `keep-all`, must be a policy that ranks a prompt's tokens by a score",
        ),
        (
            "nobody",
            "policy outer: no policy is called `nobody`; known are keep-all, outer, prober",
        ),
    ] {
        let bound = outer.bind(json!({ "over": over }), &GEOMETRY, Budget::Full);
        assert_eq!(bound.expect_err(over).to_string(), words);
    }
    let under = json!({"over": {"policy": "prober", "late": 1}});
    let error = outer
        .bind(under, &GEOMETRY, Budget::Full)
        .expect_err("no such field");
    assert_eq!(
        error.to_string(),
        "policy outer: policy prober: unknown field `late`, expected one of `parts`"
    );
}
