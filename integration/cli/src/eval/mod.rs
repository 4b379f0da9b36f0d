//! `mistralrs-kv eval`: what policies lose and save, on tasks with known answers and on a text.
mod caches;
mod html;
mod items;
mod record;
mod run;
mod summary;
mod tables;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use kv_core::Registry;
use kv_eval::tasks::from_lines;
use mistralrs_kv::{CacheConfig, EngineConfig, StartError};
use serde::Serialize;

use crate::{
    cache_args::{ModelArgs, make_room, read},
    run::out_of_range,
    table::Table,
};
use items::{Plan, Task};
use record::Records;

/// So many tasks are printed one by one.
const FEW: usize = 4;

#[derive(Debug, Args)]
pub(crate) struct Eval {
    #[command(flatten)]
    model: ModelArgs,
    /// Which policies, besides the full cache and the baselines `random` and `recency`: names with commas, or `all`. Fields may follow a name:
    /// `tova:decode=append`.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "all"
    )]
    policies: Vec<String>,
    /// Budgets of every policy, with commas: tokens per head or shares of the text.
    #[arg(
        long,
        value_name = "AMOUNT",
        value_delimiter = ',',
        default_value = "50%,25%,10%"
    )]
    budgets: Vec<String>,
    /// Only these tasks; several with commas.
    #[arg(long, value_enum, value_name = "TASK", value_delimiter = ',')]
    tasks: Vec<Task>,
    /// Tokens of the texts that are made, about; several with commas.
    #[arg(
        long,
        value_name = "TOKENS",
        value_delimiter = ',',
        default_value = "1000"
    )]
    lengths: Vec<usize>,
    /// Items of each task and length.
    #[arg(long, value_name = "N", default_value_t = 4)]
    trials: usize,
    /// Read the beginning of this text, compress it and go on with what follows.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Tokens of the text that are compressed.
    #[arg(long, value_name = "TOKENS", default_value_t = 3000, requires = "text")]
    context: usize,
    /// Tokens of the text that are scored behind that.
    #[arg(long, value_name = "TOKENS", default_value_t = 512, requires = "text")]
    continuation: usize,
    /// Ask what a file of LongBench or RULER asks, JSON lines with `context`, `input` and `answers`, or `input` and `outputs`; may be repeated.
    #[arg(long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Lines of each file, at most.
    #[arg(long, value_name = "N", default_value_t = 20)]
    lines: usize,
    /// Folder of the results. A run that was cut off goes on where it was.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

/// What makes results comparable.
#[derive(Debug, Serialize)]
struct Options {
    version: u32,
    model: String,
    budgets: Vec<String>,
    lengths: Vec<usize>,
    trials: usize,
    seed: u64,
    context: usize,
    continuation: usize,
    text: Option<String>,
    files: Vec<String>,
    lines: usize,
    block_size: usize,
}

impl Eval {
    pub(crate) fn execute(&self, mut registry: Registry, silent: bool) -> Result<()> {
        self.check()?;
        kv_eval::baselines::add(&mut registry);
        let candidates = caches::candidates(&registry, &self.policies, &self.budgets)?;
        let mut config = self.model.engine(registry, silent)?;
        if let Some(cache) = &config.cache {
            let allowed = "left out: `--policies` and `--budgets` name all that are compared";
            return Err(out_of_range("policy", cache.policy_name(), allowed).into());
        }
        let plan = self.plan()?;
        make_room(&mut config, self.longest(&plan));
        let options = self.options(&config, &plan)?;
        let mut records = Records::open(&self.out, &options)?;
        let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
        runtime.block_on(async {
            let configs: Vec<CacheConfig> = candidates
                .iter()
                .map(|candidate| candidate.config.clone())
                .collect();
            eprintln!("eval: loading the model for {} caches", configs.len());
            let mut study = config.start_study(&configs).await?;
            let items = plan.items(&study).await?;
            run::run(&mut study, &candidates, &items, &mut records).await
        })?;
        self.report(&records)
    }

