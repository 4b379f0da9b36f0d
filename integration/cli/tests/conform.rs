//! `mistralrs-kv conform` from the outside: lines, the last line, exit codes.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../conform/testdata")
        .join(name)
}

fn conform(cases: &Path, arrays: &Path) -> (Option<i32>, String, String) {
    let run: Output = Command::new(env!("CARGO_BIN_EXE_mistralrs-kv"))
        .arg("conform")
        .args([cases, arrays])
        .output()
        .expect("the program runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (run.status.code(), text(&run.stdout), text(&run.stderr))
}

#[test]
fn the_policies_of_this_build_keep_what_the_references_keep() {
    for (name, last) in [
        ("synth_d16_t96", "120 passed, 0 failed, 78 skipped"),
        ("synth_d32_t160", "133 passed, 0 failed, 65 skipped"),
    ] {
        let (cases, arrays) = (
            testdata(&format!("{name}.json")),
            testdata(&format!("{name}.npz")),
        );
        let (code, lines, errors) = conform(&cases, &arrays);
        assert_eq!(code, Some(0), "{errors}{lines}");
        assert_eq!(lines.lines().last(), Some(last), "{lines}");
    }
}

/// One sink more than the reference had is another method.
#[test]
fn a_case_that_differs_is_named_and_fails_the_run() {
    let text = fs::read_to_string(testdata("synth_d16_t96.json")).expect("cases");
    let folder = tempfile::tempdir().expect("a folder");
    let cases = folder.path().join("cases.json");
    fs::write(
        &cases,
        text.replace("streaming_llm(n_sink=4)", "streaming_llm(n_sink=5)"),
    )
    .expect("writes");
    let (code, lines, errors) = conform(&cases, &testdata("synth_d16_t96.npz"));
    assert_eq!(code, Some(1), "{errors}{lines}");
    let differs = lines.lines().filter(|line| line.starts_with("differs"));
    assert_eq!(differs.count(), 4, "{lines}");
    assert!(
        lines.ends_with("116 passed, 4 failed, 78 skipped\n"),
        "{lines}"
    );
}

#[test]
fn a_file_that_is_missing_is_named() {
    let (code, _, errors) = conform(Path::new("nowhere.json"), Path::new("nowhere.npz"));
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("nowhere.json"), "{errors}");
}
