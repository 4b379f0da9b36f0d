//! `mistralrs-kv profile head-kv`.
use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use candle_core::{D, DType};
use clap::{Args, ValueEnum};
use kv_profile::{
    HeadScores,
    needles::{
        MOST_SAID, Method, Needle, Options, Run, Seen, Tokens, from_lines, is_answered, said_of,
    },
};
use mistralrs_kv::{CacheConfig, Engine, EngineConfig, KvDtype, Prompt, Request, Runtime as Cache};
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use super::{Source, with_engine};
use crate::{
    cache_args::{make_room, read},
    clock::{Clock, short},
    run::out_of_range,
};

/// Every so many runs one is told, and the first.
const OFTEN: usize = 10;

/// Which score.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Score {
    /// How often a head looks most at the very token that is said next: retrieval heads.
    R,
    /// How much attention a head has for the right answer: retrieval-reasoning heads.
    R2,
}

#[derive(Debug, Args)]
pub(crate) struct HeadKv {
    #[command(flatten)]
    source: Source,
    /// File of the profile.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Which score.
    #[arg(long, value_enum, default_value_t = Score::R2)]
    score: Score,
    /// What is to be found, instead of what is built in: JSON lines with `before`, `answer`, `after` and `question`.
    #[arg(long, value_name = "FILE")]
    needles: Option<PathBuf>,
    /// Tokens of the shortest text, needle and question aside.
    #[arg(long, value_name = "TOKENS", default_value_t = Options::default().min_length)]
    min_length: usize,
    /// Tokens of the longest text, needle and question aside.
    #[arg(long, value_name = "TOKENS", default_value_t = Options::default().max_length)]
    max_length: usize,
    /// Different lengths.
    #[arg(long, value_name = "N", default_value_t = Options::default().lengths)]
    lengths: usize,
    /// Different depths of what is to be found.
    #[arg(long, value_name = "N", default_value_t = Options::default().depths)]
    depths: usize,
    /// Seed of where texts are cut out.
    #[arg(long, default_value_t = Options::default().seed)]
    seed: u64,
}

impl HeadKv {
    pub(super) fn execute(&self) -> Result<()> {
        let (path, text) = self.source.read()?;
        let options = self.options();
        let needles = match &self.needles {
            Some(path) => from_lines(path, &read(path)?)?,
            None => Needle::all(options.method),
        };
        let cache = CacheConfig::new("keep-all")
            .prompt_tail(1)
            .cache_dtype(KvDtype::F32);
        let mut config = EngineConfig::new(path);
        config.cache = Some(cache);
        make_room(&mut config, options.max_length + 1024);
        eprintln!("profile: loading the model");
        let scores = with_engine(&config, |runtime, engine| {
            let tokens = Tokens::new(&text, &needles, |text| {
                runtime.block_on(engine.tokens(text))
            })?;
            let runs = tokens.runs(&options, engine.max_positions())?;
            let desk = Desk {
                runtime,
                engine,
                method: options.method,
            };
            desk.all(&runs, &needles)
        })?;
        self.save(&scores)
    }

    fn save(&self, scores: &HeadScores) -> Result<()> {
        if scores.count() == 0 {
            let allowed = "a model that answers some of the questions, shorter texts or other needles (`--max-length`, `--needles`); no run \
                           was answered, so that nothing is known of the heads";
            return Err(out_of_range("score", self.options().method.name(), allowed).into());
        }
        scores.write(&self.out)?;
        println!("{}", self.out.display());
        Ok(())
    }

    fn options(&self) -> Options {
        Options {
            method: match self.score {
                Score::R => Method::R,
                Score::R2 => Method::R2,
            },
            min_length: self.min_length,
            max_length: self.max_length,
            lengths: self.lengths,
            depths: self.depths,
            seed: self.seed,
        }
    }
}

/// An engine that is watched.
struct Desk<'a> {
    runtime: &'a Runtime,
    engine: &'a Engine,
    method: Method,
}

impl Desk<'_> {
    /// The scores of all runs that count.
    fn all(&self, runs: &[Run], needles: &[Needle]) -> Result<HeadScores> {
        let (clock, mut scores) = (Clock::start(runs.len()), HeadScores::default());
        for (index, run) in runs.iter().enumerate() {
            let (said, seen) = self.one(run)?;
            let answer = &needles[run.needle].answer;
            let counts = is_answered(self.method, answer, said_of(&said));
            if counts {
                scores.add(seen.scores(self.method, run));
            }
            let done = index + 1;
            if done == 1 || done.is_multiple_of(OFTEN) || done == runs.len() {
                eprintln!(
                    "profile: run {done} of {}, {} tokens, answered {:?}; {} count; about {} left",
                    runs.len(),
                    run.tokens.len(),
                    said_of(&said),
                    scores.count(),
                    short(clock.left(done).unwrap_or_default())
                );
            }
        }
        Ok(scores)
    }

    /// What the model says, and where its heads looked.
    fn one(&self, run: &Run) -> Result<(String, Seen)> {
        let cache: &Arc<Cache> = self.engine.runtime().context("a policy is configured")?;
        // The engine's thread tells where heads look, and then which token came of it.
        let seen = Arc::new(Mutex::new(Seen::of(self.method, run)));
        let (looks, says) = (seen.clone(), seen.clone());
        cache.watch_rows(move |told| looks.lock().layer(told.rows));
        let prompt = Prompt::Tokens(run.tokens.clone());
        let request = Request::greedy(prompt, MOST_SAID).with_logits(move |logits, _| {
            let token = logits.to_dtype(DType::F32)?.argmax(D::Minus1)?;
            says.lock().said(token.flatten_all()?.to_vec1::<u32>()?[0]);
            Ok(logits.clone())
        });
        let answer = self.runtime.block_on(self.engine.generate(request));
        cache.stop_watching();
        let seen = std::mem::take(&mut *seen.lock());
        Ok((answer?.text, seen))
    }
}
