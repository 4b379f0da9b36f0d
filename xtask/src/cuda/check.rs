//! `cargo xtask cuda-check`: the Rust side of feature `cuda`, type-checked on any machine.

use anyhow::Result;

use super::{CLI, DEFAULT_CAPABILITY, KERNELS, cargo, stand_in, target_directory};
use crate::{engine, process, workspace::Workspace};

/// Cargo's part of the command; no package of the engine is compiled to code.
const CHECK: [&str; 11] = [
    "check",
    "--release",
    "-p",
    "mistralrs-kv",
    "-p",
    CLI,
    "-p",
    KERNELS,
    "--features",
    "cuda",
    "--all-targets",
];

/// Patches the engine if that is not done, makes the stand-in, runs cargo.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    {
        let _lock = workspace.lock()?;
        engine::set_up(workspace)?;
    }
    let root = stand_in::make(workspace)?;
    let target = target_directory(workspace, "cuda-check")?;
    let mut command = cargo(workspace, &root, DEFAULT_CAPABILITY, &target);
    command.args(CHECK);
    println!("cuda-check: {}", process::written(&command));
    process::run(&mut command)
}
