//! An app on the published `mistralrs` adopts a compressed cache by the documented steps; then it is built, runs, and
//! refuses what it should.
//!
//! The app stands in `examples/app`: its manifest as it was before, its source as it is after. Everything happens on a
//! copy outside the checkout, where no configuration of ours reaches it.

mod app;
mod reuse;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    metadata::Metadata,
    model::{Choice, DtypeArg},
    own_policy, process,
    scratch::scratch,
    setup, tiny, vendor,
    workspace::{Workspace, cannot_write, make_folder},
};
use app::App;

/// The source of the app, as the book shows it.
pub(crate) const MAIN: &str = "examples/app/src/main.rs";
/// What the build script of `mistralrs-kv` says where the engine is not patched.
const GUARD: &str = "mistralrs-kv needs the patched mistralrs-core";
/// Policy, budget, and what the refusal must say: the value, and what is allowed.
const REFUSALS: [(&str, &str, &[&str]); 3] = [
    (
        "streming-llm",
        "64",
        &["`streming-llm`", "known are", "streaming-llm", "snap-kv"],
    ),
    ("h2o", "half", &["`budget` is `half`", "must be", "`25%`"]),
    (
        "snap-kv",
        "16",
        &["policy snap-kv: `window` is 32", "must be", "16"],
    ),
];

/// Sets up and proves that the documented steps lead to an app that works.
pub(crate) fn run(workspace: &Workspace, choice: &Choice) -> Result<()> {
    let models = setup::run(workspace, DtypeArg::Q8_0, choice)?;
    let model = models.first();
    prove(
        workspace,
        model.context("set-up made no model; run `cargo xtask model`")?,
    )
}

/// Does it with this GGUF model and the tiny ones.
pub(crate) fn prove(workspace: &Workspace, model: &Path) -> Result<()> {
    let folders = {
        let _lock = workspace.lock()?;
        tiny::ensure(workspace)?
    };
    let adoption = Adoption {
        workspace,
        scratch: scratch(workspace, "adoption")?,
        target: Metadata::of(workspace)?.target_directory,
        model,
        folders,
    };
    let proven = adoption.steps();
    if proven.is_err() {
        println!("adoption: the app lies in {}", adoption.scratch.display());
    }
    proven
}

struct Adoption<'a> {
    workspace: &'a Workspace,
    /// Outside the checkout.
    scratch: PathBuf,
    /// Shared with the workspace, for the third-party crates that stand there already.
    target: PathBuf,
    model: &'a Path,
    /// The tiny models.
    folders: Vec<PathBuf>,
}

impl Adoption<'_> {
    fn steps(&self) -> Result<()> {
        let mut app = App::copy(self.workspace, &self.scratch.join("app"))?;
        println!(
            "adoption: `cargo xtask vendor --into vendor` for a copy of examples/app, and what it says is pasted"
        );
        let paste = vendor::run(self.workspace, &app.folder().join("vendor"), None)?;
        app.paste(&[paste.dependency(), paste.patch()])?;
        self.join(&mut app)?;
        let reused = reuse::align(self.workspace, &mut app)?;
        println!(
            "adoption: building the app; the first time compiles the engine once more, about 5 minutes on 2 cores"
        );
        process::run(&mut self.build(&app))?;
        self.runs()?;
        own_policy::runs(self.workspace, &self.target, self.model)?;
        self.refusals()?;
        self.truncated()?;
        self.forgotten(&[&[paste.dependency()], &reused[..]].concat())?;
        println!("adoption: an app on the published mistralrs needs these steps and no others");
        Ok(())
    }

    /// Puts own-policy beside an app, so that one engine serves both.
    fn join(&self, app: &mut App) -> Result<()> {
        own_policy::copy(self.workspace, app.folder())?;
        app.paste(&[own_policy::member()])
    }

    fn build(&self, app: &App) -> Command {
        let mut command = process::cargo(self.workspace);
        command.current_dir(app.folder());
        command.args(["build", "--release", "--workspace", "--target-dir"]);
        command.arg(&self.target);
        command
    }

    /// The built app.
    fn app(&self, model: &Path, policy: &str, budget: &str) -> Command {
        let name = format!("app{}", std::env::consts::EXE_SUFFIX);
        let mut command = process::without_us(self.target.join("release").join(name));
        command.current_dir(self.workspace.root());
        command.arg(model).args([policy, budget]);
        command
    }

    /// Every run answers, and its cache held fewer pages than a full one.
    fn runs(&self) -> Result<()> {
        let mut runs = vec![(self.model, "streaming-llm", "64")];
        for folder in &self.folders {
            runs.extend([(&**folder, "h2o", "50%"), (&**folder, "snap-kv", "50%")]);
        }
        for (model, policy, budget) in runs {
            let mut command = self.app(model, policy, budget);
            println!("adoption: {}", process::written(&command));
            let said = process::output(&mut command)?;
            let summary = said.lines().last().unwrap_or_default();
            println!("adoption: {summary}");
            check_summary(summary, policy)?;
        }
        Ok(())
    }

    /// A mistake ends the app with a message, not with a panic and not with another policy.
    fn refusals(&self) -> Result<()> {
        let folder = self.folders.first().context("there is a tiny model")?;
        for (policy, budget, wanted) in REFUSALS {
            refused(&mut self.app(folder, policy, budget), wanted)?;
        }
        Ok(())
    }

    /// A folder whose weights end too early is no model.
    fn truncated(&self) -> Result<()> {
        let whole = self.folders.first().context("there is a tiny model")?;
        let folder = self.scratch.join("truncated");
        copy_half(whole, &folder)?;
        refused(
            &mut self.app(&folder, "h2o", "50%"),
            &["the engine could not load the model", "model.safetensors"],
        )
    }

    /// With the dependency and without the replacement of the engine, cargo stops and says what to do.
    ///
    /// Done last, and with the same crates: all that lies below the engine is compiled by now, so that cargo comes to the guard at
    /// once, as it would in an app that was built before. It would then wait for the engine, which it compiles beside the guard.
    fn forgotten(&self, entries: &[vendor::Entry]) -> Result<()> {
        let mut app = App::copy(self.workspace, &self.scratch.join("forgotten"))?;
        app.paste(entries)?;
        self.join(&mut app)?;
        let started = Instant::now();
        // With a single job the guard could wait behind the engine. All that is needed has been downloaded by now.
        let said = process::said_until(
            self.build(&app).args(["--jobs", "2", "--offline"]),
            &[GUARD, "cargo xtask vendor --into", "[patch.crates-io]"],
        )?;
        show_refusal(&said, GUARD);
        println!(
            "adoption: without [patch.crates-io] cargo says so after {:.1} s",
            started.elapsed().as_secs_f64()
        );
        Ok(())
    }
}

