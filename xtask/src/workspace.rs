//! Where things are in this checkout.

use std::{
    env,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// The checkout that `cargo xtask` was called in.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Finds the checkout from what `cargo run` says about this package, or from the current folder.
    pub(crate) fn find() -> Result<Self> {
        let started = match env::var_os("CARGO_MANIFEST_DIR") {
            Some(folder) => PathBuf::from(folder),
            None => env::current_dir().context("the current folder cannot be read")?,
        };
        let is_root = |folder: &&Path| folder.join("xtask/Cargo.toml").is_file();
        match started.ancestors().find(is_root) {
            Some(root) => Ok(Self {
                root: root.to_owned(),
            }),
            None => bail!("this is not a checkout of Headroom; run `cargo xtask` from inside one"),
        }
    }

    /// Another checkout, such as a copy.
    pub(crate) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Everything that set-up makes, git-ignored.
    pub(crate) fn headroom(&self) -> PathBuf {
        self.root.join(".headroom")
    }

    pub(crate) fn downloads(&self) -> PathBuf {
        self.headroom().join("downloads")
    }

    pub(crate) fn models(&self) -> PathBuf {
        self.headroom().join("models")
    }

    /// `path` as a reader at the root of the checkout would write it.
    pub(crate) fn short<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }

    /// Keeps a second `cargo xtask` from writing the same files; free again when the guard is dropped.
    pub(crate) fn lock(&self) -> Result<File> {
        let path = self.headroom().join("lock");
        make_folder(&self.headroom())?;
        let file = File::create(&path).with_context(|| cannot_write(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                println!("waiting for another `cargo xtask` in this checkout to finish");
                file.lock().with_context(|| cannot_write(&path))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| cannot_write(&path));
            }
        }
        Ok(file)
    }
}

pub(crate) fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| cannot_write(path))
}

/// Writes `content` unless the file holds it already, so that its time stamp stays and cargo rebuilds nothing.
pub(crate) fn write_if_different(
    path: &Path,
    content: &(impl AsRef<[u8]> + ?Sized),
) -> Result<bool> {
    let content = content.as_ref();
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    fs::write(path, content).with_context(|| cannot_write(path))?;
    Ok(true)
}

pub(crate) fn cannot_write(path: &Path) -> String {
    format!(
        "cannot write {}; check that the folder is writable and the disk is not full",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_writing_leaves_the_time_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.toml");
        assert!(write_if_different(&path, "x = 1\n").unwrap());
        let old = std::time::SystemTime::UNIX_EPOCH;
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(old)
            .unwrap();
        assert!(!write_if_different(&path, "x = 1\n").unwrap());
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), old);
        assert!(write_if_different(&path, "x = 2\n").unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "x = 2\n");
    }

    #[test]
    fn lock_is_exclusive_and_free_after_drop() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(folder.path());
        let held = workspace.lock().unwrap();
        let other = File::options()
            .write(true)
            .open(workspace.headroom().join("lock"))
            .unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        assert!(other.try_lock().is_ok());
    }
}
