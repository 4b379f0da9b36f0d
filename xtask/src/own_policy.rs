//! The policy outside the workspace, `examples/own-policy`: its versions, its tests, and its program.
//!
//! Cargo tells packages by their place below the root of a workspace, so a crate outside this one compiles the engine once
//! more. The checks let it share the engine of the app that adopts Headroom, in whose workspace a copy of it is built.

use std::{env::consts::EXE_SUFFIX, fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{
    metadata::Metadata,
    process,
    tally::Tally,
    vendor::Entry,
    workspace::{Workspace, cannot_write, write_if_different},
};

/// For cargo: this crate.
pub(crate) const MANIFEST: [&str; 2] = ["--manifest-path", "examples/own-policy/Cargo.toml"];
const FOLDER: &str = "examples/own-policy";
const SOURCES: [&str; 2] = ["src/lib.rs", "src/main.rs"];
/// What `window = 48` keeps in the heads of even and of odd layers: four first tokens and one or two windows.
const KEPT: [usize; 2] = [4 + 2 * 48, 4 + 48];

/// Gives the crate the versions of the workspace, so that what lies below the engine is compiled once for both.
pub(crate) fn lock(workspace: &Workspace) -> Result<()> {
    let lock = |folder: &str| workspace.root().join(folder).join("Cargo.lock");
    let ours =
        fs::read_to_string(lock("")).context("cannot read Cargo.lock; restore it with git")?;
    write_if_different(&lock(FOLDER), &ours)?;
    Ok(())
}

/// Lints and tests the policy without the program, which needs no engine.
pub(crate) fn test(workspace: &Workspace) -> Result<Tally> {
    lock(workspace)?;
    let target = Metadata::of(workspace)?.target_directory;
    let cargo = |args: &[&str]| {
        let mut command = process::cargo(workspace);
        command.args(args).args(MANIFEST);
        command.args(["--release", "--no-default-features", "--target-dir"]);
        command.arg(&target);
        command
    };
    process::run(cargo(&["clippy", "--all-targets"]).args(["--", "-D", "warnings"]))?;
    let (tally, passed) = Tally::of_tests(&mut cargo(&["test"]))?;
    ensure!(
        passed,
        "{FOLDER} fails its tests; what they said stands above"
    );
    Ok(tally)
}

/// Puts a copy of the crate into the folder of an app, for whose workspace it is a [`member`].
pub(crate) fn copy(workspace: &Workspace, app: &Path) -> Result<()> {
    let from = workspace.root().join(FOLDER);
    let read = |file: &str| {
        fs::read_to_string(from.join(file))
            .with_context(|| format!("cannot read {FOLDER}/{file}; restore it with git"))
    };
    let to = app.join("own-policy");
    let manifest = as_member(&read("Cargo.toml")?, workspace.root());
    write_if_different(&to.join("Cargo.toml"), &manifest)?;
    for file in SOURCES {
        write_if_different(&to.join(file), &read(file)?)?;
    }
    Ok(())
}

/// The line that takes the copy into the app's workspace.
pub(crate) fn member() -> Entry {
    Entry {
        table: "workspace",
        line: "members = [\"own-policy\"] # for speed only".to_owned(),
    }
}

/// The manifest without what only a root may say, its paths those of the checkout.
fn as_member(manifest: &str, root: &Path) -> String {
    let root = root.to_string_lossy().replace('\\', "/");
    let (packages, _) = manifest.split_once("\n[profile.").unwrap_or((manifest, ""));
    packages
        .replace("\n[workspace]\n", "\n")
        .replace("\"../../", &format!("\"{root}/"))
        + "\n"
}

/// The part of a report that the policy decides.
#[derive(Debug, Deserialize)]
struct Report {
    policy: String,
    kept: Vec<Vec<usize>>,
}

/// Runs the program that was built into `target`: it lists the policy, and `run` keeps what the policy says.
pub(crate) fn runs(workspace: &Workspace, target: &Path, model: &Path) -> Result<()> {
    let program = target
        .join("release")
        .join(format!("own-policy{EXE_SUFFIX}"));
    let command = |args: &[&str]| {
        let mut command = process::without_us(&program);
        command.current_dir(workspace.root()).args(args);
        command
    };
    let listed = process::output(&mut command(&["policies"]))?;
    for policy in ["two-windows", "streaming-llm"] {
        ensure!(listed.contains(policy), "own-policy does not list {policy}");
    }
    let report = workspace.headroom().join("own-policy-report.json");
    remove(&report)?;
    let mut run = command(&["run", "--policy", "two-windows", "--set", "window=48"]);
    run.args(["--max-tokens", "24", "--ignore-eos"]);
    run.args(["--prompt-file", "docs/demo-prompt.txt", "--model"]);
    run.arg(model).arg("--report").arg(&report);
    println!("own-policy: {}", process::written(&run));
    process::run(&mut run)?;
    check_report(&fs::read_to_string(&report)?)
}

fn remove(path: &Path) -> Result<()> {
    if path.exists() {
        fs::remove_file(path).with_context(|| cannot_write(path))?;
    }
    Ok(())
}

/// Holds what every head kept against the policy.
fn check_report(text: &str) -> Result<()> {
    let report: Report =
        serde_json::from_str(text).with_context(|| format!("own-policy reports {text}"))?;
    ensure!(
        report.policy == "two-windows" && report.kept.len() > 1,
        "own-policy reports {text}"
    );
    for (layer, heads) in report.kept.iter().enumerate() {
        let wanted = KEPT[layer % 2];
        ensure!(
            !heads.is_empty() && heads.iter().all(|kept| *kept == wanted),
            "layer {layer} kept {heads:?} tokens, two-windows keeps {wanted} there"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_says_nothing_of_a_root_and_finds_the_checkout() {
        let workspace = Workspace::find().unwrap();
        let app = tempfile::tempdir().unwrap();
        copy(&workspace, app.path()).unwrap();
        let manifest = fs::read_to_string(app.path().join("own-policy/Cargo.toml")).unwrap();
        for root in ["[workspace]", "[profile", "\"../"] {
            assert!(!manifest.contains(root), "{root} in {manifest}");
        }
        let paths = manifest.split("path = \"").skip(1);
        let mut found = 0;
        for path in paths.filter_map(|rest| rest.split('"').next()) {
            assert!(Path::new(path).join("Cargo.toml").is_file(), "{path}");
            found += 1;
        }
        assert_eq!(found, 4, "{manifest}");
        assert!(
            manifest.contains("required-features = [\"program\"]"),
            "{manifest}"
        );
    }

    #[test]
    fn a_report_is_held_against_the_policy() {
        let report = |kept: &str| format!(r#"{{"policy":"two-windows","kept":{kept},"text":""}}"#);
        check_report(&report("[[100,100],[52,52],[100,100]]")).unwrap();
        for wrong in [
            "[[100,100],[52,51]]",
            "[[52],[100]]",
            "[[100]]",
            "[[],[]]",
            "[]",
        ] {
            assert!(check_report(&report(wrong)).is_err(), "{wrong}");
        }
        let other = report("[[100],[52]]").replace("two-windows", "h2o");
        assert!(check_report(&other).is_err());
    }
}
