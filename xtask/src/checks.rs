//! Every check and every test, cheapest first, ended by one line of totals.
//!
//! Everything that touches the engine runs in the release profile, so that cargo compiles it once for tests, command
//! line and demo, and looks through it once for clippy, docs and features.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    adoption, book, cuda, demo, metadata::Metadata, model::Choice, new_policy, once, own_policy,
    packages, process, setup, tally::Tally, workspace::Workspace,
};

/// The package that has one feature per policy.
const FACADE: &str = "mistralrs-kv";
/// Packages that need no engine; the policies are found by their folder.
const LIGHT: [&str; 10] = [
    "kv-core",
    "attention-kernels",
    "cuda-host-shim",
    "kv-conform",
    "kv-eval",
    "kv-hook",
    "kv-loader",
    "kv-patch",
    "kv-profile",
    "ptx-emulator",
];
/// Features that a check of their own covers, because they compile only with tools of their own.
const COVERED: [&str; 1] = ["cuda"];
/// Kernels on an emulated GPU; with the engine, its tests switch this on.
const EMULATOR: &str = "attention-kernels/emulator";
const XTASK: [&str; 2] = ["--manifest-path", "xtask/Cargo.toml"];
const DENY: [&str; 3] = ["--", "-D", "warnings"];

/// How much is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// What needs no engine.
    Light,
    /// Everything, with this model.
    Full(Choice),
}

/// Runs the checks; fails if any of them does.
pub(crate) fn run(workspace: &Workspace, scope: &Scope, timings: bool) -> Result<ExitCode> {
    let mut checks = Checks {
        workspace,
        users_model: None,
        timings,
        total: Tally::default(),
        steps: Vec::new(),
    };
    match scope {
        Scope::Light => checks.light()?,
        Scope::Full(choice) => checks.full(choice),
    }
    Ok(checks.finish())
}

#[derive(Debug)]
struct Checks<'a> {
    workspace: &'a Workspace,
    users_model: Option<PathBuf>,
    timings: bool,
    total: Tally,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    name: String,
    tally: Tally,
    took: Duration,
}

