//! Broken files are refused by name, and never a panic.
mod common;

use std::{fs, path::Path};

use kv_conform::{ConformError, Report};
use tempfile::TempDir;

use common::{registry, testdata};

fn run(cases: &Path, arrays: &Path) -> Result<Report, ConformError> {
    kv_conform::run(&registry(), cases, arrays)
}

/// What is said about a file in `folder` with this text.
fn refused(text: &str) -> String {
    let folder = TempDir::new().expect("a folder");
    let cases = folder.path().join("case.json");
    fs::write(&cases, text).expect("written");
    let (_, arrays) = testdata("synth_d16_t96");
    let error = run(&cases, &arrays).expect_err("an error").to_string();
    error.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn cases_that_are_none() {
    assert_eq!(
        refused("{}"),
        "case.json: missing field `cases` at line 1 column 2"
    );
    assert_eq!(
        refused(r#"{"cases": [{"id": 3}]}"#),
        "case.json: missing field `method` at line 1 column 20"
    );
    assert!(refused("{\"cases\": [").starts_with("case.json: EOF while parsing"));
    assert!(refused("\u{0}").starts_with("case.json: expected value"));
}

#[test]
fn files_that_are_missing() {
    let (cases, arrays) = testdata("synth_d16_t96");
    let missing = cases.with_file_name("missing");
    for error in [run(&missing, &arrays), run(&cases, &missing)] {
        let error = error.expect_err("an error").to_string();
        assert!(
            error.starts_with(&format!("{}: ", missing.display())),
            "{error}"
        );
    }
    let error = run(&cases, &cases).expect_err("an error").to_string();
    assert!(
        error.contains("synth_d16_t96.json: is no whole zip archive"),
        "{error}"
    );
}

#[test]
fn archives_that_are_cut_off() {
    let (cases, arrays) = testdata("synth_d16_t96");
    let whole = fs::read(arrays).expect("arrays");
    let folder = TempDir::new().expect("a folder");
    let cut = folder.path().join("cut.npz");
    for len in [
        0,
        1,
        21,
        22,
        100,
        whole.len() / 2,
        whole.len() - 30,
        whole.len() - 1,
    ] {
        fs::write(&cut, &whole[..len]).expect("written");
        let error = run(&cases, &cut).expect_err("an error").to_string();
        let expected = "is no whole zip archive: the directory at its end is missing or broken";
        assert_eq!(
            error,
            format!("{}: {expected}", cut.display()),
            "{len} bytes"
        );
    }
    // The directory is there, what it lists is not.
    fs::write(&cut, &whole[whole.len() / 2..]).expect("written");
    assert!(run(&cases, &cut).is_err());
}

/// Wherever a byte is broken, there is an error or the same report: sums are checked.
#[test]
fn archives_with_a_broken_byte() {
    let (cases, arrays) = testdata("synth_d16_t96");
    let whole = fs::read(arrays).expect("arrays");
    let folder = TempDir::new().expect("a folder");
    // A few cases, so that many bytes can be tried.
    let text = fs::read_to_string(cases).expect("cases");
    let few: Vec<&str> = text
        .lines()
        .skip(1)
        .filter(|line| line.contains("streaming_llm("))
        .collect();
    let few = format!("{{\"cases\": [{}]}}", few.join("").trim_end_matches(','));
    let paths = ["case.json", "broken.npz"].map(|name| folder.path().join(name));
    fs::write(&paths[0], few).expect("written");
    fs::write(&paths[1], &whole).expect("written");
    let sound = run(&paths[0], &paths[1]).expect("a report");
    assert_eq!((sound.passed(), sound.failed()), (4, 0), "{sound}");
    let near_the_end = (whole.len() - 400..whole.len()).step_by(3);
    let mut errors = 0;
    for at in (0..whole.len()).step_by(9973).chain(near_the_end) {
        let mut broken = whole.clone();
        broken[at] ^= 0x5a;
        fs::write(&paths[1], broken).expect("written");
        match run(&paths[0], &paths[1]) {
            Ok(report) => assert_eq!(report, sound, "byte {at}"),
            Err(error) => {
                errors += 1;
                assert!(error.to_string().contains("broken.npz: "), "{error}");
            }
        }
    }
    assert!(errors > 10, "only {errors} errors");
}
