//! `cargo xtask cuda-build`: the command line with feature `cuda`, every kernel compiled; no GPU needed.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Instant,
};

use anyhow::Result;

use super::{
    CLI, DEFAULT_CAPABILITY, cargo, in_front, setup,
    stubs::{self, Linking},
    target_directory,
    toolkit::Toolkit,
};
use crate::{demo, engine, process, workspace::Workspace};

/// Cargo's part of the command.
pub(super) const BUILD: [&str; 6] = ["build", "--release", "-p", CLI, "--features", "cuda"];

/// Everything that a build with feature `cuda` depends on.
#[derive(Debug)]
pub(super) struct Builder<'a> {
    pub(super) workspace: &'a Workspace,
    /// The toolkit's folder.
    pub(super) root: PathBuf,
    /// Holds the libraries to link.
    pub(super) libraries: PathBuf,
    pub(super) capability: String,
    pub(super) target: PathBuf,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        workspace: &'a Workspace,
        toolkit: &Toolkit,
        linking: &Linking,
    ) -> Result<Self> {
        Ok(Self {
            workspace,
            root: toolkit.root.clone(),
            libraries: linking.folder.clone(),
            capability: capability(),
            target: target_directory(workspace, "cuda-build")?,
        })
    }

    pub(super) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = cargo(self.workspace, &self.root, &self.capability, &self.target);
        command.args(args);
        // A path to search is no part of cargo's fingerprints, as compiler flags would be.
        let libraries = [self.libraries.clone()];
        command.env("LIBRARY_PATH", in_front("LIBRARY_PATH", &libraries));
        if env::var_os("CUDAFORGE_THREADS").is_none() {
            // It would use half of the cores otherwise.
            let cores = thread::available_parallelism().map_or(1, usize::from);
            command.env("CUDAFORGE_THREADS", cores.to_string());
        }
        command
    }

    pub(super) fn binary(&self) -> PathBuf {
        demo::binary_in(&self.target)
    }
}

/// Installs the compiler if it is not there, builds, says where the program is and what it needs.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    {
        let _lock = workspace.lock()?;
        engine::set_up(workspace)?;
    }
    let toolkit = setup::ensure(workspace)?;
    let linking = stubs::prepare(workspace, &toolkit)?;
    let builder = Builder::new(workspace, &toolkit, &linking)?;
    println!(
        "cuda-build: {} for sm_{}",
        toolkit.release, builder.capability
    );
    if !linking.stubs.is_empty() {
        println!(
            "cuda-build: linking stubs of {}; a machine with a GPU has the libraries",
            linking.stubs.join(", ")
        );
    }
    let mut command = builder.cargo(&BUILD);
    println!(
        "cuda-build: {}; the first time takes about an hour on 2 cores",
        process::written(&command)
    );
    let started = Instant::now();
    process::run(&mut command)?;
    let binary = builder.binary();
    println!(
        "cuda-build: {} after {:.0} s",
        workspace.short(&binary),
        started.elapsed().as_secs_f64()
    );
    for name in needed(&binary) {
        println!("cuda-build: needs {name}");
    }
    if !linking.stubs.is_empty() {
        let folders = [vec![linking.folder], linking.real].concat();
        println!(
            "cuda-build: without a GPU it starts with LD_LIBRARY_PATH={}",
            joined(&folders)
        );
    }
    Ok(())
}

/// As in a search path.
pub(super) fn joined(folders: &[PathBuf]) -> String {
    let names = folders.iter().map(|folder| folder.to_string_lossy());
    names.collect::<Vec<_>>().join(":")
}

/// The generation to compile for: what the user says, else that of the GPU, else [`DEFAULT_CAPABILITY`].
pub(super) fn capability() -> String {
    let users = env::var("CUDA_COMPUTE_CAP").ok();
    let users = users.filter(|value| !value.is_empty());
    let of_gpu = || {
        let mut smi = Command::new("nvidia-smi");
        smi.args(["--query-gpu=compute_cap", "--format=csv,noheader"]);
        parse_capability(&process::output(&mut smi).ok()?)
    };
    users
        .or_else(of_gpu)
        .unwrap_or_else(|| DEFAULT_CAPABILITY.to_owned())
}

/// `90` out of `9.0`, of the first GPU.
pub(super) fn parse_capability(said: &str) -> Option<String> {
    let (major, minor) = said.lines().next()?.trim().split_once('.')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(major) && digits(minor)).then(|| format!("{major}{minor}"))
}

/// NVIDIA's libraries among those that the program names; empty where `readelf` is not installed.
fn needed(binary: &Path) -> Vec<String> {
    let said = process::output(Command::new("readelf").arg("-d").arg(binary));
    parse_needed(&said.unwrap_or_default())
}

fn parse_needed(said: &str) -> Vec<String> {
    let names = said.lines().filter(|line| line.contains("(NEEDED)"));
    let names = names.filter_map(|line| line.split(['[', ']']).nth(1));
    names
        .filter(|name| name.starts_with("libcu") || name.starts_with("libnv"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_is_read() {
        assert_eq!(parse_capability("9.0\n8.6\n").as_deref(), Some("90"));
        assert_eq!(parse_capability("12.0").as_deref(), Some("120"));
        assert_eq!(parse_capability("[N/A]"), None);
        assert_eq!(parse_capability("N.A"), None);
        assert_eq!(parse_capability(""), None);
    }

    #[test]
    fn only_nvidias_libraries_are_listed() {
        let said = " 0x0000000000000001 (NEEDED)             Shared library: [libcuda.so.1]\n\
             0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]\n\
             0x000000000000001d (RUNPATH)            Library runpath: [libcu]\n";
        assert_eq!(parse_needed(said), ["libcuda.so.1"]);
    }
}
