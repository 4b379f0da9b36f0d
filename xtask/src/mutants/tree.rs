//! A copy of the policies and of what they need, outside the checkout, where mistakes are planted.
use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

use super::list::Mutant;
use crate::{
    scratch,
    workspace::{Workspace, cannot_write, make_folder, write_if_different},
};

/// The crates that a policy's tests are made of; a policy knows no others.
const CRATES: [&str; 2] = ["kv-core", "policies"];
/// Copied as they are.
const FILES: [&str; 2] = ["Cargo.lock", ".cargo/config.toml"];
const MANIFEST: &str = "Cargo.toml";

/// The copy; nobody else plants there meanwhile.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    _lock: File,
}

impl Tree {
    /// The copy of the last time brought up to date, so that only what has changed since is compiled.
    pub(crate) fn of(workspace: &Workspace) -> Result<Self> {
        let scratch = scratch::scratch(workspace, "mutants")?;
        let lock = lock(&scratch)?;
        let root = scratch.join("tree");
        copy(workspace.root(), &root)?;
        Ok(Self { root, _lock: lock })
    }

    pub(crate) fn policy(&self, name: &str) -> PathBuf {
        self.root.join("policies").join(name)
    }

    /// Does `work` while the mistake is in the policy's source.
    pub(crate) fn with<T>(
        &self,
        policy: &str,
        mutant: &Mutant,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let path = self.policy(policy).join(&mutant.file);
        let right =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let write = |text: &str| fs::write(&path, text).with_context(|| cannot_write(&path));
        write(&mutant.apply(&right)?)?;
        let done = work();
        write(&right)?;
        done
    }
}

fn lock(scratch: &Path) -> Result<File> {
    let path = scratch.join("lock");
    let file = File::create(&path).with_context(|| cannot_write(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another `cargo xtask mutants` runs in this checkout; wait for its end")
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| cannot_write(&path)),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    make_folder(to)?;
    for name in CRATES {
        mirror(&from.join(name), &to.join(name))?;
    }
    for name in FILES {
        write_if_different(&to.join(name), &read(&from.join(name))?)?;
    }
    let manifest = String::from_utf8(read(&from.join(MANIFEST))?)?;
    write_if_different(&to.join(MANIFEST), &narrowed(&manifest)?)?;
    Ok(())
}

/// Makes a folder the same as another; what is the same already keeps its time stamp.
fn mirror(from: &Path, to: &Path) -> Result<()> {
    make_folder(to)?;
    for entry in entries(to)? {
        if !from.join(entry.file_name()).exists() {
            let path = entry.path();
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.with_context(|| cannot_write(&path))?;
        }
    }
    for entry in entries(from)? {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            mirror(&source, &target)?;
        } else {
            write_if_different(&target, &read(&source)?)?;
        }
    }
    Ok(())
}

/// What stands in a folder and is no build output.
fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    let read = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = read.with_context(|| format!("cannot read {}", folder.display()))?;
    let is_ours = |entry: &fs::DirEntry| entry.file_name() != "target";
    Ok(entries.into_iter().filter(is_ours).collect())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The workspace's manifest with no members but those that are copied.
fn narrowed(manifest: &str) -> Result<String> {
    let mut manifest: Table = toml::from_str(manifest).context(MANIFEST)?;
    let workspace = manifest.get_mut("workspace").and_then(Value::as_table_mut);
    let workspace = workspace.context("Cargo.toml has no table [workspace]")?;
    let members = ["kv-core", "policies/*"].map(|member| Value::String(member.to_owned()));
    workspace.insert("members".to_owned(), Value::Array(members.to_vec()));
    workspace.remove("exclude");
    Ok(toml::to_string(&manifest)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_brings_removes_and_leaves_what_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let write = |path: PathBuf, text: &str| {
            make_folder(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(from.join("a/src/lib.rs"), "1");
        write(from.join("target/x"), "built");
        write(to.join("a/src/lib.rs"), "0");
        write(to.join("a/tests/old.rs"), "0");
        write(to.join("b"), "0");
        mirror(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("a/src/lib.rs")).unwrap(), "1");
        for gone in ["a/tests", "b", "target"] {
            assert!(!to.join(gone).exists(), "{gone}");
        }
        let old = std::time::SystemTime::UNIX_EPOCH;
        let file = File::options()
            .write(true)
            .open(to.join("a/src/lib.rs"))
            .unwrap();
        file.set_modified(old).unwrap();
        mirror(&from, &to).unwrap();
        assert_eq!(file.metadata().unwrap().modified().unwrap(), old);
    }

    #[test]
    fn manifest_keeps_all_but_the_other_members() {
        let manifest = "[workspace]\nresolver = '3'\nmembers = ['a', 'b']\nexclude = ['c']\n\
             [workspace.dependencies]\nserde = '1'\n[profile.release]\ndebug = 0\n";
        let narrowed: Table = toml::from_str(&narrowed(manifest).unwrap()).unwrap();
        let expected = "[workspace]\nresolver = '3'\nmembers = ['kv-core', 'policies/*']\n\
             [workspace.dependencies]\nserde = '1'\n[profile.release]\ndebug = 0\n";
        assert_eq!(narrowed, toml::from_str(expected).unwrap());
        assert!(super::narrowed("[package]\n").is_err());
    }

    #[test]
    fn mistake_is_there_while_the_work_lasts_and_gone_after_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let lib = root.join("policies/window/src/lib.rs");
        make_folder(lib.parent().unwrap()).unwrap();
        fs::write(&lib, "keep(n)").unwrap();
        let tree = Tree {
            _lock: lock(&root).unwrap(),
            root,
        };
        let mutant = Mutant {
            name: "keeps one more".into(),
            file: "src/lib.rs".into(),
            find: "n)".into(),
            replace: "n + 1)".into(),
            survives: None,
        };
        let seen = || Ok(fs::read_to_string(&lib)?);
        assert_eq!(tree.with("window", &mutant, seen).unwrap(), "keep(n + 1)");
        assert!(
            tree.with("window", &mutant, || bail!("no") as Result<()>)
                .is_err()
        );
        assert_eq!(seen().unwrap(), "keep(n)");
        let error = lock(folder.path()).unwrap_err();
        assert!(error.to_string().contains("another"), "{error}");
    }
}
