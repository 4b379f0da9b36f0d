//! Python packages that checks run: OpenAI's client, which tests of the server speak through, and others of single commands.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    pip, process,
    workspace::{Workspace, cannot_write, write_if_different},
};

/// Packages that go into one folder, pinned, with what they need.
#[derive(Debug)]
pub(crate) struct Packages {
    /// Stands before every line: `client`.
    pub(crate) label: &'static str,
    /// The folder's name.
    pub(crate) folder: &'static str,
    /// As pip takes them.
    pub(crate) packages: &'static [&'static str],
    /// Of all that is installed, what is built from source, for want of a wheel.
    pub(crate) from_source: &'static [&'static str],
    /// How much is downloaded: `6 MB`.
    pub(crate) size: &'static str,
}

pub(crate) const OPENAI: Packages = Packages {
    label: "client",
    folder: "openai-2.54.0",
    packages: &["openai==2.54.0"],
    from_source: &[],
    size: "6 MB",
};

/// Written last; holds what the folder was made for.
const RECORD: &str = "headroom-made-for.txt";
/// Prints which wheels fit: compiled ones cannot be loaded by another Python.
const PYTHON: &str =
    "import sys, sysconfig; print(sys.implementation.cache_tag, sysconfig.get_platform())";

/// The folder to name in `PYTHONPATH`; installs into it if that is not done.
///
/// The caller holds the lock of the checkout.
pub(crate) fn ensure(workspace: &Workspace, wanted: &Packages) -> Result<PathBuf> {
    let (label, list) = (wanted.label, wanted.packages.join(" "));
    let folder = workspace.headroom().join(wanted.folder);
    let python = process::output(Command::new("python3").args(["-c", PYTHON]))
        .with_context(|| format!("{list} needs Python 3 with pip; install it"))?;
    let record = format!("{list} {}\n", python.trim());
    if !is_complete(&folder, &record) {
        let partial = folder.with_file_name(format!("partial-{}", wanted.folder));
        for old in [&partial, &folder] {
            if old.exists() {
                fs::remove_dir_all(old).with_context(|| cannot_write(old))?;
            }
        }
        let what = format!(
            "{label}: pip installs {list} and what it needs ({})",
            wanted.size
        );
        pip::install(workspace, &what, wanted, &partial)?;
        write_if_different(&partial.join(RECORD), &record)?;
        fs::rename(&partial, &folder).with_context(|| cannot_write(&folder))?;
    }
    println!("{label}: ready {}", workspace.short(&folder));
    Ok(folder)
}

fn is_complete(folder: &Path, record: &str) -> bool {
    fs::read_to_string(folder.join(RECORD)).is_ok_and(|found| found == record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::make_folder;

    #[test]
    fn packages_of_another_python_are_not_complete() {
        let checkout = tempfile::tempdir().unwrap();
        let folder = Workspace::at(checkout.path()).headroom().join("openai-1.0");
        let record = "openai==1.0 cpython-311 linux-x86_64\n";
        assert!(!is_complete(&folder, record));
        // As a killed installation leaves it.
        make_folder(&folder.join("openai")).unwrap();
        assert!(!is_complete(&folder, record));
        write_if_different(&folder.join(RECORD), record).unwrap();
        assert!(is_complete(&folder, record));
        assert!(!is_complete(
            &folder,
            "openai==1.0 cpython-312 linux-x86_64\n"
        ));
    }
}