    fn check(&self) -> Result<(), StartError> {
        let tasks = &self.tasks;
        if tasks.contains(&Task::Text) && self.text.is_none() {
            return Err(out_of_range("tasks", "text", "given with `--text FILE`"));
        }
        for (field, number, least) in [
            ("trials", self.trials, 1),
            ("context", self.context, 2),
            ("continuation", self.continuation, 2),
        ] {
            if number < least {
                return Err(out_of_range(field, number, &format!("at least {least}")));
            }
        }
        match self.lengths.iter().find(|&&length| length < 64) {
            Some(length) => Err(out_of_range("lengths", length, "at least 64")),
            None => Ok(()),
        }
    }

    fn plan(&self) -> Result<Plan, StartError> {
        let text = self.text.as_deref().map(read).transpose()?;
        let mut given = Vec::new();
        for path in &self.files {
            let task = path.file_stem().unwrap_or_default().to_string_lossy();
            let items = from_lines(&task, &read(path)?, self.lines);
            given.extend(items.map_err(|error| StartError::File {
                path: path.clone(),
                reason: error.to_string(),
            })?);
        }
        Ok(Plan {
            tasks: match (self.tasks.is_empty(), self.files.is_empty()) {
                (true, true) => Task::value_variants().to_vec(),
                // Files alone are asked for.
                (true, false) => Vec::new(),
                (false, _) => self.tasks.clone(),
            },
            given,
            lengths: self.lengths.clone(),
            trials: self.trials,
            seed: self.model.seed().unwrap_or(1),
            text,
            context: self.context,
            continuation: self.continuation,
        })
    }

    fn options(&self, config: &EngineConfig, plan: &Plan) -> Result<Options, StartError> {
        Ok(Options {
            version: 3,
            model: self.model.name()?,
            budgets: self.budgets.clone(),
            lengths: self.lengths.clone(),
            trials: self.trials,
            seed: plan.seed,
            context: self.context,
            continuation: self.continuation,
            text: self.text.as_ref().map(|path| path.display().to_string()),
            files: self
                .files
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
            lines: self.lines,
            block_size: config.block_size,
        })
    }

    /// About how many tokens the longest text has, with what is read behind it.
    fn longest(&self, plan: &Plan) -> usize {
        // Few tokens have less than three bytes.
        let of_files = plan.given.iter().map(|item| item.text.len() / 3).max();
        let made = self.lengths.iter().max().copied().unwrap_or(0);
        let given = self
            .text
            .as_ref()
            .map_or(0, |_| self.context + self.continuation);
        // Texts come out a little longer, and have a question behind them.
        given.max(made + made / 4).max(of_files.unwrap_or(0)) + 256
    }

    fn report(&self, records: &Records) -> Result<()> {
        let rows = summary::rows(records);
        let mut json = serde_json::to_string_pretty(&rows)?;
        json.push('\n');
        write(&self.out.join("summary.json"), &json)?;
        write(&self.out.join("summary.csv"), &summary::csv(&rows))?;
        let page = html::page(&self.model.name()?, &rows, records)?;
        write(&self.out.join("index.html"), &page)?;
        let (budgets, tasks) = (tables::overview(&rows), tables::details(&rows));
        let all: Vec<String> = budgets.iter().chain(&tasks).map(Table::markdown).collect();
        write(&self.out.join("summary.md"), &(all.join("\n\n") + "\n"))?;
        // Of many tasks the overview is long enough for a terminal.
        let tasks = if tasks.len() > FEW { &[] } else { &tasks[..] };
        let all: Vec<String> = tasks.iter().chain(&budgets).map(Table::text).collect();
        println!("{}", all.join("\n\n"));
        println!(
            "\nAnswers given as shares; the text's perplexity. All figures and plots: {}",
            self.out.join("index.html").display()
        );
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
