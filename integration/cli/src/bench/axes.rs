//! Prompts and answers of chosen lengths: the axes of mistral.rs's own benchmark.
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use kv_core::Registry;
use mistralrs_kv::{CacheConfig, EngineConfig, StartError};
use serde::Serialize;

use super::{
    at_least_one,
    measure::{Load, Probe, Runs, Target, float, interleave, median},
    save,
    side::{Side, label},
    write,
};
use crate::{
    cache_args::make_room,
    plot::{Line, Titles, lines},
    run::out_of_range,
    table::{columns, figure},
};

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
}

/// Figures of one prompt length, or of one depth.
#[derive(Debug, Serialize)]
struct Row {
    /// The policy and its budget, or the stock engine.
    policy: String,
    /// `pp512`: reading a prompt; `tg128 @ d512`: generating at a depth.
    test: String,
    tokens_per_second: f64,
    ms_per_token: f64,
    /// Keys and values that a decode step reads.
    kv_bytes_per_step: Option<f64>,
    /// Attention of a decode step, or over a whole prompt.
    attention_ms: Option<f64>,
    /// Keys and values read per second of attention.
    attention_bytes_per_second: Option<f64>,
    /// How fast this machine reads memory, measured before and after.
    memory_bytes_per_second: f64,
    /// The share of that which attention reached.
    share: Option<f64>,
}

/// What a file gets.
#[derive(Debug, Serialize)]
struct Figures<'a> {
    model: &'a str,
    threads: usize,
    simd: String,
    iterations: usize,
    rows: Vec<Row>,
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
        if let Some(path) = &self.plot {
            // Not when all has been measured.
            write(path, "")?;
        }
        let sides = self.sides(&config, registry)?;
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
        let loads = self.loads();
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
        let figures = Figures {
            model,
            threads: probe.threads(),
            simd: attention_kernels::simd_level().to_string(),
            iterations: self.iterations,
            rows: rows.collect(),
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

fn row(policy: &str, test: &str, load: Load, runs: &Runs, memory: f64) -> Row {
    let is_decode = load.steps > 0;
    let seconds = if is_decode {
        runs.median(|timing| timing.step)
    } else {
        runs.median(|timing| timing.prefill) / float(load.prompt)
    };
    let attention = runs.cache(|cache| {
        if is_decode {
            cache.attend
        } else {
            cache.attend_prompt
        }
    });
    // On a device nothing is timed.
    let attention = attention.filter(|&seconds| seconds > 0.0);
    let bytes = runs.cache(|cache| cache.step_bytes()).filter(|_| is_decode);
    let speed = bytes.zip(attention).map(|(bytes, seconds)| bytes / seconds);
    Row {
        policy: policy.to_owned(),
        test: test.to_owned(),
        tokens_per_second: 1.0 / seconds,
        ms_per_token: seconds * 1e3,
        kv_bytes_per_step: bytes,
        attention_ms: attention.map(|seconds| seconds * 1e3),
        attention_bytes_per_second: speed,
        memory_bytes_per_second: memory,
        share: speed.map(|speed| speed / memory),
    }
}

impl Figures<'_> {
    fn text(&self) -> String {
        let header = [
            "policy",
            "test",
            "tokens/s",
            "ms/token",
            "K/V MiB/step",
            "attention ms",
            "GB/s",
            "memory GB/s",
            "share",
        ];
        let rows = self.rows.iter().map(|row| {
            vec![
                row.policy.clone(),
                row.test.clone(),
                figure(Some(row.tokens_per_second), 1),
                figure(Some(row.ms_per_token), 3),
                figure(
                    row.kv_bytes_per_step
                        .map(|bytes| bytes / f64::from(1 << 20)),
                    2,
                ),
                figure(row.attention_ms, 3),
                figure(row.attention_bytes_per_second.map(|speed| speed / 1e9), 1),
                figure(Some(row.memory_bytes_per_second / 1e9), 1),
                row.share
                    .map_or_else(|| "-".into(), |share| format!("{:.0} %", 100.0 * share)),
            ]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        format!(
            "{}: {} threads, {}; medians of {}\n{}",
            self.model,
            self.threads,
            self.simd,
            self.iterations,
            columns(&header, &rows)
        )
    }

    /// What a token takes at each depth: a line for each policy.
    fn plot<'a>(
        &self,
        policies: impl Iterator<Item = &'a str>,
        loads: &[(String, Load)],
    ) -> Result<String> {
        let title = format!("{}: time for a token", self.model);
        let titles = Titles {
            title: &title,
            x: "tokens before it",
            y: "milliseconds",
        };
        let of_policy = policies.map(|policy| {
            let rows = self.rows.iter().filter(|row| row.policy == policy);
            let points = rows.zip(loads).filter(|(_, (_, load))| load.steps > 0);
            Line {
                name: policy.to_owned(),
                points: points
                    .map(|(row, (_, load))| (float(load.prompt), row.ms_per_token))
                    .collect(),
            }
        });
        lines(titles, &of_policy.collect::<Vec<_>>())
    }
}
