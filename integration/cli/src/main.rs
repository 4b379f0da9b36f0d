//! `mistralrs-kv`: mistral.rs with compressed KV caches, on the command line.
//!
//! Exit codes: 0 done, 1 something failed while running, 2 a mistake in what the user gave.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a command line prints")]

mod cache_args;
mod compare;
mod conform;
mod policies;
mod prompt_args;
mod run;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
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
    /// Run reference cases of other people's code through the kernels and the policies.
    Conform(conform::Conform),
    /// Serve the model to clients of OpenAI's API.
    Serve(Box<serve::Serve>),
    /// List the policies with their fields and defaults.
    Policies(policies::Policies),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = if cli.verbose { "info" } else { "error" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let done = match cli.command {
        Command::Run(run) => run.execute(!cli.verbose).map(|()| ExitCode::SUCCESS),
        Command::Compare(compare) => compare.execute(!cli.verbose).map(|()| ExitCode::SUCCESS),
        Command::Conform(conform) => conform.execute(),
        Command::Serve(serve) => serve.execute(!cli.verbose).map(|()| ExitCode::SUCCESS),
        Command::Policies(policies) => policies
            .execute()
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            // Files that a user names are the user's to mend.
            let is_users = error.is::<StartError>() || error.is::<kv_conform::ConformError>();
            ExitCode::from(if is_users { 2 } else { 1 })
        }
    }
}
