//! Cases made with kvpress, <https://github.com/NVIDIA/kvpress>.
//!
//! A press is told which share of the cache to drop. Its scores are pooled for every query head before the group's mean is taken, and
//! its budget counts the window.
use kv_core::Budget;

use super::{NO_POLICY, call::Call, params::Params};
use crate::{
    case::Case,
    job::{Job, Profile},
};

pub(super) fn translate(case: &Case) -> Result<Job, String> {
    let params = Params::new(&case.params);
    let call = Call::parse(&case.method)?;
    let tokens = case.shape.last().copied().unwrap_or(0);
    let job = match call.name {
        "streaming_llm" => streaming(&call, n_kept(&params, tokens)?)?,
        "snapkv" => snap(
            Job::new("snap-kv", n_kept(&params, tokens)?),
            &call,
            &["w", "k"],
        )?,
        "pyramidkv" => pyramid(&call, rounded(&params, tokens)?)?,
        "adakv" => ada(&call, &params, tokens)?,
        "observed_attention" => observed(&call, n_kept(&params, tokens)?)?,
        "duo_attention" => duo(&call, &params)?,
        _ => return Err(NO_POLICY.into()),
    };
    params.finish()?;
    Ok(job)
}

/// What a ratio leaves, truncated, in the same binary arithmetic.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a token count that is far below 2^52"
)]
fn n_kept(params: &Params<'_>, tokens: usize) -> Result<Budget, String> {
    let ratio = ratio(params)?;
    let kept = (tokens as f64 * (1.0 - ratio)) as usize;
    Ok(Budget::Tokens(kept.max(1)))
}

/// What a ratio leaves, rounded to the nearest, as the pyramid's press has it.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a token count that is far below 2^52"
)]
fn rounded(params: &Params<'_>, tokens: usize) -> Result<Budget, String> {
    let ratio = ratio(params)?;
    let kept = (tokens as f64 * (1.0 - ratio)).round_ties_even() as usize;
    Ok(Budget::Tokens(kept.max(1)))
}

fn ratio(params: &Params<'_>) -> Result<f64, String> {
    let ratio = params.real("compression_ratio")?;
    if (0.0..1.0).contains(&ratio) {
        Ok(ratio)
    } else {
        Err(format!(
            "the parameter `compression_ratio` is {ratio}, not from 0 to below 1"
        ))
    }
}

fn streaming(call: &Call<'_>, budget: Budget) -> Result<Job, String> {
    call.only(&["n_sink"], false)?;
    Ok(Job::new("streaming-llm", budget).with("sinks", call.whole("n_sink", 4)?))
}

/// Adds the press' score, whose arguments may be no others than `known`.
fn snap(job: Job, call: &Call<'_>, known: &[&str]) -> Result<Job, String> {
    call.only(known, false)?;
    Ok(job
        .with("window", call.whole("w", 64)?)
        .with("kernel", call.whole("k", 5)?)
        .with("pooling", "average")
        .with("order", "pool-then-group")
        .with("group", "mean"))
}

fn pyramid(call: &Call<'_>, budget: Budget) -> Result<Job, String> {
    let job = snap(Job::new("pyramid-kv", budget), call, &["w", "k", "beta"])?;
    Ok(job
        .with("beta", call.real("beta", 20.0)?)
        .with("rounding", "kvpress"))
}

fn ada(call: &Call<'_>, params: &Params<'_>, tokens: usize) -> Result<Job, String> {
    let inner = Call::parse(call.inner().ok_or(NO_POLICY)?)?;
    if inner.name != "snapkv" {
        return Err(NO_POLICY.into());
    }
    call.only(&["alpha"], true)?;
    let job = Job::new("ada-kv", n_kept(params, tokens)?);
    Ok(snap(job, &inner, &["w", "k"])?
        .with("score", "window")
        .with("alpha", call.real("alpha", 0.2)?)
        .with("safeguard", "guarantee")
        .with("decode", "append"))
}

fn observed(call: &Call<'_>, budget: Budget) -> Result<Job, String> {
    call.only(&[], false)?;
    let Budget::Tokens(heavy) = budget else {
        return Err(NO_POLICY.into());
    };
    // The press' budget has no part for recent tokens, so the sizes say it all.
    Ok(Job::new("h2o", Budget::Full)
        .with("heavy", heavy)
        .with("recent", 0)
        .with("score", "mean")
        .with("group", "mean")
        .with("decode", "append"))
}

fn duo(call: &Call<'_>, params: &Params<'_>) -> Result<Job, String> {
    call.only(&[], false)?;
    let mut job = Job::new("duo-attention", Budget::Full)
        .with("threshold", 0.5)
        .with("sinks", params.whole("sink")?)
        .with("recent", params.whole("recent")?);
    job.profile = Some(Profile::Streaming(params.flags("streaming_mask")?));
    Ok(job)
}
