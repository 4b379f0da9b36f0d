//! The tests of one policy: builds them, runs them, says which fail.
use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::{process, workspace::Workspace};

/// A test program that takes longer is ended.
const LONGEST: Duration = Duration::from_secs(120);
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
/// The macro that makes a module of the kit's tests; its first argument is the module's name.
const KIT: &str = "conformance!";

/// A test, apart from what it said.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Test {
    /// A property of the conformance kit.
    Kit(String),
    /// `target::path`, where the library's target is `unit` and that of its examples in comments `doc`.
    Other(String),
}

/// What one run of all tests came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) passed: BTreeSet<Test>,
    pub(crate) failed: BTreeSet<Test>,
}

/// How to build and run the tests of one policy.
#[derive(Debug)]
pub(crate) struct Suite<'a> {
    workspace: &'a Workspace,
    folder: PathBuf,
    target: PathBuf,
    package: String,
    /// Modules that the kit made.
    modules: BTreeSet<String>,
}

/// One line of what `cargo build` says in JSON.
#[derive(Debug, Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// A built test program.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    name: String,
    path: PathBuf,
}

impl<'a> Suite<'a> {
    /// Of the policy in `folder`, built into `target`.
    pub(crate) fn new(
        workspace: &'a Workspace,
        policy: &str,
        folder: PathBuf,
        target: &Path,
    ) -> Result<Self> {
        let mut modules = BTreeSet::new();
        for part in ["src", "tests"] {
            collect_modules(&folder.join(part), &mut modules)?;
        }
        Ok(Self {
            workspace,
            folder,
            target: target.to_owned(),
            package: format!("kv-policy-{policy}"),
            modules,
        })
    }

    /// Builds and runs everything. An error if something does not compile or dies without a failed test.
    pub(crate) fn run(&self) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        for program in self.build()? {
            let mut command = process::without_us(&program.path);
            command.current_dir(&self.folder);
            self.tests(&program.name, &mut command, &mut outcome)?;
        }
        let mut doc = self.cargo();
        doc.args(["--doc", "--no-fail-fast"]);
        self.tests("doc", &mut doc, &mut outcome)?;
        Ok(outcome)
    }

    /// The release profile, as in `cargo xtask test`, but incremental: little changes from mutant to mutant, and cargo
    /// then compiles it in a second instead of ten.
    fn cargo(&self) -> Command {
        let mut command = process::cargo(self.workspace);
        command
            .current_dir(&self.folder)
            .args(["test", "--release", "-p", &self.package, "--target-dir"])
            .arg(&self.target)
            .env("CARGO_INCREMENTAL", "1");
        command
    }

    fn build(&self) -> Result<Vec<Program>> {
        let mut command = self.cargo();
        command.args(["--no-run", "--message-format", "json-render-diagnostics"]);
        programs(&process::output(&mut command).context("it does not compile")?)
    }

    fn tests(&self, target: &str, command: &mut Command, outcome: &mut Outcome) -> Result<()> {
        let (text, end) = ended(command, LONGEST)?;
        let before = outcome.failed.len();
        for (name, has_passed) in text.lines().filter_map(result) {
            let test = self.test(target, name);
            let tests = if has_passed {
                &mut outcome.passed
            } else {
                &mut outcome.failed
            };
            tests.insert(test);
        }
        let is_killed = outcome.failed.len() > before;
        match end {
            End::Passed => Ok(()),
            _ if is_killed => Ok(()),
            End::Failed => bail!("the tests of `{target}` end without naming one that failed"),
            End::TooLong => bail!(
                "the tests of `{target}` take longer than {} s, and none failed before",
                LONGEST.as_secs()
            ),
        }
    }

    fn test(&self, target: &str, name: &str) -> Test {
        let mut path = name.rsplit("::");
        match (path.next(), path.next()) {
            (Some(property), Some(module)) if self.modules.contains(module) => {
                Test::Kit(property.to_owned())
            }
            _ => Test::Other(format!("{target}::{name}")),
        }
    }
}

/// Names of the modules that the kit makes in the sources below a folder.
fn collect_modules(folder: &Path, modules: &mut BTreeSet<String>) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    let entries = fs::read_dir(folder);
    for entry in entries.with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect_modules(&path, modules)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            modules.extend(modules_in(&text));
        }
    }
    Ok(())
}

fn modules_in(source: &str) -> impl Iterator<Item = String> {
    let calls = source.split(KIT).skip(1);
    calls.filter_map(|call| {
        let (name, _) = call.trim_start().strip_prefix('(')?.split_once(',')?;
        Some(name.trim().to_owned())
    })
}

/// The test programs in cargo's messages.
fn programs(messages: &str) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line)
            .context("cargo printed something unknown; update Rust with `rustup update`")?;
        if let (Some(path), Some(target)) = (message.executable, message.target) {
            let is_library = target.kind.iter().any(|kind| kind == "lib");
            let name = if is_library {
                "unit".to_owned()
            } else {
                target.name
            };
            programs.push(Program { name, path });
        }
    }
    ensure!(!programs.is_empty(), "it has no test program");
    Ok(programs)
}