impl Checks<'_> {
    fn light(&mut self) -> Result<()> {
        let packages = light_packages(self.workspace, &Metadata::of(self.workspace)?);
        let selection: Vec<&str> = packages.iter().flat_map(|name| ["-p", name]).collect();
        self.common(&selection);
        self.tests(
            "tests",
            &[
                &[
                    "test",
                    "--release",
                    "--no-fail-fast",
                    "--features",
                    EMULATOR,
                ],
                &selection[..],
            ]
            .concat(),
        );
        self.authors();
        Ok(())
    }

    fn full(&mut self, choice: &Choice) {
        let mut models = Vec::new();
        let workspace = self.workspace;
        self.users_model = choice.users();
        let ready = self.step("set-up", || {
            models = setup::for_tests(workspace, choice)?;
            Ok(Tally::PASSED)
        });
        if !ready {
            // Nothing below could run; the error above says what to do.
            return;
        }
        self.step("OpenAI's client", || {
            let _lock = workspace.lock()?;
            packages::ensure(workspace, &packages::OPENAI).map(|_| Tally::PASSED)
        });
        self.step("engine is compiled once", || {
            once::check(workspace).map(|()| Tally::PASSED)
        });
        self.common(&["--workspace"]);
        self.cuda();
        self.tests(
            "tests",
            &["test", "--release", "--no-fail-fast", "--workspace"],
        );
        self.authors();
        self.step("book", || book::run(workspace).map(|()| Tally::PASSED));
        self.features();
        // The very selection the tests were built with, so that nothing is compiled again for other features.
        let build = [
            "build",
            "--release",
            "--workspace",
            "--bins",
            "--examples",
            "--tests",
        ];
        let mut build = self.cargo(&build);
        let model = || {
            let model = models.first();
            model.context("set-up made no model; run `cargo xtask model`")
        };
        self.step("demo", || {
            process::run(&mut build)?;
            demo::show(workspace, model()?).map(|()| Tally::PASSED)
        });
        // Behind the tests, whose third-party crates it takes over.
        self.step("adoption", || {
            adoption::prove(workspace, model()?).map(|()| Tally::PASSED)
        });
    }

    /// What both scopes begin with.
    fn common(&mut self, selection: &[&str]) {
        self.check("format", &["fmt", "--all", "--check", "--", adoption::MAIN]);
        self.check(
            "format of own-policy",
            &[&["fmt", "--check"], &own_policy::MANIFEST[..]].concat(),
        );
        self.check(
            "format of xtask",
            &[&["fmt", "--check"], &XTASK[..]].concat(),
        );
        self.check(
            "clippy of xtask",
            &[&["clippy", "--all-targets"], &XTASK[..], &DENY].concat(),
        );
        self.tests(
            "tests of xtask",
            &[&["test", "--no-fail-fast"], &XTASK[..]].concat(),
        );
        self.check(
            "clippy",
            &[&["clippy", "--release", "--all-targets"], selection, &DENY].concat(),
        );
        self.check(
            "docs",
            &[&["doc", "--release", "--no-deps"], selection].concat(),
        );
    }

    /// What authors of policies start from: the policy outside the workspace, and one that is made anew.
    fn authors(&mut self) {
        let workspace = self.workspace;
        self.step("own-policy", || own_policy::test(workspace));
        self.step("a new policy", || new_policy::trial(workspace));
    }

    /// Kernels and Rust code of feature `cuda`, as far as a machine without a GPU can check them.
    fn cuda(&mut self) {
        let workspace = self.workspace;
        let kernels = "CUDA kernels";
        match cuda::why_not() {
            Some(reason) => self.skip(kernels, &reason),
            None => {
                self.step(kernels, || {
                    cuda::setup(workspace)?;
                    cuda::kernels(workspace, cuda::KernelAction::Compare)?;
                    Ok(Tally::PASSED)
                });
            }
        }
        self.step("CUDA type check", || {
            cuda::check(workspace).map(|()| Tally::PASSED)
        });
    }

    /// Each policy must compile without the others, and the rest without any. That each also runs without the others is a test of
    /// the whole build: to link the engine for every feature would take longer than all other tests of the runtime.
    fn features(&mut self) {
        let workspace = self.workspace;
        let mut features = Vec::new();
        let found = self.step("list of features", || {
            let metadata = Metadata::of(workspace)?;
            features = metadata
                .package(FACADE)?
                .features
                .keys()
                .filter(|name| *name != "default" && !COVERED.contains(&name.as_str()))
                .cloned()
                .collect();
            Ok(Tally::default())
        });
        if !found {
            return;
        }
        let alone = ["--release", "-p", FACADE, "--no-default-features"];
        let check = [&["check", "--tests"], &alone[..]].concat();
        self.check("no feature", &check);
        for feature in &features {
            let name = format!("feature `{feature}` alone");
            self.check(&name, &[&check[..], &["--features", feature]].concat());
        }
    }

    /// A cargo command that counts as one check.
    fn check(&mut self, name: &str, args: &[&str]) {
        let mut command = self.cargo(args);
        self.step(name, || process::run(&mut command).map(|()| Tally::PASSED));
    }

    /// A cargo command whose tests are counted.
    fn tests(&mut self, name: &str, args: &[&str]) {
        let mut command = self.cargo(args);
        self.step(name, || {
            let (mut tally, succeeded) = Tally::of_tests(&mut command)?;
            if !succeeded && tally.failed == 0 {
                // It did not compile, or a test program died without saying so.
                eprintln!(
                    "error: `{}` failed; its own messages stand above",
                    process::written(&command)
                );
                tally += Tally::FAILED;
            }
            Ok(tally)
        });
    }

    fn cargo(&self, args: &[&str]) -> Command {
        let mut command = process::cargo(self.workspace);
        command.args(args).env("RUSTDOCFLAGS", "-Dwarnings");
        if let Some(model) = &self.users_model {
            command.env("HEADROOM_MODEL", model);
        }
        command
    }

    fn skip(&mut self, name: &str, reason: &str) {
        self.step(name, || {
            println!("skipped: {reason}");
            Ok(Tally::SKIPPED)
        });
    }

    /// Does one piece of work under a heading; true unless something failed. A failure never stops the rest.
    fn step(&mut self, name: &str, work: impl FnOnce() -> Result<Tally>) -> bool {
        println!("\n== {name}");
        let started = Instant::now();
        let tally = work().unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            Tally::FAILED
        });
        let took = started.elapsed();
        if self.timings {
            println!("took {:.1} s", took.as_secs_f64());
        }
        self.total += tally;
        self.steps.push(Step {
            name: name.to_owned(),
            tally,
            took,
        });
        tally.failed == 0
    }

    /// Sums up; the totals are the very last line.
    fn finish(&self) -> ExitCode {
        println!();
        if self.timings {
            for step in &self.steps {
                println!(
                    "{:>8.1} s  {} ({})",
                    step.took.as_secs_f64(),
                    step.name,
                    step.tally
                );
            }
        }
        for step in self.steps.iter().filter(|step| step.tally.failed > 0) {
            println!("failed: {}", step.name);
        }
        println!("{}", self.total);
        if self.total.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

fn light_packages(workspace: &Workspace, metadata: &Metadata) -> Vec<String> {
    let policies = workspace.root().join("policies");
    let packages = metadata.packages.iter();
    let light = packages.filter(|package| {
        LIGHT.contains(&&*package.name) || package.manifest_path.starts_with(&policies)
    });
    light.map(|package| package.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anyhow::bail;

    use super::*;

    #[test]
    fn a_failed_step_is_counted_and_the_rest_still_runs() {
        let workspace = Workspace::at(Path::new("/checkout"));
        let mut checks = Checks {
            workspace: &workspace,
            users_model: None,
            timings: true,
            total: Tally::default(),
            steps: Vec::new(),
        };
        assert!(checks.step("good", || Ok(Tally::PASSED)));
        assert!(!checks.step("bad", || bail!("no")));
        checks.skip("odd", "no tool");
        assert_eq!(checks.total.to_string(), "1 passed, 1 failed, 1 skipped");
        assert_eq!(checks.steps.len(), 3);
    }

    #[test]
    fn light_is_the_named_packages_and_every_policy() {
        let package = |name: &str, folder: &str| {
            format!(
                r#"{{"name":"{name}","version":"0.1.0","manifest_path":"/checkout/{folder}/Cargo.toml","features":{{}}}}"#
            )
        };
        let packages = [
            package("kv-core", "kv-core"),
            package("kv-policy-h2o", "policies/h2o"),
            package("mistralrs-kv", "integration"),
        ];
        let text = format!(
            r#"{{"packages":[{}],"target_directory":"/t","workspace_root":"/w"}}"#,
            packages.join(",")
        );
        let metadata = Metadata::parse(&text).unwrap();
        let light = light_packages(&Workspace::at(Path::new("/checkout")), &metadata);
        assert_eq!(light, ["kv-core", "kv-policy-h2o"]);
    }
}
