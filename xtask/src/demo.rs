//! The demo: one long prompt under a small budget, and what that saved.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    metadata::Metadata,
    model::{Choice, DtypeArg},
    process, setup,
    workspace::Workspace,
};

const PACKAGE: &str = "mistralrs-kv-cli";
const BINARY: &str = "mistralrs-kv";
const REPORT: &str = ".headroom/demo-report.json";

/// Sets up, builds the command line, runs it.
pub(crate) fn run(workspace: &Workspace, choice: &Choice) -> Result<()> {
    let models = setup::run(workspace, DtypeArg::Q8_0, choice)?;
    let model = models
        .first()
        .context("set-up made no model; run `cargo xtask model`")?;
    build(workspace, "demo")?;
    show(workspace, model)
}

/// Builds the command line and returns it. `label` stands before what is said.
pub(crate) fn build(workspace: &Workspace, label: &str) -> Result<PathBuf> {
    let binary = binary(workspace)?;
    if !binary.is_file() {
        println!(
            "{label}: building {BINARY}; the first build takes 10 to 30 minutes on 2 cores, later ones take seconds"
        );
    }
    process::run(process::cargo(workspace).args(["build", "--release", "-p", PACKAGE]))?;
    Ok(binary)
}

/// Runs the built command line, which ends with one line about what it saved.
pub(crate) fn show(workspace: &Workspace, model: &Path) -> Result<()> {
    let mut command = command(workspace, &binary(workspace)?, model);
    println!("demo: {}", process::written(&command));
    // Its last line says what was saved.
    process::run(&mut command)
}

/// The demo with this program.
pub(crate) fn command(workspace: &Workspace, binary: &Path, model: &Path) -> Command {
    let mut command = process::without_us(binary);
    command
        .current_dir(workspace.root())
        .arg("run")
        .arg("--model")
        .arg(model);
    command.args([
        "--policy",
        "streaming-llm",
        "--budget",
        "128",
        "--max-tokens",
        "200",
        "--seed",
        "1",
    ]);
    command.args(["--report", REPORT, "--prompt-file", "docs/demo-prompt.txt"]);
    command
}

fn binary(workspace: &Workspace) -> Result<PathBuf> {
    Ok(binary_in(&Metadata::of(workspace)?.target_directory))
}

/// The program that a build in this target folder makes.
pub(crate) fn binary_in(target: &Path) -> PathBuf {
    let name = format!("{BINARY}{}", std::env::consts::EXE_SUFFIX);
    target.join("release").join(name)
}
