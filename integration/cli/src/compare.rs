//! `mistralrs-kv compare`: how far a policy moves the next-token distribution.
use anyhow::{Context, Result};
use clap::Args;
use kv_core::Registry;
use mistralrs_kv::{Comparison, compare};

use crate::{cache_args::ModelArgs, prompt_args::PromptArgs, run::out_of_range};

#[derive(Debug, Args)]
pub(crate) struct Compare {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    prompt: PromptArgs,
    /// Tokens to compare after the prompt.
    #[arg(long, value_name = "N", default_value_t = 32)]
    tokens: usize,
}

impl Compare {
    pub(crate) fn execute(&self, registry: Registry, silent: bool) -> Result<()> {
        if self.tokens == 0 {
            return Err(out_of_range("tokens", 0, "at least 1").into());
        }
        let Some(prompt) = self.prompt.read()? else {
            let allowed = "given with `--prompt` or `--prompt-file`";
            return Err(out_of_range("prompt", "missing", allowed).into());
        };
        let mut engine = self.model.engine(registry, silent)?;
        let Some(cache) = engine.cache.take() else {
            let allowed = "given: it is what is compared with the full cache";
            return Err(out_of_range("policy", "missing", allowed).into());
        };
        let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
        let found = runtime.block_on(compare(&engine, cache, &prompt, self.tokens))?;
        show(&found);
        Ok(())
    }
}

fn show(found: &Comparison) {
    let Comparison {
        divergence,
        agreements,
        report,
    } = found;
    if let Some(notice) = &report.notice {
        println!("note: {notice}");
    }
    println!("{}", report.summary());
    println!("tokens kept in each head:\n{}", report.heads());
    println!(
        "next-token KL(full || {}): first {:.4}, mean {:.4}, largest {:.4} nats over {} tokens; same top token {agreements} times",
        report.policy,
        divergence.first().copied().unwrap_or(0.0),
        found.mean(),
        found.max(),
        divergence.len(),
    );
}
