//! `mistralrs-kv run`: one answer, or a conversation.
use std::{
    fmt,
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Args;
use kv_core::Registry;
use mistralrs_core::SamplingParams;
use mistralrs_kv::{Engine, Finish, Prompt, Request, StartError};

use crate::{cache_args::ModelArgs, prompt_args::PromptArgs};

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    /// Most tokens to generate for an answer.
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
    /// Sampling temperature; 0 takes the most likely token.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Sample from the smallest set of tokens with this much probability.
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Sample from the most likely tokens.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Write what the cache held to a JSON file.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write a picture of what every head kept to an SVG file.
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Print how many tokens every head kept.
    #[arg(long)]
    heads: bool,
}

impl Run {
    pub(crate) fn execute(self, registry: Registry, silent: bool) -> Result<()> {
        self.check()?;
        let prompt = self.prompt.read()?;
        let config = self.model.engine(registry, silent)?;
        let asks = [
            ("heads", self.heads),
            ("picture", self.picture.is_some()),
            ("report", self.report.is_some()),
        ];
        if let (None, Some((field, _))) = (&config.cache, asks.iter().find(|(_, asks)| *asks)) {
            let allowed = "left out without `--policy`: the stock cache has no pages to count";
            return Err(out_of_range(field, "given", allowed).into());
        }
        let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
        runtime.block_on(async {
            let engine = config.start().await?;
            match prompt {
                Some(prompt) => self.answer(&engine, prompt).await.map(drop),
                None => self.converse(&engine).await,
            }
        })
    }

    fn check(&self) -> Result<(), StartError> {
        if self.max_tokens == 0 {
            return Err(out_of_range("max-tokens", "0", "at least 1"));
        }
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(out_of_range("temperature", self.temperature, "0 or more"));
        }
        if let Some(p) = self.top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return Err(out_of_range("top-p", p, "above 0 and at most 1"));
        }
        if self.top_k == Some(0) {
            return Err(out_of_range("top-k", 0, "at least 1"));
        }
        Ok(())
    }

    /// Prints an answer as it comes, how fast it came, and what its cache held.
    async fn answer(&self, engine: &Engine, prompt: Prompt) -> Result<String> {
        let mut out = io::stdout();
        let mut clock = Clock::start();
        let held_before = held(engine);
        let answer = engine
            .stream(self.request(prompt), |piece| {
                clock.tick();
                // A reader that has gone away ends the request.
                out.write_all(piece.as_bytes())
                    .and_then(|()| out.flush())
                    .is_ok()
            })
            .await?;
        println!();
        eprintln!("{clock}");
        if answer.finish == Finish::ContextFull {
            eprintln!("{}", context_full(engine.max_positions()));
        }
        if let Some(report) = engine.report(answer.text.clone())? {
            if let Some(path) = &self.report {
                let written = report.save(path);
                written
                    .with_context(|| format!("cannot write the report to {}", path.display()))?;
            }
            if let Some(path) = &self.picture {
                let written = report.save_picture(path);
                written
                    .with_context(|| format!("cannot write the picture to {}", path.display()))?;
            }
            if let Some(notice) = &report.notice {
                eprintln!("note: {notice}");
            }
            let tokens = held(engine) - held_before;
            if tokens > 0 {
                let all = report.prompt_tokens;
                eprintln!("{tokens} of {all} tokens of the prompt were held already");
            }
            eprintln!("{}", report.summary());
            if self.heads {
                eprintln!("tokens kept in each head:\n{}", report.heads());
            }
        }
        Ok(answer.text)
    }

    fn request(&self, prompt: Prompt) -> Request {
        let mut request = Request::greedy(prompt, self.max_tokens);
        if self.temperature > 0.0 {
            request.sampling = SamplingParams {
                temperature: Some(self.temperature),
                top_p: self.top_p,
                top_k: self.top_k,
                max_len: Some(self.max_tokens),
                ..SamplingParams::neutral()
            };
        }
        request
    }

    /// A conversation: every turn is sent with the whole history.
    async fn converse(&self, engine: &Engine) -> Result<()> {
        if io::stdin().is_terminal() {
            eprintln!("Type a message; an empty line or Ctrl-D ends the conversation.");
        }
        let mut history: Vec<(String, String)> = Vec::new();
        loop {
            eprint!("> ");
            let mut line = String::new();
            io::stdin()
                .lock()
                .read_line(&mut line)
                .context("cannot read the message")?;
            if line.trim().is_empty() {
                return Ok(());
            }
            history.push(("user".into(), line.trim().to_owned()));
            let prompt = if self.prompt.raw {
                Prompt::Text(line)
            } else {
                Prompt::Chat(history.clone())
            };
            let text = self.answer(engine, prompt).await?;
            history.push(("assistant".into(), text));
        }
    }
}

/// Tokens of all prompts so far that were not read again.
fn held(engine: &Engine) -> u64 {
    let stats = engine.runtime().and_then(|runtime| runtime.stats());
    stats.map_or(0, |stats| stats.reuse.tokens)
}

/// Why a text ends at the last of the model's positions.
pub(crate) fn context_full(positions: usize) -> String {
    format!(
        "the context is full: the model has positions for {positions} tokens. Under `streaming-llm` with `--set \
         positions=cache-relative` a text may be longer"
    )
}

/// When the tokens of an answer came.
struct Clock {
    start: Instant,
    first: Option<Instant>,
    last: Instant,
    tokens: u32,
}

impl Clock {
    fn start() -> Self {
        let start = Instant::now();
        Self {
            start,
            first: None,
            last: start,
            tokens: 0,
        }
    }

    fn tick(&mut self) {
        self.last = Instant::now();
        self.first.get_or_insert(self.last);
        self.tokens += 1;
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first.unwrap_or(self.last);
        let (more, seconds) = (
            self.tokens.saturating_sub(1),
            (self.last - first).as_secs_f64(),
        );
        write!(
            f,
            "first token after {:.2} s",
            (first - self.start).as_secs_f64()
        )?;
        if more > 0 && seconds > 0.0 {
            write!(
                f,
                ", then {more} in {seconds:.2} s ({:.1} tokens/s)",
                f64::from(more) / seconds
            )?;
        }
        Ok(())
    }
}

pub(crate) fn out_of_range(field: &'static str, value: impl ToString, allowed: &str) -> StartError {
    StartError::OutOfRange {
        field,
        value: value.to_string(),
        allowed: allowed.into(),
    }
}
