//! What was measured of a model, row by row: for people, for files, as a plot.
use anyhow::Result;
use serde::Serialize;

use super::measure::{Load, Runs, float};
use crate::{
    plot::{From, Line, Titles, lines},
    table::{columns, figure},
};

/// Figures of one prompt length, or of one depth.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// The policy and its budget, or the stock engine.
    pub(super) policy: String,
    /// `pp512`: reading a prompt; `tg128 @ d512`: generating at a depth.
    pub(super) test: String,
    pub(super) tokens_per_second: f64,
    pub(super) ms_per_token: f64,
    /// From the request to the first token.
    pub(super) first_token_ms: f64,
    /// Seconds of all processors, for prompt and answer.
    pub(super) cpu_seconds: f64,
    /// Most memory of a process that does just this, after the model was loaded.
    pub(super) peak_rss_bytes: Option<u64>,
    /// Most pages held at once while the prompt was read, and pages held at the end.
    pub(super) pages_peak: Option<f64>,
    pub(super) pages_held: Option<f64>,
    /// Keys and values that a decode step reads.
    pub(super) kv_bytes_per_step: Option<f64>,
    /// Attention of a decode step, or over a whole prompt.
    pub(super) attention_ms: Option<f64>,
    /// Keys and values read per second of attention.
    pub(super) attention_bytes_per_second: Option<f64>,
    /// How fast this machine reads memory, measured before and after.
    pub(super) memory_bytes_per_second: f64,
    /// The share of that which attention reached.
    pub(super) share: Option<f64>,
}

/// What a file gets.
#[derive(Debug, Serialize)]
pub(super) struct Figures<'a> {
    pub(super) model: &'a str,
    pub(super) threads: usize,
    pub(super) simd: String,
    pub(super) iterations: usize,
    pub(super) rows: Vec<Row>,
}

/// The figures of a load under a policy, on a machine that reads so many bytes of memory per second.
pub(super) fn row(policy: &str, test: &str, load: Load, runs: &Runs, memory: f64) -> Row {
    let is_decode = load.steps > 0;
    let seconds = if is_decode {
        runs.median(|timing| timing.step)
    } else {
        runs.median(|timing| timing.prefill) / float(load.prompt)
    };
    let attention = runs.cache(|cache| {
        if is_decode {
            cache.attend
        } else {
            cache.attend_prompt
        }
    });
    // On a device nothing is timed.
    let attention = attention.filter(|&seconds| seconds > 0.0);
    let bytes = runs.cache(|cache| cache.step_bytes()).filter(|_| is_decode);
    let speed = bytes.zip(attention).map(|(bytes, seconds)| bytes / seconds);
    Row {
        policy: policy.to_owned(),
        test: test.to_owned(),
        tokens_per_second: 1.0 / seconds,
        ms_per_token: seconds * 1e3,
        first_token_ms: 1e3 * runs.median(|timing| timing.prefill),
        cpu_seconds: runs.median(|timing| timing.cpu),
        peak_rss_bytes: None,
        pages_peak: runs.cache(|cache| float(cache.prompt_peak)),
        pages_held: runs.cache(|cache| float(cache.pages)),
        kv_bytes_per_step: bytes,
        attention_ms: attention.map(|seconds| seconds * 1e3),
        attention_bytes_per_second: speed,
        memory_bytes_per_second: memory,
        share: speed.map(|speed| speed / memory),
    }
}

impl Figures<'_> {
    /// A table for people.
    pub(super) fn text(&self) -> String {
        let header = [
            "policy",
            "test",
            "tokens/s",
            "ms/token",
            "first token ms",
            "CPU s",
            "peak RSS MiB",
            "pages",
            "K/V MiB/step",
            "attention ms",
            "GB/s",
            "share",
        ];
        let mebibytes = |bytes: f64| bytes / f64::from(1 << 20);
        let rows = self.rows.iter().map(|row| {
            vec![
                row.policy.clone(),
                row.test.clone(),
                figure(Some(row.tokens_per_second), 1),
                figure(Some(row.ms_per_token), 3),
                figure(Some(row.first_token_ms), 0),
                figure(Some(row.cpu_seconds), 2),
                #[expect(clippy::cast_precision_loss, reason = "bytes of memory")]
                figure(row.peak_rss_bytes.map(|bytes| mebibytes(bytes as f64)), 0),
                figure(row.pages_held, 0),
                figure(row.kv_bytes_per_step.map(mebibytes), 2),
                figure(row.attention_ms, 3),
                figure(row.attention_bytes_per_second.map(|speed| speed / 1e9), 1),
                row.share
                    .map_or_else(|| "-".into(), |share| format!("{:.0} %", 100.0 * share)),
            ]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        format!(
            "{}: {} threads, {}, memory read at {:.1} GB/s; medians of {}\n{}",
            self.model,
            self.threads,
            self.simd,
            self.rows
                .first()
                .map_or(0.0, |row| row.memory_bytes_per_second)
                / 1e9,
            self.iterations,
            columns(&header, &rows)
        )
    }

    /// What a token takes at each depth: a line for each policy.
    pub(super) fn plot<'a>(
        &self,
        policies: impl Iterator<Item = &'a str>,
        loads: &[(String, Load)],
    ) -> Result<String> {
        let title = format!("{}: time for a token", self.model);
        let titles = Titles {
            title: &title,
            x: "tokens before it",
            y: "milliseconds",
            from: From::Zero,
        };
        let of_policy = policies.map(|policy| {
            let rows = self.rows.iter().filter(|row| row.policy == policy);
            let points = rows.zip(loads).filter(|(_, (_, load))| load.steps > 0);
            Line {
                name: policy.to_owned(),
                points: points
                    .map(|(row, (_, load))| (float(load.prompt), row.ms_per_token))
                    .collect(),
            }
        });
        lines(titles, &of_policy.collect::<Vec<_>>())
    }
}
