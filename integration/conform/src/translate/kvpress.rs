//! Cases made with kvpress, <https://github.com/NVIDIA/kvpress>.
//!
//! A press is told which share of the cache to drop. Its scores are pooled for every query head before the group's mean is taken, and
//! its budget counts the window. Presses over another one become policies over another.
use kv_core::Budget;
use serde_json::{Map, Value};

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
        "pyramidkv" => pyramid(&call, rounded(&params, tokens)?)?,
        "adakv" => ada(&call)?.job(n_kept(&params, tokens)?),
        "critical_ada" => critical_ada(&call)?.job(n_kept(&params, tokens)?),
        "chunkkv" => chunks(&call, ratio(&params)?, tokens)?,
        "observed_attention" => observed(&call, n_kept(&params, tokens)?)?,
        "duo_attention" => duo(&call, &params)?,
        _ => press(&call)?.job(n_kept(&params, tokens)?),
    };
    params.finish()?;
    Ok(job)
}

/// A press that ranks, as a policy and its fields.
struct Press {
    policy: &'static str,
    fields: Map<String, Value>,
}

impl Press {
    fn new(policy: &'static str) -> Self {
        Self {
            policy,
            fields: Map::new(),
        }
    }

    fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(field.to_owned(), value.into());
        self
    }

    fn job(self, budget: Budget) -> Job {
        let mut job = Job::new(self.policy, budget);
        job.config = self.fields;
        job
    }

    /// As a policy that another one works over.
    fn over(mut self) -> Value {
        self.fields.insert("policy".to_owned(), self.policy.into());
        self.fields.into()
    }
}

fn press(call: &Call<'_>) -> Result<Press, String> {
    match call.name {
        "snapkv" => snap(Press::new("snap-kv"), call, &["w", "k"]),
        "knorm" => {
            call.only(&[], &[])?;
            Ok(Press::new("k-norm"))
        }
        "tova" => {
            call.only(&[], &[])?;
            Ok(Press::new("tova").with("decode", "append"))
        }
        "keydiff" => {
            call.only(&[], &[])?;
            Ok(Press::new("key-diff"))
        }
        "block" => block(call),
        "lagkv" => lag(call),
        "expected_attention" => expected(call),
        "critical" => {
            call.only_after(1, &[], &[])?;
            Ok(critical(press(&call.inner()?)?))
        }
        _ => Err(NO_POLICY.into()),
    }
}

/// Adds the press' score, whose arguments may be no others than `known`.
fn snap(press: Press, call: &Call<'_>, known: &[&str]) -> Result<Press, String> {
    call.only(known, &[])?;
    Ok(press
        .with("window", call.whole("w", 64)?)
        .with("kernel", call.whole("k", 5)?)
        .with("pooling", "average")
        .with("order", "pool-then-group")
        .with("group", "mean"))
}

fn block(call: &Call<'_>) -> Result<Press, String> {
    let inner = call.inner()?;
    if inner.name != "keydiff" {
        return Err(NO_POLICY.into());
    }
    call.only_after(2, &[], &[])?;
    Ok(press(&inner)?.with("block", call.size()?))
}

fn lag(call: &Call<'_>) -> Result<Press, String> {
    call.only(&["n_sink", "lag"], &["cross"])?;
    Ok(Press::new("lag-kv")
        .with("sinks", call.whole("n_sink", 4)?)
        .with("lag", call.whole("lag", 128)?)
        .with("cross_scoring", call.flag("cross")))
}

fn expected(call: &Call<'_>) -> Result<Press, String> {
    call.only(&["eps"], &["default", "nocov", "novnorm"])?;
    Ok(Press::new("expected-attention")
        .with("sinks", 4)
        .with("future", 512)
        .with("covariance", !call.flag("nocov"))
        .with("value_norm", !call.flag("novnorm"))
        .with("epsilon", call.real("eps", 0.0)?))
}

fn critical(over: Press) -> Press {
    Press::new("critical-kv").with("over", over.over())
}

/// Tokens that a press keeps.
fn n_kept(params: &Params<'_>, tokens: usize) -> Result<Budget, String> {
    Ok(Budget::Tokens(truncated(tokens, ratio(params)?)))
}

/// What a ratio leaves, truncated, in the same binary arithmetic; one at least.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a token count that is far below 2^52"
)]
fn truncated(count: usize, ratio: f64) -> usize {
    let kept = (count as f64 * (1.0 - ratio)) as usize;
    kept.max(1)
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
    call.only(&["n_sink"], &[])?;
    Ok(Job::new("streaming-llm", budget).with("sinks", call.whole("n_sink", 4)?))
}

fn pyramid(call: &Call<'_>, budget: Budget) -> Result<Job, String> {
    let press = snap(Press::new("pyramid-kv"), call, &["w", "k", "beta"])?;
    Ok(press
        .with("beta", call.real("beta", 20.0)?)
        .with("rounding", "kvpress")
        .job(budget))
}

/// Over `SnapKV` it is Ada-KV's own score, over any other press another policy's.
fn ada(call: &Call<'_>) -> Result<Press, String> {
    call.only_after(1, &["alpha"], &[])?;
    let (inner, ada) = (call.inner()?, Press::new("ada-kv"));
    let ada = if inner.name == "snapkv" {
        snap(ada.with("score", "window"), &inner, &["w", "k"])?
    } else {
        ada.with("over", press(&inner)?.over())
    };
    shared(ada, call)
}

/// Ada-KV says how many tokens a head keeps, and two stages choose them.
fn critical_ada(call: &Call<'_>) -> Result<Press, String> {
    Ok(critical(ada(call)?))
}

/// The budget is a share of the chunks, the last of them whole or not.
fn chunks(call: &Call<'_>, ratio: f64, tokens: usize) -> Result<Job, String> {
    call.only_after(2, &[], &[])?;
    let (over, chunk) = (press(&call.inner()?)?.over(), call.size()?);
    if chunk == 0 {
        return Err("chunks of no tokens".into());
    }
    let budget = truncated(tokens.div_ceil(chunk), ratio) * chunk;
    Ok(Press::new("chunk-kv")
        .with("over", over)
        .with("chunk", chunk)
        .job(Budget::Tokens(budget)))
}

/// The press' way to share a layer's budget.
fn shared(ada: Press, call: &Call<'_>) -> Result<Press, String> {
    Ok(ada
        .with("alpha", call.real("alpha", 0.2)?)
        .with("safeguard", "guarantee")
        .with("decode", "append"))
}

fn observed(call: &Call<'_>, budget: Budget) -> Result<Job, String> {
    call.only(&[], &[])?;
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
    call.only(&[], &[])?;
    let mut job = Job::new("duo-attention", Budget::Full)
        .with("threshold", 0.5)
        .with("sinks", params.whole("sink")?)
        .with("recent", params.whole("recent")?);
    job.profile = Some(Profile::Streaming(params.flags("streaming_mask")?));
    Ok(job)
}
