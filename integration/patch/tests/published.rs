//! The list of edits against copies of the published files' anchors, and against the published crate itself where
//! cargo has downloaded it.
use std::{
    fs,
    path::{Path, PathBuf},
};

use kv_patch::{Patch, PatchError};

#[test]
fn every_edit_has_a_name_of_its_own_and_a_reason() {
    let patch = Patch::load().expect("the built-in list parses");
    let names = patch.edits().iter().map(|e| (&e.id, &e.reason));
    let all: Vec<_> = names
        .chain(patch.writes().iter().map(|w| (&w.id, &w.reason)))
        .collect();
    for (i, (id, reason)) in all.iter().enumerate() {
        assert!(
            all[..i].iter().all(|(other, _)| other != id),
            "two edits are called `{id}`"
        );
        assert!(
            reason.len() > 10 || reason.starts_with("as ") || reason.starts_with("see "),
            "`{id}` has no reason"
        );
    }
}

/// The published crate in cargo's registry folder, if it has been downloaded.
fn published() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))?;
    fs::read_dir(home.join("registry/src"))
        .ok()?
        .flatten()
        .map(|e| e.path().join("mistralrs-core-0.8.1"))
        .find(|p| p.is_dir())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("creates a folder");
    for entry in fs::read_dir(from).expect("lists a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies a file");
        }
    }
}

const HOOK: &str = r#"{ path = "../hook" }"#;

#[test]
fn patches_the_published_crate_once_and_then_leaves_it_alone() {
    let Some(pristine) = published() else { return };
    let folder = tempfile::tempdir().expect("makes a folder");
    let patch = Patch::load().expect("the built-in list parses");
    let first = patch
        .apply(&pristine, folder.path(), HOOK)
        .expect("applies");
    assert!(first.changed);
    let manifest = fs::read_to_string(folder.path().join("Cargo.toml")).expect("reads");
    assert!(manifest.contains(HOOK), "the manifest names the hook crate");
    let second = patch
        .apply(&pristine, folder.path(), HOOK)
        .expect("applies again");
    assert!(!second.changed, "{second}");

    fs::write(folder.path().join("src/lib.rs"), "// damaged").expect("writes");
    fs::write(folder.path().join("src/stray.rs"), "").expect("writes");
    let third = patch
        .apply(&pristine, folder.path(), HOOK)
        .expect("repairs");
    assert_eq!(third.written, 2, "one file repaired, one removed");
}

#[test]
fn refuses_a_changed_file_another_release_and_a_missing_file_by_name() {
    let Some(pristine) = published() else { return };
    let folder = tempfile::tempdir().expect("makes a folder");
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    copy(&pristine, &source);
    let patch = Patch::load().expect("the built-in list parses");
    let scheduler = source.join("src/paged_attention/scheduler.rs");
    let text = fs::read_to_string(&scheduler).expect("reads");

    fs::write(
        &scheduler,
        text.replace("WAITING_TIMEOUT: usize = 64", "WAITING_TIMEOUT: usize = 65"),
    )
    .expect("writes");
    let error = patch
        .apply(&source, &target, HOOK)
        .expect_err("the file has changed");
    assert!(
        matches!(&error, PatchError::Checksum { file, edit, .. } if file.ends_with("scheduler.rs") && !edit.is_empty()),
        "{error}"
    );

    fs::remove_file(&scheduler).expect("removes");
    let error = patch
        .apply(&source, &target, HOOK)
        .expect_err("the file is missing");
    assert!(
        matches!(&error, PatchError::Io { path, .. } if path.ends_with("scheduler.rs")),
        "{error}"
    );

    let manifest = source.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)
        .expect("reads")
        .replace("version = \"0.8.1\"", "version = \"0.8.2\"");
    fs::write(&manifest, text).expect("writes");
    let error = patch
        .apply(&source, &target, HOOK)
        .expect_err("another release");
    assert!(matches!(error, PatchError::WrongEngine { .. }), "{error}");
    assert!(
        !target.exists(),
        "nothing is written when anything is wrong"
    );
}
