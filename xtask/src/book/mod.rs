//! `cargo xtask docs`: the book, built and tested without a warning, and every link followed.

mod html;
mod links;

use std::{
    env::consts::EXE_SUFFIX,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{process, workspace::Workspace};

const VERSION: &str = "0.5.4";
/// Where `docs/book.toml` puts the book, too.
const OUTPUT: &str = "target/book";
/// Texts outside the book whose links are followed, too.
const TEXTS: [&str; 3] = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"];

/// Installs mdbook if that is not done, builds, tests, follows links and says where the book is.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mdbook = ensure(workspace)?;
    let output = workspace.root().join(OUTPUT);
    println!("book: building");
    quietly(
        mdbook_on(workspace, &mdbook, "build")
            .arg("--dest-dir")
            .arg(&output),
    )?;
    println!("book: testing its code");
    quietly(&mut mdbook_on(workspace, &mdbook, "test"))?;
    let followed = links::check_book(&output)?;
    let texts = links::check_texts(workspace.root(), &TEXTS)?;
    println!(
        "book: {followed} links in it and {texts} in {} lead somewhere",
        TEXTS.join(", ")
    );
    println!(
        "book: ready {}",
        workspace.short(&output.join("index.html"))
    );
    Ok(())
}

/// mdbook on our book, silent unless something is wrong.
fn mdbook_on(workspace: &Workspace, mdbook: &Path, subcommand: &str) -> Command {
    let mut command = process::without_us(mdbook);
    command
        .current_dir(workspace.root())
        .env("MDBOOK_LOG", "warn");
    command.args([subcommand, "docs"]);
    command
}

/// Runs to the end and refuses warnings: mdbook goes on without a file that is not there, and the book lacks its words.
fn quietly(command: &mut Command) -> Result<()> {
    let said = process::errors(command)?;
    if !said.trim().is_empty() {
        bail!(
            "`{}` warns:\n{}",
            process::written(command),
            said.trim_end()
        );
    }
    Ok(())
}

/// The mdbook of this checkout; compiles it if it is not there.
fn ensure(workspace: &Workspace) -> Result<PathBuf> {
    let root = workspace.headroom().join("tools");
    let mdbook = root.join("bin").join(format!("mdbook{EXE_SUFFIX}"));
    if is_ready(&mdbook) {
        return Ok(mdbook);
    }
    let _lock = workspace.lock()?;
    // Somebody else may have finished while we waited.
    if !is_ready(&mdbook) {
        println!(
            "book: cargo installs mdbook {VERSION} into {}; this takes 2 to 5 minutes on 2 cores, once",
            workspace.short(&root)
        );
        // From outside the checkout, whose configuration is for the engine.
        let elsewhere = tempfile::tempdir().context(
            "no temporary folder can be made; point TMPDIR at a folder that is writable",
        )?;
        let mut cargo = process::cargo(workspace);
        cargo.current_dir(&elsewhere).args(["install", "mdbook"]);
        cargo.args(["--locked", "--force", "--version", VERSION]);
        // Without its web server, which takes as long to compile as the rest.
        cargo.args(["--no-default-features", "--features", "search"]);
        cargo.arg("--root").arg(&root);
        process::run(&mut cargo).context(
            "mdbook cannot be installed; the first time needs a connection to crates.io",
        )?;
    }
    Ok(mdbook)
}

fn is_ready(mdbook: &Path) -> bool {
    let wanted = format!("mdbook v{VERSION}");
    mdbook.is_file()
        && process::output(Command::new(mdbook).arg("--version"))
            .is_ok_and(|version| version.trim() == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn warnings_are_refused_with_all_that_was_said() {
        let says = |said: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("echo fine; {said}")]);
            quietly(&mut shell).map_err(|error| error.to_string())
        };
        assert_eq!(says("true"), Ok(()));
        let error = says("echo ' WARN a.rs' >&2; echo more >&2").unwrap_err();
        assert!(error.ends_with("` warns:\n WARN a.rs\nmore"), "{error}");
        assert!(
            says("echo ERROR >&2; exit 101")
                .unwrap_err()
                .contains("ended with")
        );
    }

    #[test]
    fn programs_that_are_not_mdbook_are_not_used() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_ready(&folder.path().join("mdbook")));
        let other = process::find("cargo").unwrap();
        assert!(!is_ready(&other));
    }
}
