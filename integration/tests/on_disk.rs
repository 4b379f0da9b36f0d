//! A policy that is a program of its own runs in the engine. Without a harness, for this file is the programs too: started under
//! a policy's name it serves that policy.
#![expect(
    clippy::print_stdout,
    reason = "a test without a harness says how it went"
)]
mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use common::{engine, holds_less, start, tiny};
use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Policy, PolicyConfig, Registry,
    Room, schemars::JsonSchema,
};
use mistralrs_kv::{CacheConfig, Prompt, Request, StartError, policies};
use serde::{Deserialize, Serialize};

/// Keeps the newest tokens, and panics over a prompt of the length that it is told.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
struct NewestConfig {
    /// The length that it cannot stand.
    broken_at: usize,
}

impl PolicyConfig for NewestConfig {
    const NAME: &'static str = "newest";
    const SUMMARY: &'static str = "the newest tokens of the prompt";
    type Policy = Self;

    fn bind(self, _: &Geometry, _: Budget) -> Result<Self, ConfigError> {
        Ok(self)
    }
}

impl Policy for NewestConfig {
    fn needs(&self) -> Needs {
        Needs {
            appends: true,
            ..Needs::NONE
        }
    }

    fn room(&self, _: usize, _: usize, budget: usize) -> Room {
        Room::Each(budget)
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        assert_ne!(view.prompt, self.broken_at, "cannot stand this prompt");
        for head in 0..view.heads() {
            keep.window(head, 0, view.budget);
        }
    }
}

/// This program under a policy's name.
fn program(folder: &Path) -> PathBuf {
    let here = std::env::current_exe().expect("a program has a path");
    let there = folder.join(NewestConfig::NAME);
    fs::copy(here, &there).expect("copies the program");
    there
}

fn prompt(tokens: u32) -> Prompt {
    let token = |i| i * 7 % (tiny::VOCABULARY - 1);
    Prompt::Tokens((0..tokens).map(token).collect())
}

async fn a_program_keeps_what_the_same_policy_keeps_compiled_in(folder: &Path, model: &Path) {
    let program = CacheConfig::from_program(&program(folder), policies());
    let program = program.expect("a policy").budget(Budget::Tokens(64));
    let mut registry = Registry::default();
    registry.add::<NewestConfig>();
    let compiled = CacheConfig::new("newest")
        .registry(registry)
        .budget(Budget::Tokens(64));
    let mut said = Vec::new();
    for cache in [program, compiled] {
        let engine = start(engine(model.to_owned(), Some(cache))).await;
        let report = holds_less(&engine, prompt(200), "newest").await;
        said.push((report.text, report.kept));
    }
    assert_eq!(said[0], said[1]);
}

/// The request fails and says why; the engine goes on.
async fn a_program_that_panics_fails_the_request(folder: &Path, model: &Path) {
    let cache = CacheConfig::from_program(&program(folder), policies());
    let cache = cache.expect("a policy").set("broken_at", 150);
    let engine = start(engine(
        model.to_owned(),
        Some(cache.budget(Budget::Tokens(64))),
    ))
    .await;
    holds_less(&engine, prompt(200), "newest").await;
    let failed = engine.generate(Request::greedy(prompt(150), 8)).await;
    let said = format!("{:#}", failed.expect_err("the policy panicked"));
    for part in ["newest", "cannot stand this prompt"] {
        assert!(said.contains(part), "{part:?} in {said:?}");
    }
    // It keeps nothing back from who asks next, and leaves no page behind.
    let next = engine.generate(Request::greedy(prompt(200), 8)).await;
    assert!(next.is_err(), "the policy is not there any more");
    let runtime = engine.runtime().expect("a policy");
    assert!(
        runtime.wait_ended(Duration::from_secs(30)),
        "all have ended"
    );
    let pool = runtime.stats().expect("open").pool;
    assert_eq!((pool.held, pool.promised), (0, 0));
}

fn what_is_no_policy_is_refused_at_start(folder: &Path) {
    let text = folder.join("text");
    fs::write(&text, "not a program").expect("writes");
    for path in [text, folder.join("nothing")] {
        let refused = CacheConfig::from_program(&path, policies());
        let refused = refused.expect_err("no program");
        assert!(matches!(refused, StartError::Program(_)), "{refused}");
        assert!(
            refused.to_string().contains(&*path.to_string_lossy()),
            "{refused}"
        );
    }
}

fn main() -> ExitCode {
    let name = std::env::current_exe().expect("a program has a path");
    if name
        .file_name()
        .is_some_and(|name| name == NewestConfig::NAME)
    {
        return kv_loader::serve::<NewestConfig>();
    }
    let folder = tempfile::tempdir().expect("makes a folder");
    let model = folder.path().join("tiny.gguf");
    tiny::write(&model, 1);
    let threads = tokio::runtime::Runtime::new().expect("a runtime");
    what_is_no_policy_is_refused_at_start(folder.path());
    threads.block_on(async {
        a_program_keeps_what_the_same_policy_keeps_compiled_in(folder.path(), &model).await;
        a_program_that_panics_fails_the_request(folder.path(), &model).await;
    });
    println!("test result: ok. 3 passed; 0 failed; 0 ignored");
    ExitCode::SUCCESS
}
