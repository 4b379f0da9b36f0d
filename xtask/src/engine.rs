//! The patched engine: where cargo put the published one, where ours goes, and how cargo learns of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result};
use kv_patch::{ENGINE_PACKAGE, ENGINE_VERSION, Patch};

use crate::{
    metadata::Metadata,
    process,
    workspace::{Workspace, write_if_different},
};

/// The part of cargo's configuration that we write; `.cargo/config.toml` includes it if it is there.
const CARGO_CONFIG: &str = ".headroom/patched-engine.toml";

/// Makes `.headroom/mistralrs-core-<version>` and tells cargo to use it.
pub(crate) fn set_up(workspace: &Workspace) -> Result<()> {
    let folder = format!(".headroom/{ENGINE_PACKAGE}-{ENGINE_VERSION}");
    let target = workspace.root().join(&folder);
    let report = patch(workspace, &target, r#"{ path = "../../integration/hook" }"#)?;
    println!("engine: {report}");
    // Last, because cargo refuses to start anything, this program included, once it names a folder that is missing.
    let told = tell_cargo(workspace, &folder)?;
    println!(
        "engine: cargo {} {folder}",
        if told { "now uses" } else { "already uses" }
    );
    Ok(())
}

/// Writes [`CARGO_CONFIG`]; true if it was different.
fn tell_cargo(workspace: &Workspace, folder: &str) -> Result<bool> {
    // Cargo takes a relative path from the parent of the folder that holds the configuration file.
    let text = format!("[patch.crates-io]\n{ENGINE_PACKAGE} = {{ path = \"{folder}\" }}\n");
    write_if_different(&workspace.root().join(CARGO_CONFIG), &text)
}

/// Makes `target` a patched copy of the engine; `hook` is the manifest value of its `kv-hook` dependency.
pub(crate) fn patch(workspace: &Workspace, target: &Path, hook: &str) -> Result<kv_patch::Report> {
    let pristine = published(workspace)?;
    let patch = Patch::load()
        .context("the patch in integration/patch cannot be read; restore it with git")?;
    patch.apply(&pristine, target, hook).with_context(|| {
        format!(
            "{ENGINE_PACKAGE} {ENGINE_VERSION} cannot be patched; if its download was damaged, delete {} and try again",
            pristine.display()
        )
    })
}

/// The source of the published engine as cargo downloaded it; downloads it first where it is missing.
///
/// Asked from a scratch package outside the checkout, because inside it cargo's answer would be our own patched copy.
/// The scratch package takes our `Cargo.lock` along, so that cargo downloads only what the build needs anyway.
fn published(workspace: &Workspace) -> Result<PathBuf> {
    let scratch = tempfile::Builder::new()
        .prefix("headroom-")
        .tempdir()
        .context("no temporary folder can be made; point TMPDIR at a folder that is writable")?;
    let manifest = format!(
        "[package]\nname = \"headroom-scratch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\n{ENGINE_PACKAGE} = {{ version = \"={ENGINE_VERSION}\", default-features = false }}\n"
    );
    write_if_different(&scratch.path().join("Cargo.toml"), &manifest)?;
    write_if_different(&scratch.path().join("src/lib.rs"), "")?;
    let lock = scratch.path().join("Cargo.lock");
    if let Ok(ours) = fs::read_to_string(workspace.root().join("Cargo.lock")) {
        write_if_different(&lock, &ours)?;
    }
    if let Ok(answer) = metadata(workspace, scratch.path(), true) {
        return manifest_folder(&answer);
    }
    println!(
        "engine: asking cargo to download {ENGINE_PACKAGE} {ENGINE_VERSION} and what it needs"
    );
    let answer = metadata(workspace, scratch.path(), false).with_context(|| {
        format!("cargo cannot download {ENGINE_PACKAGE} {ENGINE_VERSION}; the first set-up needs a connection to crates.io")
    })?;
    manifest_folder(&answer)
}

fn metadata(workspace: &Workspace, scratch: &Path, offline: bool) -> Result<String> {
    let mut command = process::cargo(workspace);
    command
        .current_dir(scratch)
        .args(["metadata", "--format-version", "1"]);
    command.args(["--filter-platform", &host(workspace)?]);
    if offline {
        command.arg("--offline");
    } else {
        // A download takes a while; cargo's own progress shows that it goes on.
        command.stderr(Stdio::inherit());
    }
    process::output(&mut command)
}

/// The triple of this machine; without it cargo would download what other systems need, too.
pub(crate) fn host(workspace: &Workspace) -> Result<String> {
    let said = process::output(process::cargo(workspace).args(["--version", "--verbose"]))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host
        .context("`cargo --version --verbose` names no host; update Rust with `rustup update`")?
        .to_owned())
}

fn manifest_folder(metadata: &str) -> Result<PathBuf> {
    let metadata = Metadata::parse(metadata)?;
    let mut packages = metadata.packages.iter();
    let engine = packages
        .find(|package| package.name == ENGINE_PACKAGE && package.version == ENGINE_VERSION);
    let engine = engine.with_context(|| {
        format!("`cargo metadata` does not list {ENGINE_PACKAGE} {ENGINE_VERSION}; update Rust")
    })?;
    Ok(engine.folder().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(folder.path());
        assert!(tell_cargo(&workspace, ".headroom/x").unwrap());
        let path = folder.path().join(CARGO_CONFIG);
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        assert!(!tell_cargo(&workspace, ".headroom/x").unwrap());
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "[patch.crates-io]\nmistralrs-core = { path = \".headroom/x\" }\n"
        );
    }

    #[test]
    fn the_release_asked_for_is_found() {
        let package = |version: &str| {
            format!(
                r#"{{"name":"mistralrs-core","version":"{version}","manifest_path":"/r/{version}/Cargo.toml","features":{{}}}}"#
            )
        };
        let metadata = |packages: &[String]| {
            format!(
                r#"{{"packages":[{}],"target_directory":"/t","workspace_root":"/w"}}"#,
                packages.join(",")
            )
        };
        let both = metadata(&[package("0.8.0"), package("0.8.1")]);
        assert_eq!(manifest_folder(&both).unwrap(), Path::new("/r/0.8.1"));
        let error = manifest_folder(&metadata(&[package("0.8.0")])).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("does not list mistralrs-core 0.8.1")
        );
    }
}
