//! The goals for speed and memory: what is measured, against which target, and whether it holds.
mod budget;
mod goal;
mod kernel;
mod memory;
mod pages;
mod policies;
mod pool;
mod stock;

use std::{cell::Cell, path::Path};

use anyhow::Result;
use clap::ValueEnum;
use mistralrs_kv::{CacheConfig, EngineConfig};

use super::{
    measure::{Load, Target, float},
    save,
};
use crate::{run::out_of_range, table::columns};
use goal::Goal;

/// Goals that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Group {
    /// Decode attention against the memory's own speed.
    Kernel,
    /// Pages against memory in one piece.
    Pages,
    /// Taking pages and giving them back.
    Pool,
    /// The engine as it is published, without pages.
    Stock,
    /// A cache of an eighth, and heads that stream a prompt.
    Budget,
    /// What choosing tokens costs.
    Policies,
    /// Bytes and pages held.
    Memory,
}

/// Lengths and repetitions.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    is_quick: bool,
    /// A context over which attention is next to nothing.
    short: usize,
    small: usize,
    medium: usize,
    long: usize,
    longest: usize,
    /// Decode steps of a request.
    steps: usize,
    /// Repetitions of requests, and of those with long prompts.
    rounds: usize,
    long_rounds: usize,
    /// Timed calls of a kernel.
    calls: usize,
    /// Tokens of a head where a kernel is measured against memory: 96 MiB in all.
    kernel_tokens: usize,
    /// Layers of the cache whose pages are scattered.
    layers: usize,
    /// Memory that the bandwidth is measured on.
    probe_bytes: usize,
}

impl Sizes {
    const FULL: Self = Self {
        is_quick: false,
        short: 32,
        small: 472,
        medium: 2032,
        long: 7245,
        longest: 7800,
        steps: 32,
        rounds: 3,
        long_rounds: 2,
        calls: 15,
        kernel_tokens: 1 << 17,
        layers: 30,
        probe_bytes: 256 << 20,
    };
    const QUICK: Self = Self {
        is_quick: true,
        short: 32,
        small: 96,
        medium: 400,
        long: 640,
        longest: 800,
        steps: 6,
        rounds: 1,
        long_rounds: 1,
        calls: 3,
        kernel_tokens: 1 << 12,
        layers: 4,
        probe_bytes: 16 << 20,
    };
}

/// What the groups share.
#[derive(Debug)]
struct Suite {
    /// The model, without a policy.
    engine: EngineConfig,
    sizes: Sizes,
    /// Goals measured, and to be measured.
    done: Cell<usize>,
    total: usize,
}

impl Suite {
    fn say(&self, text: &str) {
        eprintln!("goals: {} of {}; {text}", self.done.get(), self.total);
    }

    /// Loads the model; without a cache as the stock engine.
    async fn start(&self, cache: Option<CacheConfig>) -> Result<Target> {
        let name = cache.as_ref().map(CacheConfig::policy_name);
        let name = name.unwrap_or("the stock engine");
        self.say(&format!("loading the model for {name}"));
        let config = EngineConfig {
            cache,
            ..self.engine.clone()
        };
        let target = Target::start(&config).await?;
        let (positions, longest) = (target.max_positions(), self.sizes.longest);
        if longest + self.sizes.steps >= positions {
            let value = format!("goals, with texts of {} tokens", longest + self.sizes.steps);
            let quick = if self.sizes.is_quick {
                ""
            } else {
                "; `--quick` takes shorter ones"
            };
            let allowed = format!(
                "left out for a model that was built for {positions} positions, or without groups that read long prompts{quick}"
            );
            return Err(out_of_range("suite", value, &allowed).into());
        }
        Ok(target)
    }

    /// A request with a prompt of `prompt` tokens.
    const fn load_of(&self, prompt: usize) -> Load {
        Load {
            prompt,
            steps: self.sizes.steps,
            round: 0,
        }
    }
}

