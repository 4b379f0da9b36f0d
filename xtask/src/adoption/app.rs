//! A copy of the app outside the checkout.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use kv_patch::ENGINE_PACKAGE;

use super::MAIN;
use crate::{
    vendor::Entry,
    workspace::{Workspace, write_if_different},
};

/// The app's manifest, as it was before.
const MANIFEST: &str = "examples/app/Cargo.toml";

/// The app in a folder of its own.
#[derive(Debug)]
pub(super) struct App {
    folder: PathBuf,
    manifest: String,
}

impl App {
    /// Copies the app, and beside it what makes the third-party crates the ones that the workspace has compiled: the
    /// versions of its `Cargo.lock`, its release profile, its compiler flags. The first is for speed only; the flags are
    /// what the book advises.
    pub(super) fn copy(workspace: &Workspace, folder: &Path) -> Result<Self> {
        let read = |path: &str| {
            fs::read_to_string(workspace.root().join(path))
                .with_context(|| format!("cannot read {path}; restore it with git"))
        };
        let table = |path: &str, name: &str| -> Result<String> {
            let text = read(path)?;
            let table = table(&text, name)
                .with_context(|| format!("{path} has no [{name}]; restore it with git"))?;
            Ok(table.to_owned())
        };
        let app = Self {
            folder: folder.to_owned(),
            manifest: format!(
                "{}\n{}\n{}",
                read(MANIFEST)?,
                table("Cargo.toml", "profile.release")?,
                not_optimised(ENGINE_PACKAGE)
            ),
        };
        for (path, text) in [
            ("Cargo.toml", app.manifest.clone()),
            ("src/main.rs", read(MAIN)?),
            ("Cargo.lock", read("Cargo.lock")?),
            (".cargo/config.toml", table(".cargo/config.toml", "build")?),
        ] {
            write_if_different(&folder.join(path), &text)?;
        }
        Ok(app)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Pastes lines into the manifest.
    pub(super) fn paste(&mut self, entries: &[Entry]) -> Result<()> {
        for entry in entries {
            self.manifest = entry.pasted_into(&self.manifest);
        }
        write_if_different(&self.folder.join("Cargo.toml"), &self.manifest)?;
        Ok(())
    }
}

/// The engine is compiled for this one check, and a profile of its own leaves the crates below it as they are. Its inner
/// loops stand in those crates.
fn not_optimised(package: &str) -> String {
    format!("# For speed only.\n[profile.release.package.{package}]\nopt-level = 0\n")
}

/// The table of this name with its head, up to the next one.
fn table<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let head = format!("[{name}]\n");
    let start = match text.starts_with(&head) {
        true => 0,
        false => text.find(&format!("\n{head}"))? + 1,
    };
    let body = start + head.len();
    let end = text[body..]
        .find("\n[")
        .map_or(text.len(), |at| body + at + 1);
    Some(&text[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_is_the_app_with_the_settings_of_the_workspace() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::find().unwrap();
        let mut app = App::copy(&workspace, folder.path()).unwrap();
        let read = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
        let ours = |path: &str| fs::read_to_string(workspace.root().join(path)).unwrap();
        assert_eq!(read("src/main.rs"), ours(MAIN));
        assert_eq!(read("Cargo.lock"), ours("Cargo.lock"));
        let before = read("Cargo.toml");
        assert!(before.starts_with(&ours(MANIFEST)), "{before}");
        assert!(
            before.contains("\n[profile.release]\ndebug = 0\n"),
            "{before}"
        );
        assert!(!before.contains("mistralrs-kv ="), "{before}");
        let flags = read(".cargo/config.toml");
        assert!(flags.starts_with("[build]\nrustflags = "), "{flags}");
        assert!(!flags.contains("include"), "{flags}");
        let entry = |table, line: &str| Entry {
            table,
            line: line.to_owned(),
        };
        app.paste(&[
            entry("dependencies", "mistralrs-kv = 1"),
            entry("patch.crates-io", "mistralrs-core = 2"),
        ])
        .unwrap();
        let after = read("Cargo.toml");
        // Into the table that is there, and a new table at the end.
        let dependency = "[dependencies]\nmistralrs-kv = 1\n";
        let patch = "\n[patch.crates-io]\nmistralrs-core = 2\n";
        assert!(after.ends_with(patch), "{after}");
        let wanted = before.replacen("[dependencies]\n", dependency, 1) + patch;
        assert_eq!(after, wanted);
    }

    #[test]
    fn table_ends_where_the_next_begins() {
        let text = "a = 1\n[b]\nc = [\"[b]\"]\n\n[b.d]\ne = 2\n";
        assert_eq!(table(text, "b"), Some("[b]\nc = [\"[b]\"]\n\n"));
        assert_eq!(table(text, "b.d"), Some("[b.d]\ne = 2\n"));
        assert_eq!(table(text, "d"), None);
        assert_eq!(table("[b]\n", "b"), Some("[b]\n"));
    }
}
