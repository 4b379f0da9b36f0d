//! `mistralrs-kv stream`: a long text, token by token.
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Args;
use kv_core::Registry;
use mistralrs_kv::{EngineConfig, Runtime, StartError};
use serde::{Deserialize, Serialize};

use crate::{
    cache_args::ModelArgs,
    plot::{self, From, Line, Titles},
    run::{context_full, out_of_range},
};

/// Tokens that are read as a prompt; no loss is told of them.
const PROMPT: usize = 16;

#[derive(Debug, Args)]
pub(crate) struct Stream {
    #[command(flatten)]
    model: ModelArgs,
    /// The text to read.
    #[arg(long, value_name = "FILE", required_unless_present = "plot")]
    text: Option<PathBuf>,
    /// Read so many of its tokens, over again from its beginning where it has fewer [default: all].
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Tell the mean loss of every N tokens.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    report: usize,
    /// Write what is told to a file, for `--plot`.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the losses in such files over each other, as a picture in SVG on the standard output, and read nothing.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["text", "json"])]
    plot: Vec<PathBuf>,
}

/// What is told of some tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stretch {
    /// Tokens read so far.
    tokens: usize,
    /// Mean of `-ln p` of the tokens since the last, in nats.
    loss: f64,
    /// Pages held by the sequence.
    pages: usize,
    /// Tokens a second since the last.
    speed: f64,
}

/// What `--json` writes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    policy: String,
    stretches: Vec<Stretch>,
}

/// The tokens since something was told.
struct Since {
    read: usize,
    sum: f64,
    count: usize,
    start: Instant,
}

impl Stream {
    pub(crate) fn execute(&self, registry: Registry, silent: bool) -> Result<()> {
        let Some(path) = &self.text else {
            print!("{}", picture(&self.plot)?);
            return Ok(());
        };
        if self.report == 0 {
            return Err(out_of_range("report", 0, "at least 1").into());
        }
        let text = fs::read_to_string(path).map_err(|error| file_error(path, &error))?;
        let engine = self
            .model
            .engine_under(Some("keep-all"), registry, silent)?;
        let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
        let told = runtime.block_on(self.read(engine, &text))?;
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&told)?;
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    async fn read(&self, config: EngineConfig, text: &str) -> Result<Told> {
        let config = EngineConfig {
            // The text goes on, whatever stands in it.
            ignore_eos: true,
            ..config
        };
        let engine = config.start().await?;
        let runtime = engine.runtime().context("a policy is configured")?.clone();
        let text = engine.tokens(text).await?;
        let count = self.tokens.unwrap_or(text.len());
        if text.is_empty() || count <= PROMPT {
            let allowed = format!("more than {PROMPT}, of a text that is not empty");
            return Err(out_of_range("tokens", count, &allowed).into());
        }
        let text: Vec<u32> = text.into_iter().cycle().take(count).collect();
        let (sender, stretches) = std::sync::mpsc::channel();
        let mut since = Since::now(PROMPT);
        let (report, cache) = (self.report, runtime.clone());
        let each = move |loss: f64| {
            if let Some(stretch) = since.add(loss, (report, count), &cache) {
                stretch.tell();
                // Whoever listens is there until the text is read.
                let _ = sender.send(stretch);
            }
        };
        let behind = engine.read_along(text, PROMPT, each).await?;
        if behind < count - PROMPT {
            println!("{}", context_full(engine.max_positions()));
        }
        if let Some(rebases) = runtime
            .stats()
            .map(|stats| stats.rebases)
            .filter(|&n| n > 0)
        {
            println!("keys were turned back {rebases} times");
        }
        Ok(Told {
            policy: runtime.config().policy_name().to_owned(),
            stretches: stretches.into_iter().collect(),
        })
    }
}

impl Since {
    fn now(read: usize) -> Self {
        Self {
            read,
            sum: 0.0,
            count: 0,
            start: Instant::now(),
        }
    }

    /// Adds a token, and sums up where it is time to.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 tokens")]
    fn add(
        &mut self,
        loss: f64,
        (report, last): (usize, usize),
        cache: &Arc<Runtime>,
    ) -> Option<Stretch> {
        self.sum += loss;
        self.count += 1;
        let read = self.read + self.count;
        if !read.is_multiple_of(report) && read < last {
            return None;
        }
        let pages = cache.stats().map_or(0, |stats| stats.pool.held);
        let stretch = Stretch {
            tokens: read,
            loss: self.sum / self.count as f64,
            pages,
            speed: self.count as f64 / self.start.elapsed().as_secs_f64().max(1e-9),
        };
        *self = Self::now(read);
        Some(stretch)
    }
}

impl Stretch {
    fn tell(&self) {
        println!(
            "{:>9} tokens  loss {:.4}  {} pages  {:.1} tokens/s",
            self.tokens, self.loss, self.pages, self.speed
        );
    }
}

/// Losses over positions, a line for each file.
fn picture(files: &[PathBuf]) -> Result<String> {
    let line = |path: &PathBuf| -> Result<Line> {
        let text = fs::read_to_string(path).map_err(|error| file_error(path, &error))?;
        let told: Told = serde_json::from_str(&text).map_err(|error| file_error(path, &error))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 tokens")]
        let points = told
            .stretches
            .iter()
            .map(|stretch| (stretch.tokens as f64, stretch.loss));
        Ok(Line {
            name: name.into_owned(),
            points: points.collect(),
        })
    };
    let lines: Vec<Line> = files.iter().map(line).collect::<Result<_>>()?;
    let titles = Titles {
        title: "Loss along a text",
        x: "tokens read",
        y: "nats per token",
        from: From::Lowest,
    };
    plot::lines(titles, &lines)
}

fn file_error(path: &Path, error: &impl ToString) -> StartError {
    StartError::File {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
