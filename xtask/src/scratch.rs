//! Folders outside the checkout that are found again the next time.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::workspace::{Workspace, make_folder, write_if_different};

/// A temporary folder outside the checkout, where no configuration of ours reaches: the one of the last time if it is still
/// there, so that what cargo compiled from it is not compiled again. `what` is noted with its path in the folder of set-up.
pub(crate) fn scratch(workspace: &Workspace, what: &str) -> Result<PathBuf> {
    let note = workspace.headroom().join(what);
    let last = fs::read_to_string(&note).map(PathBuf::from);
    if let Ok(last) = last
        && last.is_dir()
    {
        return Ok(last);
    }
    let made = tempfile::Builder::new().prefix("headroom-").tempdir();
    let mut made =
        made.context("no temporary folder can be made; point TMPDIR at a folder that is writable")?;
    let folder = fs::canonicalize(made.path())?;
    ensure!(
        !folder.starts_with(fs::canonicalize(workspace.root())?),
        "temporary files lie inside the checkout, whose configuration patches the engine of every app there; point TMPDIR \
         at a folder outside"
    );
    write_if_different(&note, &*folder.to_string_lossy())?;
    made.disable_cleanup(true);
    Ok(folder)
}

/// Writes what is below `from` to `to`, without what cargo, git and set-up put there; files that are the same stay untouched.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    const LEFT_OUT: [&str; 3] = [".git", ".headroom", "target"];
    make_folder(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        // Cargo marks its target folders, whatever they are called.
        let left_out =
            LEFT_OUT.iter().any(|left_out| name == *left_out) || path.join("CACHEDIR.TAG").exists();
        if left_out {
            continue;
        }
        if path.is_dir() {
            copy_tree(&path, &to.join(name))?;
        } else {
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            write_if_different(&to.join(name), &bytes)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_is_kept_outside_and_made_again_where_it_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(root.path());
        let first = scratch(&workspace, "a").unwrap();
        assert!(!first.starts_with(fs::canonicalize(root.path()).unwrap()));
        assert_eq!(scratch(&workspace, "a").unwrap(), first);
        let other = scratch(&workspace, "b").unwrap();
        assert_ne!(other, first);
        fs::remove_dir(&first).unwrap();
        let second = scratch(&workspace, "a").unwrap();
        assert!(second.is_dir());
        assert_ne!(second, first);
        for folder in [other, second] {
            fs::remove_dir(folder).unwrap();
        }
    }

    #[test]
    fn a_copy_has_the_sources_and_nothing_that_was_built() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            write_if_different(&folder.path().join("from").join(path), "x").unwrap();
        };
        for path in [
            "a/b.rs",
            ".cargo/config.toml",
            ".git/HEAD",
            "xtask/target/c",
            "built/CACHEDIR.TAG",
            ".headroom/d",
        ] {
            write(path);
        }
        let to = folder.path().join("to");
        copy_tree(&folder.path().join("from"), &to).unwrap();
        assert!(to.join("a/b.rs").is_file() && to.join(".cargo/config.toml").is_file());
        for left_out in [".git", "xtask/target", "built", ".headroom"] {
            assert!(!to.join(left_out).exists(), "{left_out}");
        }
    }
}
