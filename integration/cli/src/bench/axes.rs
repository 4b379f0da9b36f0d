//! Prompts and answers of chosen lengths: the axes of mistral.rs's own benchmark.
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use kv_core::Registry;
use mistralrs_kv::{CacheConfig, EngineConfig, StartError};

use super::{
    at_least_one,
    figures::{Figures, Row, row},
    measure::{Load, Probe, Target, interleave, median},
    process::{self, Alone},
    save,
    side::{Side, label},
    write,
};
use crate::{cache_args::make_room, run::out_of_range};

/// Memory that the bandwidth is measured on.
const PROBE_BYTES: usize = 256 << 20;
/// Rounds that warm up take prompts that no measured round has.
const WARM_UP_ROUND: usize = 1 << 15;

/// What is asked of the model.
#[derive(Debug, Args)]
pub(super) struct Axes {
    /// Tokens of the prompts that are read; several with commas.
    #[arg(
        long,
        value_name = "TOKENS",
        value_delimiter = ',',
        default_value = "512",
        conflicts_with = "suite"
    )]
    prompt_len: Vec<usize>,
    /// Tokens in the cache where generating begins; several with commas.
    #[arg(
        long,
        value_name = "TOKENS",
        value_delimiter = ',',
        default_value = "512",
        conflicts_with = "suite"
    )]
    depth: Vec<usize>,
    /// Tokens to generate from there.
    #[arg(
        long,
        value_name = "TOKENS",
        default_value_t = 128,
        conflicts_with = "suite"
    )]
    gen_len: usize,
    /// How often everything is measured; shown are medians.
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "suite")]
    iterations: usize,
    /// Rounds before that, which do not count.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "suite")]
    warmup: usize,
    /// Measure these beside each other: `stock` (the engine without a policy), `NAME` or `NAME:BUDGET`; several with commas.
    #[arg(
        long,
        value_name = "POLICY",
        value_delimiter = ',',
        conflicts_with_all = ["suite", "policy", "policy_file", "policy_program", "budget", "settings"]
    )]
    policies: Vec<Side>,
    /// Write an SVG of the time that a token takes, over the depth, to this file.
    #[arg(long, value_name = "FILE", conflicts_with = "suite")]
    plot: Option<PathBuf>,
    /// Measure the memory of one row by itself, and print that.
    #[arg(long, value_name = "ROW", hide = true)]
    alone: Option<usize>,
}

impl Axes {
    /// Refuses lengths that measure nothing.
    pub(super) fn check(&self) -> Result<(), StartError> {
        for &tokens in &self.prompt_len {
            at_least_one("prompt-len", tokens)?;
        }
        for &tokens in &self.depth {
            at_least_one("depth", tokens)?;
        }
        at_least_one("gen-len", self.gen_len)?;
        at_least_one("iterations", self.iterations)
    }

