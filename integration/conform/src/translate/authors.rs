//! Cases made with the methods' own code, and with `KVCache-Factory`, <https://github.com/Zefan-Cai/KVCache-Factory>.
//!
//! Budgets are token counts, and the group is reduced before the pool.
use kv_core::Budget;

use super::{NO_POLICY, params::Params};
use crate::{
    case::Case,
    job::{Course, Job, Profile},
};

pub(super) fn translate(case: &Case) -> Result<Job, String> {
    let params = Params::new(&case.params);
    let method = case.method.as_str();
    let source = case.source.as_str();
    let job = if method.starts_with("h2o(running") {
        running(method, &params)?
    } else if source.starts_with("KVCache-Factory") {
        factory(method, &params)?
    } else if source.starts_with("FFY0/AdaKV") && method == "adakv(snapkv)" {
        ada(&params)?
    } else if source.starts_with("FYYFU/HeadKV") && method == "headkv" {
        head_kv(&params)?
    } else {
        return Err(NO_POLICY.into());
    };
    params.finish()?;
    Ok(job)
}

/// The clusters of `KVCache-Factory`, whose budget counts the window.
fn factory(method: &str, params: &Params<'_>) -> Result<Job, String> {
    if method == "l2norm" {
        return norms(params);
    }
    if ![
        "snapkv",
        "pyramidkv",
        "h2o(prefill)",
        "streaming_llm",
        "headkv",
    ]
    .contains(&method)
    {
        return Err(NO_POLICY.into());
    }
    let capacity = params.whole("max_capacity_prompt")?;
    let window = params.whole("window_size")?;
    let rest = capacity.checked_sub(window).ok_or_else(|| {
        format!("the parameter `window_size` is {window}, more than `max_capacity_prompt`")
    })?;
    let budget = Budget::Tokens(capacity);
    match method {
        "snapkv" => score(Job::new("snap-kv", budget), params, "gqa_score_agg"),
        "pyramidkv" => {
            let mut job = score(Job::new("pyramid-kv", budget), params, "gqa_score_agg")?
                .with("beta", params.real_or("beta", 20.0)?)
                .with("rounding", "authors");
            job.layers = Some(params.whole("num_hidden_layers")?);
            Ok(job)
        }
        "h2o(prefill)" => Ok(Job::new("h2o", Budget::Full)
            .with("heavy", rest)
            .with("recent", window)
            .with("score", "sum")
            .with(
                "group",
                reduction(params.text_or("gqa_score_agg", "mean")?)?,
            )
            .with("decode", "append")),
        "headkv" => factory_head_kv(params, capacity, window),
        _ => Ok(Job::new("streaming-llm", Budget::Full)
            .with("sinks", rest)
            .with("recent", window)),
    }
}

/// There is no window, and some layers may be left alone.
fn norms(params: &Params<'_>) -> Result<Job, String> {
    let job = Job::new(
        "k-norm",
        Budget::Tokens(params.whole("max_capacity_prompt")?),
    );
    let skipped = params.wholes("skip_layers")?;
    if skipped.is_empty() {
        Ok(job)
    } else {
        Err(format!("no policy leaves the layers {skipped:?} alone"))
    }
}

/// Here alone the window comes on top of the budget.
fn factory_head_kv(params: &Params<'_>, capacity: usize, window: usize) -> Result<Job, String> {
    let job = Job::new("head-kv", Budget::Tokens(capacity.saturating_add(window)));
    let mut job = score(job, params, "gqa_score_agg")?
        .with("score", "window")
        .with("head_group", "mean")
        .with("beta", params.real("head_beta")?)
        .with("rounding", "authors");
    job.profile = Some(Profile::QueryHeads(params.reals("head_scores")?));
    Ok(job)
}

fn head_kv(params: &Params<'_>) -> Result<Job, String> {
    let job = Job::new("head-kv", Budget::Tokens(params.whole("base_capacity")?));
    let mut job = score(job, params, "gqa_func")?
        .with("score", "window")
        .with("beta", params.real("beta")?)
        .with("temp", params.real_or("temp", 1.0)?)
        .with("rounding", "authors");
    job.profile = Some(Profile::QueryHeads(params.reals("head_scores")?));
    Ok(job)
}

fn ada(params: &Params<'_>) -> Result<Job, String> {
    let job = Job::new("ada-kv", Budget::Tokens(params.whole("base_capacity")?));
    Ok(score(job, params, "gqa_func")?
        .with("score", "window")
        .with("alpha", params.real("floor_alpha")?)
        .with("safeguard", "mix")
        .with("rounding", "authors")
        .with("normalize", params.switch("normalize")?)
        .with("skip", params.whole_or("skip", 0)?)
        .with("decode", "append"))
}

/// The window score; `group` names the parameter for the reduction over a group, by default the mean.
fn score(job: Job, params: &Params<'_>, group: &'static str) -> Result<Job, String> {
    let pooling = match params.text("pooling")? {
        "avgpool" => "average",
        "maxpool" => "max",
        other => {
            return Err(format!(
                "the parameter `pooling` is {other}, not avgpool or maxpool"
            ));
        }
    };
    Ok(job
        .with("window", params.whole("window_size")?)
        .with("kernel", params.whole("kernel_size")?)
        .with("pooling", pooling)
        .with("group", reduction(params.text_or(group, "mean")?)?)
        .with("order", "group-then-pool"))
}

fn reduction(name: &str) -> Result<&str, String> {
    match name {
        "mean" | "max" | "sum" => Ok(name),
        _ => Err(format!(
            "the group is reduced by `{name}`, which is not mean, max or sum"
        )),
    }
}

/// H2O's cache, token by token.
fn running(method: &str, params: &Params<'_>) -> Result<Job, String> {
    if method.contains("mask simulation") {
        return Err("a masked token may come back, a freed one cannot".into());
    }
    if !method.contains("real drop") {
        return Err(NO_POLICY.into());
    }
    let mut job = Job::new("h2o", Budget::Full)
        .with("heavy", params.whole("hh_size")?)
        .with("recent", params.whole("recent_size")?)
        .with("score", "sum")
        .with("group", "sum")
        .with("decode", "evict");
    job.course = Course::Steps {
        prefill: params.whole("prefill")?,
    };
    Ok(job)
}
