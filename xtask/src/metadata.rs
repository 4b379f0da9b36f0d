//! The part of `cargo metadata` we read.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{process, workspace::Workspace};

#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) target_directory: PathBuf,
    pub(crate) workspace_root: PathBuf,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) features: BTreeMap<String, Vec<String>>,
}

impl Metadata {
    /// Of the workspace's own packages; needs no network.
    pub(crate) fn of(workspace: &Workspace) -> Result<Self> {
        Self::at(workspace, workspace.root())
    }

    /// Of the packages of the workspace that `folder` belongs to; needs no network.
    pub(crate) fn at(workspace: &Workspace, folder: &Path) -> Result<Self> {
        let mut command = process::cargo(workspace);
        command.current_dir(folder);
        Self::parse(&process::output(command.args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
        ]))?)
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text)
            .context("`cargo metadata` printed something unknown; update Rust with `rustup update`")
    }

    pub(crate) fn package(&self, name: &str) -> Result<&Package> {
        let mut packages = self.packages.iter();
        packages.find(|package| package.name == name).with_context(|| {
            format!("the workspace has no package `{name}`; add its folder to `members` in Cargo.toml")
        })
    }
}

impl Package {
    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(&self.manifest_path)
    }
}
