//! `mistralrs-kv profile`: which heads of a model retrieve.
mod duo;
mod head_kv;
mod show;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use mistralrs_kv::{Engine, EngineConfig, StartError};
use tokio::runtime::Runtime;

use crate::cache_args::{model_path, read};

#[derive(Debug, Subcommand)]
pub(crate) enum Profile {
    /// Learn a gate for every KV head, as DuoAttention's authors do, and write a profile for duo-attention.
    Duo(Box<duo::Duo>),
    /// Score every query head by where it looks while the model says what it has found in a text, as HeadKV's authors do, and write a profile for
    /// head-kv.
    HeadKv(Box<head_kv::HeadKv>),
    /// Draw a profile of either kind.
    Show(show::Show),
    /// Give the values of a profile to other heads, drawn at random: what a profile that was learned is to be better than.
    Shuffle(show::Shuffle),
}

impl Profile {
    pub(crate) fn execute(self) -> Result<()> {
        match self {
            Self::Duo(duo) => duo.execute(),
            Self::HeadKv(head_kv) => head_kv.execute(),
            Self::Show(show) => show.execute(),
            Self::Shuffle(shuffle) => shuffle.execute(),
        }
    }
}

/// A model and a long text.
#[derive(Debug, Args)]
struct Source {
    /// The model: a GGUF file, or a folder with config.json, tokenizer.json and safetensors [default: what HEADROOM_MODEL
    /// names].
    #[arg(long, short, value_name = "PATH")]
    model: Option<PathBuf>,
    /// A long text, into which what is to be found is put.
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
}

impl Source {
    /// The model's path, and the text.
    fn read(&self) -> Result<(PathBuf, String), StartError> {
        Ok((model_path(self.model.clone())?, read(&self.text)?))
    }
}

/// Does something with an engine, which is gone afterwards.
fn with_engine<T>(
    config: &EngineConfig,
    f: impl FnOnce(&Runtime, &Engine) -> Result<T>,
) -> Result<T> {
    let runtime = Runtime::new().context("cannot start threads")?;
    let engine = runtime.block_on(config.start())?;
    let done = f(&runtime, &engine);
    drop(engine);
    runtime.shutdown_timeout(Duration::from_secs(5));
    done
}