/// Runs to the failure that is wanted and holds its message against `wanted`.
fn refused(command: &mut Command, wanted: &[&str]) -> Result<()> {
    let (code, said) = process::refusal(command)?;
    check_refusal(code, &said, wanted).with_context(|| {
        format!(
            "`{}` is refused in other words:\n{}",
            process::written(command),
            said.trim_end()
        )
    })?;
    show_refusal(&said, wanted[0]);
    Ok(())
}

/// Prints the line that holds the refusal.
fn show_refusal(said: &str, word: &str) {
    let words = said.lines().find(|line| line.contains(word));
    println!("adoption: refused: {}", words.unwrap_or_default().trim());
}

/// An app that fails ends with 1 and cargo with 101, as a panic does.
fn check_refusal(code: Option<i32>, said: &str, wanted: &[&str]) -> Result<()> {
    ensure!(code.is_some(), "it was ended by a signal");
    ensure!(!said.contains("panicked at"), "it panicked");
    for part in wanted {
        ensure!(said.contains(part), "it does not say {part:?}");
    }
    Ok(())
}

/// Holds the last line of the app against the policy it was given.
fn check_summary(summary: &str, policy: &str) -> Result<()> {
    let pages = summary.strip_prefix(policy).and_then(pages);
    match pages {
        Some((held, full)) if held > 0 && held < full => Ok(()),
        Some((held, full)) => {
            bail!("the cache held {held} of {full} pages; {policy} should hold some and not all")
        }
        None => bail!(
            "the app's last line is {summary:?} and not `{policy}: N of M pages held ...`, as a report's summary is"
        ),
    }
}

/// The two numbers of `: 180 of 450 pages held (...`.
fn pages(text: &str) -> Option<(u64, u64)> {
    let (counts, _) = text.strip_prefix(": ")?.split_once(" pages held")?;
    let (held, full) = counts.split_once(" of ")?;
    Some((held.parse().ok()?, full.parse().ok()?))
}

/// Copies a model's folder, but only the first half of its weights.
fn copy_half(from: &Path, to: &Path) -> Result<()> {
    make_folder(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry?.path();
        let mut bytes = fs::read(&path)?;
        if path.extension().is_some_and(|end| end == "safetensors") {
            bytes.truncate(bytes.len() / 2);
        }
        let target = to.join(path.file_name().unwrap_or_default());
        fs::write(&target, bytes).with_context(|| cannot_write(&target))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_must_be_of_the_policy_and_hold_less() {
        let summary = |held: &str| {
            format!("h2o: {held} pages held (42.9 %), 0.4 MiB of 0.9 MiB; 187 of 422 tokens kept")
        };
        check_summary(&summary("48 of 112"), "h2o").unwrap();
        for (held, policy) in [
            ("112 of 112", "h2o"),
            ("113 of 112", "h2o"),
            ("0 of 112", "h2o"),
            ("48 of many", "h2o"),
            ("48 of 112", "snap-kv"),
            ("48 of 112", "h2"),
        ] {
            let error = check_summary(&summary(held), policy)
                .unwrap_err()
                .to_string();
            assert!(error.contains(policy), "{error}");
        }
        assert!(check_summary("", "h2o").is_err());
    }

    #[test]
    fn refusal_says_everything_and_is_no_panic() {
        let said = "Error: no policy is called `x`; known are h2o";
        check_refusal(Some(1), said, &["`x`", "known are"]).unwrap();
        let error = check_refusal(Some(1), said, &["`y`"]).unwrap_err();
        assert_eq!(error.to_string(), "it does not say \"`y`\"");
        assert!(check_refusal(None, said, &["`x`"]).is_err());
        let panic = format!("thread 'main' panicked at src/main.rs:1:1:\n{said}");
        assert!(check_refusal(Some(101), &panic, &["`x`"]).is_err());
    }

    #[test]
    fn half_a_model_has_all_files_and_half_the_weights() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        make_folder(&from).unwrap();
        fs::write(from.join("model.safetensors"), [1, 2, 3, 4]).unwrap();
        fs::write(from.join("config.json"), "{}").unwrap();
        copy_half(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("model.safetensors")).unwrap(), [1, 2]);
        assert_eq!(fs::read(to.join("config.json")).unwrap(), b"{}");
    }
}
