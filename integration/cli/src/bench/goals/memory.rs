//! Bytes held beside those of the tokens kept, and pages held while a prompt is read.
use anyhow::Result;
use kv_core::Budget;
use mistralrs_kv::CacheConfig;

use super::{Goal, Suite, share_of_longest, times};
use crate::bench::measure::{CacheTiming, float, interleave};

/// Tokens per head where pages that are not full must not weigh.
const KEPT: usize = 256;

pub(super) async fn measure(suite: &Suite) -> Result<Vec<Goal>> {
    Ok(vec![resident(suite).await?, peak(suite).await?])
}

/// Bytes of pages against bytes of tokens, where every head holds another number.
async fn resident(suite: &Suite) -> Result<Goal> {
    let block = suite.engine.block_size;
    let cache = CacheConfig::new("ada-kv").budget(Budget::Tokens(KEPT));
    let target = suite.start(Some(cache)).await?;
    let loads = [(&target, suite.load_of(suite.sizes.medium))];
    let runs = interleave(&loads, 1, |text| suite.say(text)).await?;
    let of = |of: fn(&CacheTiming) -> usize| {
        let runs = runs.iter();
        runs.filter_map(|runs| runs.cache(|cache| float(of(cache))))
            .sum::<f64>()
    };
    let (held, kept) = (of(|cache| cache.page_bytes), of(|cache| cache.kept_bytes));
    let name = format!("resident-bytes-pages-of-{block}");
    let goal = Goal::at_most(name, times(held, kept), 1.05, "times the bytes kept");
    Ok(goal.note(format!(
        "ada-kv with {KEPT} tokens per head on average: {:.2} MiB of pages, {:.2} MiB of tokens; a head's last page is half full \
         on average, {} of {KEPT} tokens",
        held / f64::from(1 << 20),
        kept / f64::from(1 << 20),
        block / 2
    )))
}

/// Most pages held while a long prompt is read.
async fn peak(suite: &Suite) -> Result<Goal> {
    let (prompt, kept) = (suite.sizes.longest, share_of_longest(&suite.sizes, 1024));
    let cache = CacheConfig::new("snap-kv").budget(Budget::Tokens(kept));
    let target = suite.start(Some(cache)).await?;
    let loads = [(&target, suite.load_of(prompt))];
    let runs = interleave(&loads, 1, |text| suite.say(text)).await?;
    let of = |of: fn(&CacheTiming) -> usize| {
        let runs = runs.iter();
        runs.filter_map(|runs| runs.cache(|cache| float(of(cache))))
            .sum::<f64>()
    };
    let (peak, full) = (of(|cache| cache.prompt_peak), of(|cache| cache.prompt_full));
    let name = format!("prompt-peak-pages-{prompt}");
    let goal = Goal::at_most(name, times(peak, full), 0.19, "of the full cache's pages");
    Ok(goal.note(format!(
        "snap-kv with {kept} tokens per head: {peak} of {full} pages at once"
    )))
}
