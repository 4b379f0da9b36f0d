//! `mistralrs-kv bench`: how fast a model reads and writes under a policy, and whether the project's goals for speed hold.
mod axes;
mod figures;
mod goals;
mod measure;
mod process;
mod random;
mod side;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use kv_core::Registry;
use mistralrs_kv::StartError;
use serde::Serialize;

use crate::{cache_args::ModelArgs, run::out_of_range};
use axes::Axes;
use goals::Group;

/// Measurements that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Every goal for speed and memory on a CPU, each with its target.
    Goals,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    axes: Axes,
    /// Run a suite instead: it chooses policies and lengths itself, and takes some 20 minutes on two cores.
    #[arg(long, value_enum, value_name = "NAME")]
    suite: Option<Suite>,
    /// Only these goals of the suite; several with commas.
    #[arg(
        long,
        value_enum,
        value_name = "GROUP",
        value_delimiter = ',',
        requires = "suite"
    )]
    only: Vec<Group>,
    /// The suite with short prompts and small memory, without the engine's own attention over a long prompt: shows that it runs,
    /// not how fast.
    #[arg(long, requires = "suite")]
    quick: bool,
    /// Write the figures to a JSON file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Bench {
    pub(crate) fn execute(&self, registry: Registry, silent: bool) -> Result<()> {
        self.axes.check()?;
        let config = self.model.engine(registry.clone(), silent)?;
        if let Some(path) = &self.json {
            // Not when all has been measured.
            save(path, &[(); 0])?;
        }
        let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
        let json = self.json.as_deref();
        match self.suite {
            None => {
                let model = self.model.name()?;
                runtime.block_on(self.axes.run(config, &registry, &model, json))
            }
            Some(Suite::Goals) => {
                runtime.block_on(goals::run(config, &self.only, self.quick, json))
            }
        }
    }
}

/// Writes figures to a file.
fn save(path: &Path, figures: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(figures)?;
    text.push('\n');
    write(path, &text)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| {
        let reason = format!("cannot write the figures: {error}");
        let path = path.to_owned();
        StartError::File { path, reason }.into()
    })
}

/// Refuses a number that must not be 0.
fn at_least_one(field: &'static str, number: usize) -> Result<(), StartError> {
    match number {
        0 => Err(out_of_range(field, 0, "at least 1")),
        _ => Ok(()),
    }
}
