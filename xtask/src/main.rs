//! `cargo xtask`: sets Headroom up, makes models, patches the engine, builds the book, runs the demo and the checks.
//!
//! It stands outside the workspace, because the workspace resolves fully only once the patched engine exists.

mod adoption;
mod book;
mod checks;
mod cuda;
mod demo;
mod engine;
mod eval;
mod kvpress;
mod lines;
mod metadata;
mod model;
mod mutants;
mod new_policy;
mod once;
mod own_policy;
mod packages;
mod parity;
mod pip;
mod process;
mod profiles;
mod progress;
mod scratch;
mod setup;
mod tally;
mod text;
mod tiny;
mod vendor;
mod workspace;

use std::{env, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::{
    model::{Choice, DtypeArg},
    workspace::Workspace,
};

/// Set-up, model, checks and demo of Headroom.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Patch the engine and fetch the model; does only what is not done yet
    Setup {
        #[command(flatten)]
        model: ModelArg,
    },
    /// Fetch SmolLM2-135M-Instruct and convert it to the number format asked for
    Model {
        /// Number format of the weights
        #[arg(long, value_enum, default_value_t = DtypeArg::Q8_0)]
        dtype: DtypeArg,
        #[command(flatten)]
        model: ModelArg,
    },
    /// Make two tiny models with random weights, for tests and examples
    TinyModels,
    /// Install OpenAI's Python client, which tests of the server speak through
    OpenaiClient,
    /// Fetch the public-domain text that evaluations go on from: the second half of Jane Austen's "Persuasion"
    Text,
    /// Set up, build the command line, and measure what every policy loses and saves, into a folder; goes on where it was cut off
    Eval {
        /// Folder of the results
        #[arg(long, value_name = "FOLDER", default_value = ".headroom/report")]
        out: PathBuf,
        #[command(flatten)]
        model: ModelArg,
        /// More options of `mistralrs-kv eval`
        #[arg(last = true)]
        options: Vec<String>,
    },
    /// Set up, build the command line, find the heads of the model for duo-attention and head-kv, and measure what the profiles are worth; an hour,
    /// goes on where it was cut off
    Profiles {
        /// Folder of profiles and results
        #[arg(long, value_name = "FOLDER", default_value = ".headroom/profiles")]
        out: PathBuf,
        #[command(flatten)]
        model: ModelArg,
    },
    /// Run kvpress' presses on the text that `eval` goes on from, and put the perplexities beside ours; 3 GB of Python packages, then 6 minutes
    Kvpress {
        /// Folder that `eval` wrote
        #[arg(long, value_name = "FOLDER", default_value = ".headroom/report")]
        ours: PathBuf,
        #[command(flatten)]
        model: ModelArg,
    },
    /// Write a patched engine into a folder of your own app and print what to paste there
    Vendor {
        /// Folder to make `mistralrs-core` in; made if it does not exist
        #[arg(long, value_name = "PATH")]
        into: PathBuf,
        /// Folder of the kv-hook crate the copy shall depend on [default: this checkout's integration/hook]
        #[arg(long, value_name = "PATH")]
        hook: Option<PathBuf>,
    },
    /// Set up, build the command line, answer one long prompt under a small budget and say what was saved
    Demo {
        #[command(flatten)]
        model: ModelArg,
    },
    /// Make a policy that runs, from policies/template, with its lines in the shared files and its page
    NewPolicy {
        /// What users will call it, in kebab case
        #[arg(required_unless_present = "trial")]
        name: Option<String>,
        /// Make one in a copy of the checkout, test it there, and leave the checkout as it is
        #[arg(long, conflicts_with = "name")]
        trial: bool,
    },
    /// Let an app on the published crate adopt a compressed cache by the documented steps, build it and run it
    Adoption {
        #[command(flatten)]
        model: ModelArg,
    },
    /// Print how long each policy is: source, tests, shared lines
    Lines,
    /// Build one program against the published and the patched engine and compare its greedy texts
    ParityStock {
        #[command(flatten)]
        model: ModelArg,
    },
    /// Plant mistakes in the policies, one at a time, and say which tests notice
    Mutants(mutants::MutantsArgs),
    /// Build the book, test its code and follow every link; installs mdbook first
    Docs,
    /// Install NVIDIA's compiler for GPU code from its wheels; no GPU needed [env: HEADROOM_NVCC]
    CudaSetup,
    /// Compile the CUDA kernels, compare them with the text that is kept, print what each needs
    CudaKernels {
        /// Keep the new text instead of comparing
        #[arg(long)]
        write: bool,
    },
    /// Type-check the Rust code with feature `cuda`; needs neither GPU nor compiler
    CudaCheck,
    /// Build the command line with feature `cuda`; needs no GPU, takes about an hour
    CudaBuild,
    /// On a machine with a GPU: every op against the CPU, the demo, the benchmark
    GpuTest {
        /// Print the commands and run none
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        model: ModelArg,
    },
    /// Set up, then run every check and every test; ends with one line of totals
    Test {
        #[command(flatten)]
        checks: CheckArgs,
    },
    /// The same as `test`, without progress bars and with the time each step took
    Ci {
        #[command(flatten)]
        checks: CheckArgs,
    },
}

