//! `cargo xtask kvpress`: what kvpress' own presses lose on the tokens that `eval` goes on from.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    model::{Choice, DtypeArg},
    packages::{self, Packages},
    process, setup, text,
    workspace::Workspace,
};

const KVPRESS: Packages = Packages {
    label: "kvpress",
    folder: "kvpress-0.5.5",
    packages: &[
        "kvpress==0.5.5",
        "torch==2.12.1",
        "transformers==5.2.0",
        "gguf==0.19.0",
    ],
    from_source: &["fire"],
    size: "3 GB",
};
const SCRIPT: &str = include_str!("compare.py");

/// Sets up, installs kvpress, and prints its perplexities beside those in `ours`, a folder of `eval`.
pub(crate) fn run(workspace: &Workspace, choice: &Choice, ours: &Path) -> Result<()> {
    let models = setup::run(workspace, DtypeArg::F32, choice)?;
    let model = models.first().context("set-up made no model")?;
    let (text, packages) = {
        let _lock = workspace.lock()?;
        (
            text::ensure(workspace)?,
            packages::ensure(workspace, &KVPRESS)?,
        )
    };
    let mut python = Command::new("python3");
    python.current_dir(workspace.root());
    python.env("PYTHONPATH", packages).args(["-c", SCRIPT]);
    process::run(python.arg(model).arg(text).arg(ours))
}
