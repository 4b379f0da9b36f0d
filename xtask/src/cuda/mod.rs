//! Everything about CUDA that a machine without a GPU can do, and the run-book for one that has it.

mod build;
mod check;
mod gpu;
mod kernels;
mod ptx;
mod ptxas;
mod setup;
mod stand_in;
mod stubs;
mod toolkit;

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{metadata::Metadata, process, workspace::Workspace};

pub(crate) use self::{
    build::run as build,
    check::run as check,
    gpu::{Options as GpuOptions, run as gpu_test},
    kernels::{Action as KernelAction, run as kernels},
    setup::{run as setup, why_not},
};

/// The package of the command line, and its program.
const CLI: &str = "mistralrs-kv-cli";
/// The package that holds the kernels.
const KERNELS: &str = "attention-kernels";
/// The GPU generation that is compiled for where nobody says otherwise.
const DEFAULT_CAPABILITY: &str = "80";

/// A folder of its own, so that other builds are not done again: cargo keeps one set of features for each.
fn target_directory(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    Ok(Metadata::of(workspace)?.target_directory.join(name))
}

/// Cargo, with the CUDA toolkit in the folder `root` and no other.
fn cargo(workspace: &Workspace, root: &Path, capability: &str, target: &Path) -> Command {
    let mut command = process::cargo(workspace);
    // Build scripts and cudarc look through these, too.
    for other in ["CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR", "CUDARC_CUDA_VERSION"] {
        command.env_remove(other);
    }
    let programs = root.join("bin");
    command
        .env("CUDA_HOME", root)
        .env("CUDA_PATH", root)
        .env("NVCC", programs.join("nvcc"))
        .env("PATH", in_front("PATH", &[programs]))
        .env("CUDA_COMPUTE_CAP", capability)
        .env("CARGO_TARGET_DIR", target);
    command
}

/// The folders, then what the variable holds now.
fn in_front(variable: &str, folders: &[PathBuf]) -> OsString {
    let now = env::var_os(variable).filter(|value| !value.is_empty());
    let now: Vec<PathBuf> = now.iter().flat_map(env::split_paths).collect();
    let all = folders.iter().chain(&now);
    // A folder whose name holds a colon cannot stand in such a list; it is left out.
    let all = all.filter(|folder| !folder.to_string_lossy().contains(':'));
    env::join_paths(all).unwrap_or_default()
}

/// A symbolic link, in place of whatever stood there.
fn link(to: &Path, at: &Path) -> Result<()> {
    if at.symlink_metadata().is_ok() {
        fs::remove_file(at).with_context(|| cannot_link(at))?;
    }
    #[cfg(unix)]
    let made = std::os::unix::fs::symlink(to, at);
    #[cfg(not(unix))]
    let made = Err(std::io::Error::other(format!(
        "no link to {}: not a Unix",
        to.display()
    )));
    made.with_context(|| cannot_link(at))
}

fn cannot_link(at: &Path) -> String {
    format!(
        "cannot link {}; check that the folder is writable",
        at.display()
    )
}

/// Lets the file be run; does nothing where files have no such mark.
fn make_executable(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", path.display()))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toolkit_comes_first_and_nothing_is_lost() {
        let path = in_front("PATH", &[PathBuf::from("/toolkit/bin")]);
        let folders: Vec<PathBuf> = env::split_paths(&path).collect();
        assert_eq!(folders[0], Path::new("/toolkit/bin"));
        let now = env::var_os("PATH").unwrap();
        assert_eq!(folders[1..], env::split_paths(&now).collect::<Vec<_>>());
        let unset = in_front("HEADROOM_NO_SUCH_VARIABLE", &[PathBuf::from("/a")]);
        assert_eq!(unset, "/a");
    }

    #[test]
    fn cargo_sees_one_toolkit() {
        let workspace = Workspace::at(Path::new("/checkout"));
        let command = cargo(&workspace, Path::new("/cuda"), "90", Path::new("/t"));
        let value = |name: &str| {
            let mut all = command.get_envs();
            let found = all.find(|(key, _)| *key == name);
            found.map(|(_, value)| value.map(|value| value.to_string_lossy().into_owned()))
        };
        assert_eq!(value("NVCC"), Some(Some("/cuda/bin/nvcc".to_owned())));
        assert_eq!(value("CUDA_COMPUTE_CAP"), Some(Some("90".to_owned())));
        assert_eq!(value("CUDA_ROOT"), Some(None));
    }
}