#[derive(Debug, Args)]
struct ModelArg {
    /// Use this model and download nothing [env: HEADROOM_MODEL]
    #[arg(long = "model", value_name = "GGUF")]
    path: Option<PathBuf>,
}

impl ModelArg {
    fn choice(&self) -> Choice {
        Choice::new(self.path.as_deref(), env::var_os("HEADROOM_MODEL"))
    }
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Only the crates that do not need the engine: no set-up, no model, no book, no demo
    #[arg(long)]
    light: bool,
    #[command(flatten)]
    model: ModelArg,
}

impl CheckArgs {
    fn run(&self, workspace: &Workspace, timings: bool) -> Result<ExitCode> {
        let scope = if self.light {
            checks::Scope::Light
        } else {
            checks::Scope::Full(self.model.choice())
        };
        checks::run(workspace, &scope, timings)
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match command {
        Command::Setup { model } => {
            setup::run(&workspace, DtypeArg::Q8_0, &model.choice())?;
        }
        Command::Model { dtype, model } => {
            let _lock = workspace.lock()?;
            model::ensure(&workspace, dtype, &model.choice())?;
        }
        Command::TinyModels => {
            let _lock = workspace.lock()?;
            tiny::ensure(&workspace)?;
        }
        Command::OpenaiClient => {
            let _lock = workspace.lock()?;
            packages::ensure(&workspace, &packages::OPENAI)?;
        }
        Command::Text => {
            let _lock = workspace.lock()?;
            text::ensure(&workspace)?;
        }
        Command::Eval {
            out,
            model,
            options,
        } => eval::run(&workspace, &model.choice(), &out, &options)?,
        Command::Profiles { out, model } => profiles::run(&workspace, &model.choice(), &out)?,
        Command::Kvpress { ours, model } => kvpress::run(&workspace, &model.choice(), &ours)?,
        Command::Vendor { into, hook } => {
            vendor::run(&workspace, &into, hook.as_deref())?;
        }
        Command::Demo { model } => demo::run(&workspace, &model.choice())?,
        Command::NewPolicy {
            name: Some(name), ..
        } => new_policy::run(&workspace, &name)?,
        Command::NewPolicy { name: None, .. } => {
            println!("{}", new_policy::trial(&workspace)?);
        }
        Command::Adoption { model } => adoption::run(&workspace, &model.choice())?,
        Command::ParityStock { model } => parity::run(&workspace, &model.choice())?,
        Command::Lines => lines::run(&workspace)?,
        Command::Mutants(args) => mutants::run(&workspace, &args)?,
        Command::Docs => book::run(&workspace)?,
        Command::CudaSetup => cuda::setup(&workspace)?,
        Command::CudaKernels { write: true } => {
            cuda::kernels(&workspace, cuda::KernelAction::Write)?;
        }
        Command::CudaKernels { write: false } => {
            cuda::kernels(&workspace, cuda::KernelAction::Compare)?;
        }
        Command::CudaCheck => cuda::check(&workspace)?,
        Command::CudaBuild => cuda::build(&workspace)?,
        Command::GpuTest { dry_run, model } => {
            let model = model.choice();
            return cuda::gpu_test(&workspace, &cuda::GpuOptions { model, dry_run });
        }
        Command::Test { checks } => return checks.run(&workspace, false),
        Command::Ci { checks } => {
            progress::no_bars();
            return checks.run(&workspace, true);
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
