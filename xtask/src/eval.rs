//! `cargo xtask eval`: what every policy loses and saves, with the model and the text that the book's figures are of.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{
    demo,
    model::{Choice, DtypeArg},
    process, setup, text,
    workspace::Workspace,
};

/// Sets up, builds the command line, runs it with `options` behind ours.
pub(crate) fn run(
    workspace: &Workspace,
    choice: &Choice,
    out: &Path,
    options: &[String],
) -> Result<()> {
    let (model, text) = prepared(workspace, choice)?;
    let binary = demo::build(workspace, "eval")?;
    let mut command = process::without_us(&binary);
    command.current_dir(workspace.root()).arg("eval");
    command.arg("--model").arg(model);
    command.arg("--text").arg(text);
    command.arg("--out").arg(out).args(options);
    println!("eval: {}", process::written(&command));
    process::run(&mut command)
}

/// Sets up; the model and the text.
pub(crate) fn prepared(workspace: &Workspace, choice: &Choice) -> Result<(PathBuf, PathBuf)> {
    // Weights in 32 bits read prompts fastest.
    let models = setup::run(workspace, DtypeArg::F32, choice)?;
    let model = models.into_iter().next().context("set-up made no model")?;
    let _lock = workspace.lock()?;
    Ok((model, text::ensure(workspace)?))
}
