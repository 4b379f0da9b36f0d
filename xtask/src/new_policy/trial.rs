//! A policy made in a copy of the checkout, to know that the command still works.

use std::{fs, process::Command};

use anyhow::{Result, ensure};

use super::{make, places};
use crate::{
    metadata::Metadata,
    process,
    scratch::{copy_tree, scratch},
    tally::Tally,
    workspace::{Workspace, write_if_different},
};

/// Longer than the names that the shared lines were written with, so that lines break elsewhere.
const NAME: &str = "made-in-an-afternoon";

/// Makes a policy in a copy of the checkout, formats, lints and tests it there; its tests are counted.
pub(crate) fn trial(workspace: &Workspace) -> Result<Tally> {
    let copy = copy(workspace)?;
    make(&copy, NAME)?;
    let missing = places::missing(&copy)?;
    ensure!(
        missing.is_empty(),
        "a new policy lacks\n  {}",
        missing.join("\n  ")
    );
    let package = format!("kv-policy-{NAME}");
    // Its own, or cargo would take crates of the copy for newer ones of the checkout.
    let target = Metadata::of(workspace)?.target_directory.join("new-policy");
    let cargo = |args: &[&str]| -> Command {
        let mut command = process::cargo(&copy);
        command.args(args);
        command
    };
    process::run(&mut cargo(&["fmt", "--check", "-p", &package]))?;
    let selection = ["--release", "-p", &package];
    let mut clippy = cargo(&[&["clippy", "--all-targets"], &selection[..]].concat());
    clippy.arg("--target-dir").arg(&target);
    process::run(clippy.args(["--", "-D", "warnings"]))?;
    let mut tests = cargo(&[&["test"], &selection[..]].concat());
    let (tally, passed) = Tally::of_tests(tests.arg("--target-dir").arg(&target))?;
    ensure!(
        passed && tally.passed > 0,
        "a new policy fails its tests; it lies in {}",
        copy.root().join(places::POLICIES).join(NAME).display()
    );
    Ok(tally)
}

/// The checkout in a folder outside, which stands there for the next time.
fn copy(workspace: &Workspace) -> Result<Workspace> {
    let to = scratch(workspace, "new-policy")?;
    // What was made the last time, and what is gone in the checkout.
    for old in [places::POLICIES, "docs"] {
        if to.join(old).exists() {
            fs::remove_dir_all(to.join(old))?;
        }
    }
    copy_tree(workspace.root(), &to)?;
    // With the patched engine, if there is one, the lock file means the same as in the checkout.
    for entry in fs::read_dir(workspace.headroom())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let to = to.join(".headroom").join(&name);
        if name.starts_with("mistralrs-core-") {
            copy_tree(&entry.path(), &to)?;
        } else if name == "patched-engine.toml" {
            write_if_different(&to, &fs::read(entry.path())?)?;
        }
    }
    Ok(Workspace::at(&to))
}
