//! Runs other programs, cargo above all.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// The cargo that runs us, at the root of the checkout.
pub(crate) fn cargo(workspace: &Workspace) -> Command {
    let mut command = without_us(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace.root());
    command
}

/// A program that is not told what `cargo run` told us about our own package.
///
/// Build scripts look at some of those variables; left in, the engine would be compiled again whenever somebody calls
/// cargo directly.
pub(crate) fn without_us(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_about_us) {
            command.env_remove(name);
        }
    }
    command
}

fn is_about_us(name: &str) -> bool {
    const ALONE: [&str; 4] = [
        "CARGO",
        "CARGO_BIN_NAME",
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
    ];
    ALONE.contains(&name) || name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

/// Runs to the end with our own input and output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!(
            "`{}` ended with {status}; its own messages stand above",
            written(command)
        );
    }
    Ok(())
}

/// Runs to the end and returns what it printed; what it said on stderr goes into the error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = both(command)?;
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` did not print text", written(command)))
}

/// Runs to the end and returns what it said on stderr.
pub(crate) fn errors(command: &mut Command) -> Result<String> {
    let output = both(command)?;
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Runs to the end, which has to be a failure, and returns its code and what it said on stderr.
pub(crate) fn refusal(command: &mut Command) -> Result<(Option<i32>, String)> {
    let output = ended(command)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        bail!("`{}` succeeded, but must not", written(command));
    }
    Ok((output.status.code(), said))
}

/// Runs until it has said all of `wanted` on stderr, then ends it with all that it started; returns what it said. For a program that
/// goes on for minutes after it has said what is wrong.
pub(crate) fn said_until(command: &mut Command, wanted: &[&str]) -> Result<String> {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| cannot_start(command))?;
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        let mut lines = BufReader::new(stderr);
        while !wanted.iter().all(|part| said.contains(part)) {
            if lines.read_line(&mut said)? == 0 {
                bail!(
                    "`{}` ended with {} and did not say all of {wanted:?}:\n{}",
                    written(command),
                    child.wait()?,
                    said.trim_end()
                );
            }
        }
    }
    if cfg!(unix) {
        // Its process group has its own number.
        let group = format!("-{}", child.id());
        run(Command::new("kill").args(["-TERM", "--", &group]))?;
    } else {
        child.kill()?;
    }
    child.wait()?;
    Ok(said)
}

fn ended(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| cannot_start(command))
}

fn both(command: &mut Command) -> Result<Output> {
    let output = ended(command)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{}` ended with {}:\n{}",
            written(command),
            output.status,
            said.trim_end()
        );
    }
    Ok(output)
}

/// Runs to the end, prints every line of its stdout as it comes and hands it to `seen`; true if it succeeded.
pub(crate) fn run_lines(command: &mut Command, mut seen: impl FnMut(&str)) -> Result<bool> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| cannot_start(command))?;
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\r', '\n']);
            println!("{text}");
            seen(text);
            line.clear();
        }
    }
    Ok(child.wait()?.success())
}

/// Whether a program of this name is on the search path.
pub(crate) fn is_installed(program: &str) -> bool {
    find(program).is_some()
}

/// The program of this name on the search path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let mut programs = env::split_paths(&path).map(|folder| folder.join(program));
    programs.find(|program| program.is_file())
}

/// The command as one would type it.
pub(crate) fn written(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn cannot_start(command: &Command) -> String {
    format!(
        "`{}` cannot be started; check that it is installed and on the search path",
        written(command)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cargo_run_sets_is_taken_out() {
        for ours in [
            "CARGO",
            "CARGO_PKG_NAME",
            "CARGO_MANIFEST_DIR",
            "CARGO_MANIFEST_PATH",
        ] {
            assert!(is_about_us(ours), "{ours}");
        }
        for users in [
            "CARGO_HOME",
            "CARGO_TARGET_DIR",
            "CARGO_NET_OFFLINE",
            "CARGO_TERM_COLOR",
            "HEADROOM_MODEL",
        ] {
            assert!(!is_about_us(users), "{users}");
        }
    }

    #[test]
    fn both_outputs_are_kept_apart() {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap());
        cargo.arg("--version");
        assert!(output(&mut cargo).unwrap().starts_with("cargo "));
        assert!(!errors(&mut cargo).unwrap().contains("cargo "));
    }

    #[test]
    fn refusal_is_a_failure_and_nothing_else() {
        let cargo = |argument: &str| {
            let mut cargo = Command::new(env::var_os("CARGO").unwrap());
            cargo.arg(argument);
            refusal(&mut cargo)
        };
        let (code, said) = cargo("--no-such-option").unwrap();
        assert!(said.contains("--no-such-option"), "{code:?}: {said}");
        assert!(code.is_some_and(|code| code != 0));
        let error = cargo("--version").unwrap_err().to_string();
        assert_eq!(error, "`cargo --version` succeeded, but must not");
    }

    #[test]
    fn missing_program_is_named() {
        let error = output(&mut Command::new("no-such-program-of-headroom")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`no-such-program-of-headroom` cannot be started")
        );
    }
}
