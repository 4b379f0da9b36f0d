//! What a smaller cache gains over the full one, and heads that stream a prompt over those that read all of it.
use anyhow::Result;
use mistralrs_kv::CacheConfig;

use super::{Goal, Suite, eighth, full, times};
use crate::bench::measure::{Runs, interleave};

/// Room for chance beyond what is possible.
const CHANCE: f64 = 1.1;

pub(super) async fn measure(suite: &Suite) -> Result<Vec<Goal>> {
    let full = suite.start(Some(full())).await?;
    let eighth = suite.start(Some(eighth()?)).await?;
    let streaming = CacheConfig::new("duo-attention")
        .set("prompt", "streaming")
        .set("sparsity", 0.5);
    let streaming = suite.start(Some(streaming)).await?;
    let load = suite.load_of(suite.sizes.longest);
    let loads = [(&full, load), (&eighth, load), (&streaming, load)];
    let runs = interleave(&loads, suite.sizes.long_rounds, |text| suite.say(text)).await?;
    let [full, eighth, streaming] = runs.as_slice() else {
        return Ok(Vec::new()); // cannot be: three loads
    };
    let mut goals: Vec<Goal> = smaller(suite, full, eighth)?.into();
    let prompt = |runs: &Runs| runs.under_policy(|cache| cache.attend_prompt);
    let (all, half) = (prompt(full)?, prompt(streaming)?);
    goals.push(
        Goal::at_least(
            format!("duo-prompt-attention-{}", suite.sizes.longest),
            times(all, half),
            1.4,
            "times the speed of full attention",
        )
        // The other half takes as long as before.
        .possible(2.0 * CHANCE)
        .note(format!(
            "half of the heads stream the prompt: {half:.2} s of attention, {all:.2} s where all read all of it"
        )),
    );
    Ok(goals)
}

/// Attention of a decode step, and the whole step.
fn smaller(suite: &Suite, full: &Runs, eighth: &Runs) -> Result<[Goal; 2]> {
    let attend = |runs: &Runs| runs.under_policy(|cache| cache.attend);
    let step = |runs: &Runs| runs.median(|timing| timing.step);
    let (attend_full, attend_eighth) = (attend(full)?, attend(eighth)?);
    let (step_full, step_eighth) = (step(full), step(eighth));
    let rest = step_full - attend_full;
    let implied = times(step_full, rest + attend_eighth);
    let tokens = suite.sizes.longest;
    let attention = Goal::at_least(
        format!("attention-with-an-eighth-{tokens}"),
        times(attend_full, attend_eighth),
        6.5,
        "times the speed over the full cache",
    )
    // An eighth of the tokens is read eight times as fast.
    .possible(8.0 * CHANCE);
    let whole = Goal::at_least(
        format!("decode-with-an-eighth-{tokens}"),
        times(times(step_full, step_eighth), implied),
        0.95,
        "of what the attention time implies",
    )
    .possible(CHANCE);
    Ok([
        attention.note(format!(
            "{:.3} ms of a decode step, {:.3} ms over the full cache",
            attend_eighth * 1e3,
            attend_full * 1e3
        )),
        whole.note(format!(
            "{:.2} ms a token against {:.2} ms, {:.2} times as fast; the rest of the step, {:.2} ms, bounds it to {implied:.2}",
            step_eighth * 1e3,
            step_full * 1e3,
            times(step_full, step_eighth),
            rest * 1e3
        )),
    ])
}
