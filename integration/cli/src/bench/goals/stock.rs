//! The engine without pages, in the same run: what it takes, and how much more for every token in the cache.
use anyhow::Result;

use super::{Goal, Sizes, Suite, eighth, full, times};
use crate::bench::measure::{Load, Runs, Target, interleave};

/// What a decode step of another runtime grew by on a machine like this, from a short context to the long one: milliseconds.
const OTHER_GROWTH_MS: f64 = 45.0 - 17.5;
/// Seconds that it took for the long prompt.
const OTHER_PROMPT: f64 = 7.5;

/// The same length under both engines.
struct Pair {
    tokens: usize,
    stock: Runs,
    full: Runs,
}

pub(super) async fn measure(suite: &Suite) -> Result<Vec<Goal>> {
    let sizes = suite.sizes;
    let stock = suite.start(None).await?;
    let full = suite.start(Some(full())).await?;
    let lengths = [sizes.short, sizes.small, sizes.medium];
    let loads = lengths.iter().flat_map(|&tokens| {
        let load = suite.load_of(tokens);
        [(&stock, load), (&full, load)]
    });
    let loads: Vec<(&Target, Load)> = loads.collect();
    let runs = interleave(&loads, sizes.rounds, |text| suite.say(text)).await?;
    let mut runs = runs.into_iter();
    let mut pairs = Vec::new();
    while let (Some(stock), Some(full)) = (runs.next(), runs.next()) {
        let tokens = lengths[pairs.len()];
        pairs.push(Pair {
            tokens,
            stock,
            full,
        });
    }
    let mut goals = Vec::new();
    for pair in &pairs[1..] {
        goals.extend(against(pair, 1.0, 1.0)?);
    }
    goals.push(growth(&pairs[0], &pairs[2]));
    let eighth = suite.start(Some(eighth()?)).await?;
    let load = suite.load_of(sizes.long);
    let loads = [(&full, load), (&eighth, load)];
    let mut runs = interleave(&loads, sizes.long_rounds, |text| suite.say(text)).await?;
    let (eighth, full) = (
        runs.pop().unwrap_or_default(),
        runs.pop().unwrap_or_default(),
    );
    goals.extend(scale(&sizes, &pairs[0], &full)?);
    if !sizes.is_quick {
        suite.say("the stock engine reads the long prompt: some minutes");
        let mut runs = interleave(&[(&stock, load)], 1, |text| suite.say(text)).await?;
        let long = Pair {
            tokens: sizes.long,
            stock: runs.pop().unwrap_or_default(),
            full,
        };
        goals.extend(beyond(&pairs[0], &long, &eighth)?);
    }
    Ok(goals)
}

fn step(runs: &Runs) -> f64 {
    runs.median(|timing| timing.step)
}

fn prefill(runs: &Runs) -> f64 {
    runs.median(|timing| timing.prefill)
}

/// Attention of a decode step.
fn attend(runs: &Runs) -> Result<f64> {
    runs.under_policy(|cache| cache.attend)
}

/// Attention over the prompt.
fn attend_prompt(runs: &Runs) -> Result<f64> {
    runs.under_policy(|cache| cache.attend_prompt)
}

/// Both speeds of a cache in pages, in times the stock engine's.
fn against(pair: &Pair, decode: f64, prompt: f64) -> Result<[Goal; 2]> {
    let name = |what: &str| format!("{what}-against-stock-{}", pair.tokens);
    let (stock, full) = (&pair.stock, &pair.full);
    Ok([
        faster(
            name("decode"),
            step(stock),
            step(full),
            attend(full)?,
            decode,
        ),
        faster(
            name("prefill"),
            prefill(stock),
            prefill(full),
            attend_prompt(full)?,
            prompt,
        ),
    ])
}

/// `ours` is seconds with `attention` in them, and so is `stock`.
fn faster(name: String, stock: f64, ours: f64, attention: f64, target: f64) -> Goal {
    let rest = ours - attention;
    let goal = Goal::at_least(
        name,
        times(stock, ours),
        target,
        "times the stock engine's speed",
    );
    goal.note(format!(
        "{:.2} ms, stock {:.2} ms; without any attention {:.2} ms, which bounds it to {:.2}",
        ours * 1e3,
        stock * 1e3,
        rest * 1e3,
        times(stock, rest)
    ))
}

/// How much more a decode step takes at a length than at the short one: stock, in times ours.
fn growth(short: &Pair, at: &Pair) -> Goal {
    let stock = step(&at.stock) - step(&short.stock);
    let full = step(&at.full) - step(&short.full);
    Goal::at_least(
        format!("attention-against-stock-{}", at.tokens),
        times(stock, full),
        5.0,
        "times the speed of the engine's attention",
    )
    .note(format!(
        "the engine's attention cannot be called alone: what a decode step takes more than at {} tokens is compared, \
         {:.2} ms here and {:.2} ms in the stock engine",
        short.tokens,
        full * 1e3,
        stock * 1e3
    ))
}

/// The long prompt, which the stock engine reads once.
fn beyond(short: &Pair, long: &Pair, eighth: &Runs) -> Result<Vec<Goal>> {
    let mut goals: Vec<Goal> = against(long, 2.8, 4.0)?.into();
    goals.push(growth(short, long));
    let name = format!("decode-with-an-eighth-against-stock-{}", long.tokens);
    goals.push(faster(
        name,
        step(&long.stock),
        step(eighth),
        attend(eighth)?,
        3.9,
    ));
    Ok(goals)
}

/// Figures that another runtime's stand beside.
fn scale(sizes: &Sizes, short: &Pair, long: &Runs) -> Result<[Goal; 2]> {
    let growth = step(long) - step(&short.full);
    let attention = attend(long)? - attend(&short.full)?;
    let prompt = attend_prompt(long)?;
    let name = format!("decode-growth-{}", sizes.long);
    let growth = Goal::at_most(name, growth * 1e3, 0.7 * OTHER_GROWTH_MS, "ms");
    let name = format!("prompt-attention-{}", sizes.long);
    let note =
        "for scale: OpenVINO's figures on a machine like the one that the goals were set for";
    Ok([
        growth.note(format!(
            "{note}; attention alone grew by {:.2} ms from {} tokens",
            attention * 1e3,
            short.tokens
        )),
        Goal::at_most(name, prompt, 2.0 * OTHER_PROMPT, "s").note(note),
    ])
}
