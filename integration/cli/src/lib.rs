//! The program `mistralrs-kv` as a library: [`main`], and [`main_with`] for a program that has policies of its own.
//!
//! ```no_run
//! # type MyConfig = kv_core::KeepAllConfig;
//! fn main() -> std::process::ExitCode {
//!     mistralrs_kv_cli::main_with(|registry| {
//!         registry.add::<MyConfig>();
//!     })
//! }
//! ```
//!
//! Exit codes: 0 done, 1 something failed while running, 2 a mistake in what the user gave.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command line prints")]

mod bench;
mod cache_args;
mod clock;
mod compare;
mod conform;
mod eval;
mod plot;
mod policies;
mod profile;
mod prompt_args;
mod run;
mod serve;
mod stream;
mod table;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use kv_core::Registry;
use kv_profile::ProfileError;
use mistralrs_kv::StartError;
use tracing_subscriber::EnvFilter;

/// mistral.rs with compressed KV caches.
#[derive(Parser)]
#[command(name = "mistralrs-kv", version, about)]
struct Cli {
    /// Show the engine's messages.
    #[arg(long, short, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Generate text: one answer to `--prompt`, or a conversation without it.
    Run(Box<run::Run>),
    /// Measure how far a policy moves the next-token distribution from the full cache's.
    Compare(Box<compare::Compare>),
    /// Measure how fast the model reads and writes, or the goals for speed.
    Bench(Box<bench::Bench>),
    /// Measure what policies lose and save, on tasks with known answers and on a text.
    Eval(Box<eval::Eval>),
    /// Have the model read a long text token by token, and say how well it expects it, how many pages it holds and how fast it is.
    Stream(Box<stream::Stream>),
    /// Run reference cases of other people's code through the kernels and the policies.
    Conform(conform::Conform),
    /// Find out which heads of a model retrieve, for duo-attention and head-kv, and look at what was found.
    #[command(subcommand)]
    Profile(profile::Profile),
    /// Serve the model to clients of OpenAI's API.
    Serve(Box<serve::Serve>),
    /// List the policies with their fields and defaults.
    Policies(policies::Policies),
}

impl Command {
    fn execute(self, registry: Registry, silent: bool) -> Result<ExitCode> {
        match self {
            Self::Run(run) => run.execute(registry, silent)?,
            Self::Compare(compare) => compare.execute(registry, silent)?,
            Self::Bench(bench) => bench.execute(registry, silent)?,
            Self::Eval(eval) => eval.execute(registry, silent)?,
            Self::Stream(stream) => stream.execute(registry, silent)?,
            Self::Conform(conform) => return conform.execute(&registry),
            Self::Profile(profile) => profile.execute()?,
            Self::Serve(serve) => serve.execute(registry, silent)?,
            Self::Policies(policies) => policies.execute(&registry)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The program, with the policies of this build.
#[must_use]
pub fn main() -> ExitCode {
    main_with(|_| ())
}

/// The program, with the policies that `extend` adds to those of this build. One of a name that is there replaces it.
///
/// Reads the arguments of the process, and ends it where they are not understood or ask for help.
#[must_use]
pub fn main_with(extend: impl FnOnce(&mut Registry)) -> ExitCode {
    let cli = Cli::parse();
    let level = if cli.verbose { "info" } else { "error" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let mut registry = mistralrs_kv::policies();
    extend(&mut registry);
    match cli.command.execute(registry, !cli.verbose) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            // Files that a user names are the user's to mend.
            let is_users = error.is::<StartError>()
                || error.is::<kv_conform::ConformError>()
                || error.downcast_ref().is_some_and(ProfileError::is_users);
            ExitCode::from(if is_users { 2 } else { 1 })
        }
    }
}
