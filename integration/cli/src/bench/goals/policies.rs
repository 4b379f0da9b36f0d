//! What choosing tokens costs, in shares of the time that a prompt and a decode step take.
use anyhow::{Context, Result};
use mistralrs_kv::CacheConfig;

use super::{Goal, Suite, full, percent, times};
use crate::bench::measure::{CacheTiming, Runs, interleave};

/// Policies, and whether they observe anything.
pub(super) const POLICIES: [(&str, bool); 9] = [
    ("h2o", true),
    ("snap-kv", true),
    ("ada-kv", true),
    ("head-kv", true),
    ("pyramid-kv", true),
    ("tova", true),
    ("k-norm", true),
    ("streaming-llm", false),
    ("duo-attention", false),
];

pub(super) async fn measure(suite: &Suite) -> Result<Vec<Goal>> {
    let sizes = suite.sizes;
    let full = suite.start(Some(full())).await?;
    let mut targets = Vec::new();
    for (policy, _) in POLICIES {
        targets.push(suite.start(Some(budget_of(policy)?)).await?);
    }
    let load = suite.load_of(sizes.medium);
    // The full cache twice: over the same prompt, and over as many tokens as the others keep.
    let mut loads = vec![(&full, load), (&full, suite.load_of(sizes.medium / 4))];
    loads.extend(targets.iter().map(|target| (target, load)));
    let runs = interleave(&loads, sizes.rounds, |text| suite.say(text)).await?;
    let [full, kept, policies @ ..] = runs.as_slice() else {
        return Ok(Vec::new()); // cannot be: more than two loads
    };
    let mut goals = Vec::new();
    for ((policy, observes), runs) in POLICIES.into_iter().zip(policies) {
        let limits = if observes { [0.03, 0.05] } else { [0.001; 2] };
        let decode = decode(runs, kept)?;
        let prefill = prefill(runs, full)?;
        goals.push(decode.goal(format!("{policy}-cost-of-decode"), limits[0]));
        goals.push(prefill.goal(format!("{policy}-cost-of-prefill"), limits[1]));
    }
    Ok(goals)
}

/// A quarter of the prompt; streaming heads keep what they keep.
fn budget_of(policy: &str) -> Result<CacheConfig> {
    let config = CacheConfig::new(policy);
    if policy == "duo-attention" {
        return Ok(config.set("sparsity", 0.5));
    }
    Ok(config.budget("25%".parse().context("a share")?))
}

/// Seconds that a policy took, of all.
struct Cost {
    /// Beside attention.
    beside: f64,
    /// Attention takes longer for what it observes on its way.
    within: f64,
    whole: f64,
}

impl Cost {
    fn goal(&self, name: String, limit: f64) -> Goal {
        let cost = self.beside + self.within;
        let note = format!(
            "{:.3} of {:.3} ms: {:.3} beside attention, {:.3} within it ({:.2} %)",
            cost * 1e3,
            self.whole * 1e3,
            self.beside * 1e3,
            self.within * 1e3,
            percent(cost, self.whole)
        );
        Goal::at_most(name, times(cost, self.whole), limit, "of the time").note(note)
    }
}

/// Of a decode step. `kept` has the full cache's over about as many tokens.
fn decode(runs: &Runs, kept: &Runs) -> Result<Cost> {
    let of = |of: fn(&CacheTiming) -> f64| {
        let (ours, plain) = (runs.under_policy(of)?, kept.under_policy(of)?);
        Ok::<_, anyhow::Error>((ours, plain))
    };
    let (attend, plain) = of(|cache| cache.attend)?;
    let (tokens, plain_tokens) = of(|cache| cache.tokens)?;
    let (enter, append) = of(|cache| cache.write)?;
    let (observes, _) = of(|cache| f64::from(u8::from(cache.observes_steps)))?;
    // A policy that scores tokens as they are decoded also looks for the one that goes.
    let more = |ours: f64, plain: f64| observes * (ours - plain).max(0.0);
    Ok(Cost {
        beside: runs.under_policy(|cache| cache.plan_step)? + more(enter, append),
        within: more(attend, plain * times(tokens, plain_tokens)),
        whole: runs.median(|timing| timing.step),
    })
}

/// Of a prompt. `full` has the full cache's over the same.
fn prefill(runs: &Runs, full: &Runs) -> Result<Cost> {
    let attend = |runs: &Runs| runs.under_policy(|cache| cache.attend_prompt);
    let observes = runs.under_policy(|cache| f64::from(u8::from(cache.observes_prompt)))? > 0.0;
    let more = attend(runs)? - attend(full)?;
    Ok(Cost {
        beside: runs.under_policy(|cache| cache.plan_prompt)?,
        within: if observes { more.max(0.0) } else { 0.0 },
        whole: runs.median(|timing| timing.prefill),
    })
}
