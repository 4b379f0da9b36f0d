//! `mistralrs-kv conform`: what other people's code keeps, and what ours keeps.
use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use kv_core::Registry;

#[derive(Debug, Args)]
pub(crate) struct Conform {
    /// Reference cases: method, parameters and where their masks are.
    #[arg(value_name = "CASES.json")]
    cases: PathBuf,
    /// Queries, keys and masks.
    #[arg(value_name = "ARRAYS.npz")]
    arrays: PathBuf,
}

impl Conform {
    /// Prints a line for each case and the counts; fails if any case differs.
    pub(crate) fn execute(&self, registry: &Registry) -> Result<ExitCode> {
        let report = kv_conform::run(registry, &self.cases, &self.arrays)?;
        println!("{report}");
        Ok(if report.is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