impl Group {
    const ALL: [Self; 7] = [
        Self::Kernel,
        Self::Pages,
        Self::Pool,
        Self::Memory,
        Self::Policies,
        Self::Budget,
        Self::Stock,
    ];

    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// How many goals it has.
    const fn goals(self, is_quick: bool) -> usize {
        match self {
            Self::Kernel | Self::Pages | Self::Memory => 2,
            Self::Pool => 1,
            Self::Stock if is_quick => 7,
            Self::Stock => 11,
            Self::Budget => 3,
            Self::Policies => 2 * policies::POLICIES.len(),
        }
    }

    async fn measure(self, suite: &Suite) -> Result<Vec<Goal>> {
        match self {
            Self::Kernel => kernel::measure(suite),
            Self::Pages => pages::measure(suite),
            Self::Pool => pool::measure(),
            Self::Stock => stock::measure(suite).await,
            Self::Budget => budget::measure(suite).await,
            Self::Policies => policies::measure(suite).await,
            Self::Memory => memory::measure(suite).await,
        }
    }
}

/// Measures the goals of some groups, or of all; prints them, and writes the file after each group.
pub(super) async fn run(
    engine: EngineConfig,
    only: &[Group],
    is_quick: bool,
    json: Option<&Path>,
) -> Result<()> {
    check(&engine)?;
    let groups: Vec<Group> = Group::ALL
        .into_iter()
        .filter(|group| only.is_empty() || only.contains(group))
        .collect();
    let suite = Suite {
        engine,
        sizes: if is_quick { Sizes::QUICK } else { Sizes::FULL },
        done: Cell::new(0),
        total: groups.iter().map(|group| group.goals(is_quick)).sum(),
    };
    let mut goals: Vec<Goal> = Vec::new();
    for group in groups {
        let quick = if is_quick { " --quick" } else { "" };
        let command = format!(
            "mistralrs-kv bench --suite goals --only {}{quick}",
            group.name()
        );
        suite.say(&group.name());
        for mut goal in group.measure(&suite).await? {
            goal.command.clone_from(&command);
            goals.push(goal);
        }
        suite.done.set(goals.len());
        if let Some(path) = json {
            save(path, &goals)?;
        }
    }
    suite.say("done");
    println!("{}", text(&goals));
    Ok(())
}

/// The suite chooses policies itself, and its targets are for CPUs.
fn check(engine: &EngineConfig) -> Result<()> {
    if let Some(cache) = &engine.cache {
        let allowed = "left out with `--suite goals`, which chooses policies itself";
        return Err(out_of_range("policy", cache.policy_name(), allowed).into());
    }
    if !engine.device.is_cpu() {
        let allowed = "`cpu`: the goals are for CPUs";
        return Err(out_of_range("device", format!("{:?}", engine.device), allowed).into());
    }
    Ok(())
}

fn text(goals: &[Goal]) -> String {
    let rows: Vec<Vec<String>> = goals.iter().map(Goal::cells).collect();
    let notes = goals.iter().filter_map(|goal| {
        let note = goal.note.as_ref()?;
        Some(format!("{}: {note}", goal.goal))
    });
    let notes: Vec<String> = notes.collect();
    let held = goals.iter().filter(|goal| goal.holds).count();
    format!(
        "{}\n\n{}\n\n{held} of {} goals hold",
        columns(&["goal", "value", "target", "unit", ""], &rows),
        notes.join("\n"),
        goals.len()
    )
}

/// How often `part` goes into `whole`; 0 where `part` was too short to be measured.
fn times(whole: f64, part: f64) -> f64 {
    if part > 0.0 { whole / part } else { 0.0 }
}

/// The policy that keeps everything.
fn full() -> CacheConfig {
    CacheConfig::new("keep-all")
}

/// A cache of an eighth of the prompt.
fn eighth() -> Result<CacheConfig> {
    Ok(CacheConfig::new("snap-kv").budget("12.5%".parse()?))
}

/// A budget of `tokens` where the longest prompts are the full suite's, as large a share of shorter ones.
const fn share_of_longest(sizes: &Sizes, tokens: usize) -> usize {
    tokens * sizes.longest / Sizes::FULL.longest
}

/// A part in percent.
fn percent(part: f64, whole: f64) -> f64 {
    100.0 * times(part, whole)
}

/// Bytes in MiB.
fn mib(bytes: usize) -> f64 {
    float(bytes) / f64::from(1 << 20)
}
