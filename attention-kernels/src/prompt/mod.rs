//! Attention of all queries of a prompt, and what they looked at, in one pass.
//!
//! # How the work is cut
//!
//! The queries of a query head are taken in blocks of [`BLOCK_QUERIES`]. A block scores its queries against all keys that any of them
//! sees, makes a softmax of every row, and sums the values; so no more than a block of scores exists at a time per thread, never
//! `n * n`. Where a policy asked to see the attention, the rows of the queries that count are folded into a row of columns while they
//! are in the cache. The blocks of a query head are dealt in turn to parts, the unit of work for a thread: as many as there are
//! blocks, or [`PARTS`] where each needs columns of its own; parts are put together first to last. Scores, weights and sums
//! are `f32`; columns are `f64`, rounded once at the end.
//!
//! A head of a policy that streams, whose queries see sinks and recent tokens only ([`Sight::Streaming`]), scores these alone: its work
//! is `n * (sinks + recent)`.
//!
//! # What the bits depend on
//!
//! The attention of a query is a function of it, the keys and values it sees, their positions, the scale and the soft cap, to the last
//! bit; the observed row of a KV head of its keys, the queries of its group, their number `n`, the scale, the soft cap and what was asked
//! for. Neither depends on the number of threads, on other heads, or on padding: rows from `n` on are never read. Whether attention is
//! observed changes no bit of it, nor the other way round. Another build, or another CPU, may round differently (fused multiply-add).

mod args;
mod sight;
mod walk;

use kv_core::{Observation, Reduction, Sight};

use crate::KernelError;
use crate::observe::{self, share};
pub(crate) use args::check_heads;
pub(crate) use walk::{Attended, Folded, fold, walk};

pub use args::PromptArgs;
pub use walk::{BLOCK_QUERIES, PARTS};

/// What [`attend_prompt`] attends with, and to.
#[derive(Clone, Copy, Debug)]
pub struct AttendPromptArgs<'a> {
    /// Queries and keys.
    pub prompt: PromptArgs<'a>,
    /// `[H, rows, D]`, row-major. Rows from `tokens` on are never read.
    pub values: &'a [f32],
    /// What the queries of each KV head see, `[H]`.
    pub sights: &'a [Sight],
}

/// Attends with every query of a prompt to the tokens that it sees, into `out` (`[H * G, rows, D]`; padding gets zeros), and returns what
/// a policy asked to see of it: the scores `[H, n]` that [`observe()`](crate::observe()) gives, to the last bit, without reading queries and
/// keys again. What is computed is defined by [`oracle::attend_prompt`](crate::oracle::attend_prompt), which also says how close the
/// result is; [the module](self) says what the bits depend on.
///
/// A number that is not finite in a head's queries or rows makes that head's result unspecified and touches no other head.
///
/// ```
/// use attention_kernels::{AttendPromptArgs, PromptArgs, attend_prompt};
/// use kv_core::{Observation, Reduce, Reduction, Sight};
///
/// // Two tokens whose keys are alike: the second query gets the mean of both values.
/// let prompt = PromptArgs {
///     queries: &[1.0, 1.0],
///     keys: &[1.0, 1.0],
///     rows: 2,
///     tokens: 2,
///     group: 1,
///     head_dim: 1,
///     scale: 1.0,
///     softcap: None,
/// };
/// let args = AttendPromptArgs { prompt, values: &[2.0, 4.0], sights: &[Sight::Causal] };
/// let mut out = [0.0; 2];
/// let sum = Reduction { queries: Reduce::Sum, ..Reduction::MEAN };
/// let seen = attend_prompt(&args, Observation::Accumulated, sum, &mut out)?;
/// assert_eq!(out, [2.0, 3.0]);
/// assert_eq!(seen, Some(vec![1.5, 0.5]));
/// # Ok::<(), attention_kernels::KernelError>(())
/// ```
///
/// # Errors
///
/// Those of [`observe()`](crate::observe()), [`KernelError::KeysValuesDiffer`], [`KernelError::OutputLength`],
/// [`KernelError::SightsLength`]; [`KernelError::SightObserved`] where attention is observed of a head that does not see all. `out` is
/// unchanged then.
pub fn attend_prompt(
    args: &AttendPromptArgs<'_>,
    observation: Observation,
    reduction: Reduction,
    out: &mut [f32],
) -> Result<Option<Vec<f32>>, KernelError> {
    let prompt = &args.prompt;
    let heads = args.check(out)?;
    let folded = observe::folded(prompt, observation, reduction)?;
    if let (Some(_), Some(head)) = (
        &folded,
        args.sights.iter().position(|&sight| sight != Sight::Causal),
    ) {
        return Err(KernelError::SightObserved { head });
    }
    let attended = Attended {
        values: args.values,
        sights: args.sights,
        out,
    };
    let columns = walk(prompt, heads, Some(attended), folded.as_ref());
    let Some(folded) = folded else {
        return observe::observe(observation, reduction, prompt);
    };
    let mut scores = observe::finish(prompt, heads, &folded, &columns, reduction);
    if reduction.shared {
        share(&mut scores, prompt.tokens);
    }
    Ok(Some(scores))
}

impl AttendPromptArgs<'_> {
    /// Checks everything but what is observed, and says how many KV heads there are.
    fn check(&self, out: &[f32]) -> Result<usize, KernelError> {
        let heads = self.prompt.check()?;
        let (keys, values) = (self.prompt.keys.len(), self.values.len());
        if keys != values {
            return Err(KernelError::KeysValuesDiffer { keys, values });
        }
        if out.len() != self.prompt.queries.len() {
            return Err(KernelError::OutputLength {
                elements: out.len(),
                expected: self.prompt.queries.len(),
            });
        }
        if self.sights.len() != heads {
            return Err(KernelError::SightsLength {
                sights: self.sights.len(),
                heads,
            });
        }
        Ok(heads)
    }
}