/// The name in a line such as `test kit::budgets_nest ... FAILED`, and whether the test passed.
fn result(line: &str) -> Option<(&str, bool)> {
    let (name, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    match result {
        "ok" => Some((name, true)),
        "FAILED" => Some((name, false)),
        _ => None,
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    /// It was stopped.
    TooLong,
}

/// Runs to the end, but not beyond `limit`; what was printed on stdout until then.
fn ended(command: &mut Command, limit: Duration) -> Result<(String, End)> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let written = process::written(command);
    let mut child = command
        .spawn()
        .with_context(|| format!("`{written}` cannot be started"))?;
    let mut stdout = child.stdout.take().context("a pipe was asked for")?;
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error counts.
        let _ = stdout.read_to_end(&mut bytes);
        bytes
    });
    let end = wait(&mut child, limit)?;
    let bytes = reader.join().unwrap_or_default();
    Ok((String::from_utf8_lossy(&bytes).into_owned(), end))
}

fn wait(child: &mut Child, limit: Duration) -> Result<End> {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(if status.success() {
                End::Passed
            } else {
                End::Failed
            });
        }
        if started.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(End::TooLong);
        }
        thread::sleep(BETWEEN_LOOKS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite<'a>(workspace: &'a Workspace, modules: &[&str]) -> Suite<'a> {
        Suite {
            workspace,
            folder: PathBuf::new(),
            target: "target".into(),
            package: "kv-policy-window".into(),
            modules: modules.iter().map(|&module| module.to_owned()).collect(),
        }
    }

    fn names(tests: &BTreeSet<Test>) -> Vec<&str> {
        let mut names = Vec::new();
        for test in tests {
            let (Test::Kit(name) | Test::Other(name)) = test;
            names.push(name.as_str());
        }
        names
    }

    #[test]
    fn kit_is_what_the_macro_made() {
        let source = "use kv_core::conformance;\nkv_core::conformance!(kit, Config::default);\n\
             conformance! (\n    small, [a, b]; also heads_are_alike);\n// kv_core::conformance! in one line\n";
        assert_eq!(modules_in(source).collect::<Vec<_>>(), ["kit", "small"]);
        let workspace = Workspace::at(Path::new("/checkout"));
        let suite = suite(&workspace, &["kit"]);
        let kit = Test::Kit("budgets_nest".into());
        assert_eq!(suite.test("conformance", "kit::budgets_nest"), kit);
        assert_eq!(suite.test("conformance", "more::kit::budgets_nest"), kit);
        let other = Test::Other("conformance::budgets_nest".into());
        assert_eq!(suite.test("conformance", "budgets_nest"), other);
        let other = Test::Other("unit::policy::tests::kit".into());
        assert_eq!(suite.test("unit", "policy::tests::kit"), other);
    }

    #[test]
    fn lines_of_the_test_runner() {
        let lines = "running 4 tests\n\
             test kit::budgets_nest ... FAILED\n\
             test src/lib.rs - window (line 3) ... ok\n\
             test panics - should panic ... FAILED\n\
             test slow ... ignored, takes an hour\n\
             test result: FAILED. 1 passed; 2 failed; 1 ignored";
        let expected = [
            ("kit::budgets_nest", false),
            ("src/lib.rs - window (line 3)", true),
            ("panics", false),
        ];
        assert_eq!(
            lines.lines().filter_map(result).collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn test_programs_are_found_in_the_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"kv_core","kind":["lib"]},"executable":null}
{"reason":"compiler-artifact","target":{"name":"kv_policy_window","kind":["lib"]},"executable":"/t/a"}
{"reason":"compiler-artifact","target":{"name":"golden","kind":["test"]},"executable":"/t/b"}
{"reason":"build-finished","success":true}
"#;
        let program = |name: &str, path: &str| Program {
            name: name.into(),
            path: path.into(),
        };
        let expected = [program("unit", "/t/a"), program("golden", "/t/b")];
        assert_eq!(programs(messages).unwrap(), expected);
        assert!(programs("").is_err());
        assert!(programs("{\"target\": 3}").is_err());
    }

    #[cfg(unix)]
    mod programs_that_end_badly {
        use super::*;

        /// What comes of a test program that does this.
        fn run(script: &str) -> (Outcome, Result<()>) {
            let workspace = Workspace::at(Path::new("/checkout"));
            let mut outcome = Outcome::default();
            let mut command = Command::new("sh");
            let ended = suite(&workspace, &["kit"]).tests(
                "golden",
                command.args(["-c", script]),
                &mut outcome,
            );
            (outcome, ended)
        }

        #[test]
        fn failed_and_passed_tests_are_kept_apart() {
            let (outcome, ended) =
                run("echo 'test kit::a ... FAILED'; echo 'test b ... ok'; exit 101");
            ended.unwrap();
            assert_eq!(names(&outcome.failed), ["a"]);
            assert_eq!(names(&outcome.passed), ["golden::b"]);
        }

        #[test]
        fn death_without_a_failed_test_is_an_error() {
            let error = run("echo 'test b ... ok'; exit 3")
                .1
                .unwrap_err()
                .to_string();
            assert!(error.contains("`golden` end without naming"), "{error}");
        }

        #[test]
        fn what_was_said_before_the_limit_counts() {
            let mut command = Command::new("sh");
            command.args(["-c", "echo 'test b ... FAILED'; exec sleep 60"]);
            let (text, end) = ended(&mut command, Duration::from_millis(500)).unwrap();
            assert_eq!((text.as_str(), end), ("test b ... FAILED\n", End::TooLong));
        }
    }
}
