//! The demo: one long prompt under a small budget, and what that saved.

use std::path::{Path, PathBuf};

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
    if !binary(workspace)?.is_file() {
        println!(
            "demo: building {BINARY}; the first build takes 10 to 30 minutes on 2 cores, later ones take seconds"
        );
    }
    process::run(process::cargo(workspace).args(["build", "--release", "-p", PACKAGE]))?;
    show(workspace, model)
}

/// Runs the built command line, which ends with one line about what it saved.
pub(crate) fn show(workspace: &Workspace, model: &Path) -> Result<()> {
    let mut command = process::without_us(binary(workspace)?);
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
    println!("demo: {}", process::written(&command));
    // Its last line says what was saved.
    process::run(&mut command)
}

fn binary(workspace: &Workspace) -> Result<PathBuf> {
    let folder = Metadata::of(workspace)?.target_directory.join("release");
    Ok(folder.join(format!("{BINARY}{}", std::env::consts::EXE_SUFFIX)))
}