    /// Measures, prints a table and writes the files.
    pub(super) async fn run(
        &self,
        mut config: EngineConfig,
        registry: &Registry,
        model: &str,
        json: Option<&Path>,
    ) -> Result<()> {
        make_room(&mut config, self.longest());
        let sides = self.sides(&config, registry)?;
        let loads = self.loads();
        if let Some(row) = self.alone {
            return measure_alone(&config, &sides, &loads, row).await;
        }
        if let Some(path) = &self.plot {
            // Not when all has been measured.
            write(path, "")?;
        }
        let mut targets = Vec::with_capacity(sides.len());
        for cache in &sides {
            let config = EngineConfig {
                cache: cache.clone(),
                ..config.clone()
            };
            let target = Target::start(&config).await?;
            self.check_positions(target.max_positions())?;
            targets.push((label(cache.as_ref()), target));
        }
        let say = |text: &str| eprintln!("bench: {text}");
        // All sides of one length after each other, so that they are compared under the same conditions.
        let all: Vec<(&Target, Load)> = loads
            .iter()
            .flat_map(|&(_, load)| targets.iter().map(move |(_, target)| (target, load)))
            .collect();
        let early: Vec<(&Target, Load)> = all
            .iter()
            .map(|&(target, load)| {
                let round = WARM_UP_ROUND;
                (target, Load { round, ..load })
            })
            .collect();
        interleave(&early, self.warmup, |text| say(&format!("warm-up, {text}"))).await?;
        let probe = Probe::new(PROBE_BYTES);
        let mut memory = vec![probe.read(), probe.read()];
        let runs = interleave(&all, self.iterations, say).await?;
        memory.extend([probe.read(), probe.read()]);
        let memory = median(memory);
        let of_loads = loads.iter().zip(runs.chunks(targets.len()));
        let rows = of_loads.flat_map(|((test, load), runs)| {
            let sides = targets.iter().zip(runs);
            sides.map(|((policy, _), runs)| row(policy, test, *load, runs, memory))
        });
        let mut rows: Vec<Row> = rows.collect();
        let count = rows.len();
        for (index, row) in rows.iter_mut().enumerate() {
            say(&format!("memory, {} of {count}", index + 1));
            row.peak_rss_bytes = process::alone(index)?.peak_rss_bytes;
        }
        let figures = Figures {
            model,
            threads: probe.threads(),
            simd: attention_kernels::simd_level().to_string(),
            iterations: self.iterations,
            rows,
        };
        println!("{}", figures.text());
        if let Some(path) = &self.plot {
            let names = targets.iter().map(|(name, _)| name.as_str());
            write(path, &figures.plot(names, &loads)?)?;
        }
        json.map_or(Ok(()), |path| save(path, &figures))
    }

    /// The caches that are measured; none is the stock engine.
    fn sides(
        &self,
        config: &EngineConfig,
        registry: &Registry,
    ) -> Result<Vec<Option<CacheConfig>>, StartError> {
        if self.policies.is_empty() {
            return Ok(vec![config.cache.clone()]);
        }
        self.policies
            .iter()
            .map(|side| side.cache(registry))
            .collect()
    }

    /// One load for each row.
    fn loads(&self) -> Vec<(String, Load)> {
        let prompts = self.prompt_len.iter().map(|&prompt| {
            let load = Load {
                prompt,
                ..Load::default()
            };
            (format!("pp{prompt}"), load)
        });
        let depths = self.depth.iter().map(|&prompt| {
            let steps = self.gen_len;
            let load = Load {
                prompt,
                steps,
                ..Load::default()
            };
            (format!("tg{steps} @ d{prompt}"), load)
        });
        prompts.chain(depths).collect()
    }

    /// Tokens of the longest text: the last one generated is never read back.
    fn longest(&self) -> usize {
        let prompts = self.prompt_len.iter().copied();
        let texts = self.depth.iter().map(|depth| depth + self.gen_len);
        prompts.chain(texts).max().unwrap_or(0) + 1
    }

    /// Not known before the model is loaded.
    fn check_positions(&self, positions: usize) -> Result<(), StartError> {
        let refuse = |field, tokens: usize, rest: usize| {
            let allowed = format!(
                "at most {}: the model was built for {positions} positions, and {rest} of them are for what is generated",
                positions.saturating_sub(rest)
            );
            Err(out_of_range(field, tokens, &allowed))
        };
        for &tokens in &self.prompt_len {
            if tokens >= positions {
                return refuse("prompt-len", tokens, 1);
            }
        }
        for &tokens in &self.depth {
            if tokens + self.gen_len >= positions {
                return refuse("depth", tokens, self.gen_len + 1);
            }
        }
        Ok(())
    }
}

/// Measures the memory of one row and prints it, for the process that started this one.
async fn measure_alone(
    config: &EngineConfig,
    sides: &[Option<CacheConfig>],
    loads: &[(String, Load)],
    row: usize,
) -> Result<()> {
    let (_, load) = loads
        .get(row / sides.len())
        .with_context(|| format!("there is no row {row}"))?;
    let config = EngineConfig {
        cache: sides[row % sides.len()].clone(),
        ..config.clone()
    };
    let target = Target::start(&config).await?;
    process::forget_peak();
    target.time(*load).await?;
    let peak_rss_bytes = process::peak_rss();
    println!("{}", serde_json::to_string(&Alone { peak_rss_bytes })?);
    Ok(())
}
