//! OpenAI's own Python client, which tests of the server speak through.

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

const VERSION: &str = "2.54.0";
/// Written last; holds what the folder was made for.
const RECORD: &str = "headroom-made-for.txt";
/// Prints which wheels fit: the client needs compiled ones, which another Python cannot load.
const PYTHON: &str =
    "import sys, sysconfig; print(sys.implementation.cache_tag, sysconfig.get_platform())";

/// The folder to name in `PYTHONPATH`; installs the client into it if that is not done.
///
/// The caller holds the lock of the checkout.
pub(crate) fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    let package = format!("openai=={VERSION}");
    let folder = folder(workspace);
    let python = process::output(Command::new("python3").args(["-c", PYTHON]))
        .context("tests of the server need Python 3 with pip; install it")?;
    let record = format!("{package} {}\n", python.trim());
    if !is_complete(&folder, &record) {
        let partial = folder.with_file_name(format!("partial-openai-{VERSION}"));
        for old in [&partial, &folder] {
            if old.exists() {
                fs::remove_dir_all(old).with_context(|| cannot_write(old))?;
            }
        }
        let what = format!("client: pip installs {package} and what it needs (6 MB)");
        pip::install(workspace, &what, &package, &partial)?;
        write_if_different(&partial.join(RECORD), &record)?;
        fs::rename(&partial, &folder).with_context(|| cannot_write(&folder))?;
    }
    println!("client: ready {}", workspace.short(&folder));
    Ok(folder)
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.headroom().join(format!("openai-{VERSION}"))
}

fn is_complete(folder: &Path, record: &str) -> bool {
    fs::read_to_string(folder.join(RECORD)).is_ok_and(|found| found == record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::make_folder;

    #[test]
    fn client_of_another_python_is_not_complete() {
        let checkout = tempfile::tempdir().unwrap();
        let folder = folder(&Workspace::at(checkout.path()));
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
