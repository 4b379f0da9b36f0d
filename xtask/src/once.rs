//! Holds that cargo compiles the engine once.
//!
//! Cargo compiles a package again for every set of features it is wanted with, and the engine with it. What is built for
//! tests also counts development dependencies, so one of them can ask a package deep below the engine for one more
//! feature than the command line does; tests and demo then each compile the engine for themselves.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Result, bail};
use kv_patch::ENGINE_PACKAGE;

use crate::{process, workspace::Workspace};

/// What the tests are built with.
const TESTS: [&str; 3] = ["--workspace", "--edges", "normal,build,dev"];
/// What else is built, for a reader and for `cargo tree`: the workspace, the command line, the engine's user alone.
///
/// The last one with its development dependencies: it is built for its tests only, and one of them asks for what the
/// server asks for.
const OTHERS: [(&str, &[&str]); 3] = [
    ("the workspace", &["--workspace", "--edges", "normal,build"]),
    (
        "mistralrs-kv-cli",
        &["-p", "mistralrs-kv-cli", "--edges", "normal,build"],
    ),
    (
        "tests of mistralrs-kv without features",
        &[
            "-p",
            "mistralrs-kv",
            "--edges",
            "normal,build,dev",
            "--no-default-features",
        ],
    ),
];

/// Fails and names the packages that the engine needs and that tests build with other features than the rest.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let below = tree(
        workspace,
        workspace.root(),
        &["-p", ENGINE_PACKAGE, "--edges", "normal,build"],
    )?;
    let tests = of_tests(workspace)?;
    for (what, selection) in OTHERS {
        let differ = different(
            &below,
            &tests,
            &tree(workspace, workspace.root(), selection)?,
        );
        if !differ.is_empty() {
            bail!(
                "the engine would be compiled twice: tests want more features than {what} does of\n  {}\n\
                 `cargo tree --workspace -e features,normal,build,dev -i PACKAGE` shows who asks for them; make that \
                 development dependency ask for less, or let a normal dependency of mistralrs-kv ask for as much",
                differ.join("\n  "),
            );
        }
    }
    Ok(())
}

/// What the tests are built from.
pub(crate) fn of_tests(workspace: &Workspace) -> Result<BTreeSet<String>> {
    tree(workspace, workspace.root(), &TESTS)
}

/// Package, version and features, one line each, of what is built in `folder`.
pub(crate) fn tree(
    workspace: &Workspace,
    folder: &Path,
    selection: &[&str],
) -> Result<BTreeSet<String>> {
    let mut command = process::cargo(workspace);
    command
        .current_dir(folder)
        .args([
            "tree",
            "--prefix",
            "none",
            "--no-dedupe",
            "--format",
            "{p} {f}",
        ])
        .args(selection);
    Ok(process::output(&mut command)?
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect())
}

/// What stands in `other` but not in `tests`, of the packages that stand in `below`.
fn different(
    below: &BTreeSet<String>,
    tests: &BTreeSet<String>,
    other: &BTreeSet<String>,
) -> Vec<String> {
    let name_and_version = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let below: BTreeSet<String> = below.iter().map(|line| name_and_version(line)).collect();
    other
        .difference(tests)
        .filter(|line| below.contains(&name_and_version(line)))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_engine_needs_is_compared() {
        let set = |lines: &[&str]| {
            lines
                .iter()
                .map(|line| (*line).to_owned())
                .collect::<BTreeSet<_>>()
        };
        let below = set(&["rand v0.9.5 std", "rustix v1.1.6 std"]);
        let tests = set(&[
            "rand v0.9.5 std",
            "rustix v1.1.6 fs,std",
            "tempfile v3.0.0 default",
        ]);
        let other = set(&["rand v0.9.5 std", "rustix v1.1.6 std", "tempfile v3.0.0 "]);
        assert_eq!(different(&below, &tests, &other), ["rustix v1.1.6 std"]);
        assert_eq!(different(&below, &tests, &tests), [""; 0]);
    }
}
