//! What a policy asked to see, reduced to one number per KV head and token: `[H, T]`, higher keeps.
//!
//! [`observe_window`] and [`observe_accumulated`] read the queries and keys of a prompt, [`key_norms`] its keys alone; [`observe()`]
//! chooses among them. [`attend_observed`](crate::attend_observed) watches a decode step. [`Reduction`] says how attention of every
//! query head and query becomes one number: over the queries, then over the group and along the text.
//!
//! How the work is cut, and what the bits depend on: see [`prompt`](crate::prompt). [`attend_prompt`](crate::attend_prompt) gives the
//! same numbers as a by-product of attention over the prompt.

mod norms;
mod reduce;

use kv_core::{Observation, Reduction};

use crate::prompt::{Folded, walk};
use crate::{KernelError, PromptArgs};
use reduce::reduce_heads;

pub(crate) use reduce::check_pool;

pub use norms::{KeyNormsArgs, key_norms};

/// What a policy asked to see of a prompt: the kernel that `observation` names, or `None` where it names nothing that a prompt
/// is read for. This is the one place where an observation finds its kernel.
///
/// | observation | kernel |
/// |---|---|
/// | [`Observation::None`] | none; the arguments are not looked at |
/// | [`Observation::Window`] | [`observe_window`] |
/// | [`Observation::Latest`] | [`observe_window`] of one query |
/// | [`Observation::Accumulated`], [`Observation::Rows`] | [`observe_accumulated`] |
/// | [`Observation::KeyNorms`] | [`key_norms`]; of the arguments it looks at the keys and their shape alone |
///
/// ```
/// use attention_kernels::{PromptArgs, observe};
/// use kv_core::{Observation, Reduction};
///
/// let args = PromptArgs {
///     queries: &[],
///     keys: &[3.0, 4.0, 0.0, 2.0],
///     rows: 2,
///     tokens: 2,
///     group: 1,
///     head_dim: 2,
///     scale: 1.0,
///     softcap: None,
/// };
/// let norms = observe(Observation::KeyNorms, Reduction::MEAN, &args)?;
/// assert_eq!(norms, Some(vec![-5.0, -2.0]));
/// assert_eq!(observe(Observation::None, Reduction::MEAN, &args)?, None);
/// # Ok::<(), attention_kernels::KernelError>(())
/// ```
///
/// Where the heads share one score ([`Reduction::shared`]), each is given the mean over them; the single kernels leave that to
/// this function.
///
/// # Errors
///
/// [`KernelError::NotObserved`] for an observation that no kernel supplies, or else those of the kernel.
pub fn observe(
    observation: Observation,
    reduction: Reduction,
    args: &PromptArgs<'_>,
) -> Result<Option<Vec<f32>>, KernelError> {
    let mut scores = match observation {
        Observation::None => return Ok(None),
        Observation::KeyNorms => key_norms(&KeyNormsArgs::from(args))?,
        _ => observe_attention(args, observation, reduction)?,
    };
    if reduction.shared {
        share(&mut scores, args.tokens);
    }
    Ok(Some(scores))
}

/// Whose softmax rows an observation is made of; `None` where it is not made of attention.
pub(crate) fn folded(
    args: &PromptArgs<'_>,
    observation: Observation,
    reduction: Reduction,
) -> Result<Option<Folded>, KernelError> {
    let window = match observation {
        Observation::Window { queries: 0 } => {
            return Err(KernelError::WindowOutOfRange { window: 0 });
        }
        Observation::Window { queries } => Some(queries),
        Observation::Latest => Some(1),
        Observation::Accumulated | Observation::Rows => None,
        _ => return Ok(None),
    };
    check_pool(reduction.pool)?;
    let n = args.tokens;
    let (first, before) = match window {
        Some(window) => (n - window.min(n), n - window.min(n)),
        None => (0, n),
    };
    Ok(Some(Folded {
        queries: first..n,
        before,
        reduce: reduction.queries,
    }))
}

fn observe_attention(
    args: &PromptArgs<'_>,
    observation: Observation,
    reduction: Reduction,
) -> Result<Vec<f32>, KernelError> {
    let Some(folded) = folded(args, observation, reduction)? else {
        return Err(KernelError::NotObserved { observation });
    };
    let heads = args.check()?;
    let columns = walk(args, heads, None, Some(&folded));
    Ok(finish(args, heads, &folded, &columns, reduction))
}

/// Reduces columns (`[H * G, before]`) to one number per KV head and token, `[H, n]`; those from `before` on are kept in any case.
pub(crate) fn finish(
    args: &PromptArgs<'_>,
    heads: usize,
    folded: &Folded,
    columns: &[f64],
    reduction: Reduction,
) -> Vec<f32> {
    let mut out = vec![f32::INFINITY; heads * args.tokens];
    reduce_heads(columns, folded.before, args, reduction, &mut out);
    out
}

/// The mean over the heads in place of each head's scores, `[H, T]`.
pub(crate) fn share(scores: &mut [f32], tokens: usize) {
    let heads = scores.len() / tokens.max(1);
    for token in 0..tokens {
        let column = || (0..heads).map(|head| head * tokens + token);
        let sum: f64 = column().map(|index| f64::from(scores[index])).sum();
        #[expect(clippy::cast_possible_truncation, reason = "a mean, rounded once")]
        let mean = (sum / heads as f64) as f32;
        for index in column() {
            scores[index] = mean;
        }
    }
}

/// Attention of the last `window` prompt queries to the tokens before them: `[H, n]`; a window of more queries than there are means
/// all. The window's own tokens take their share of each softmax, are left out of the pool, and score positive infinity. What is
/// computed is defined by
/// [`oracle::observe_window`](crate::oracle::observe_window), which also says how close the result is; [`prompt`](crate::prompt) says what
/// the bits depend on.
///
/// A number that is not finite among the queries or keys of a head makes that head's row unspecified and touches no other head.
///
/// ```
/// use attention_kernels::{PromptArgs, observe_window};
/// use kv_core::Reduction;
///
/// // One head of three tokens. The last query weighs them 3 : 1 : 4.
/// let args = PromptArgs {
///     queries: &[0.0, 0.0, 1.0],
///     keys: &[3.0_f32.ln(), 0.0, 4.0_f32.ln()],
///     rows: 3,
///     tokens: 3,
///     group: 1,
///     head_dim: 1,
///     scale: 1.0,
///     softcap: None,
/// };
/// let seen = observe_window(&args, 1, Reduction::MEAN)?;
/// assert!((seen[0] - 0.375).abs() < 1e-6 && (seen[1] - 0.125).abs() < 1e-6);
/// assert_eq!(seen[2], f32::INFINITY);
/// # Ok::<(), attention_kernels::KernelError>(())
/// ```
///
/// # Errors
///
/// [`KernelError::HeadDimOutOfRange`], [`KernelError::HeadsNotWhole`], [`KernelError::TokensOutOfRange`],
/// [`KernelError::GroupOutOfRange`], [`KernelError::PromptQueriesLength`], [`KernelError::ScaleOutOfRange`],
/// [`KernelError::SoftcapOutOfRange`], [`KernelError::PoolWidthOutOfRange`], [`KernelError::WindowOutOfRange`].
pub fn observe_window(
    args: &PromptArgs<'_>,
    window: usize,
    reduction: Reduction,
) -> Result<Vec<f32>, KernelError> {
    observe_attention(args, Observation::Window { queries: window }, reduction)
}

/// Attention accumulated over all prompt queries: `[H, n]`. What is computed is defined by
/// [`oracle::observe_accumulated`](crate::oracle::observe_accumulated), which also says how close the result is; [`prompt`](crate::prompt)
/// says what the bits depend on. Takes about `H * G * n * n * D / 2` multiply-adds and no memory beyond a few rows of `n`
/// per query head.
///
/// A number that is not finite among the queries or keys of a head makes that head's row unspecified and touches no other head.
///
/// # Errors
///
/// Those of [`observe_window`], the window's apart.
pub fn observe_accumulated(
    args: &PromptArgs<'_>,
    reduction: Reduction,
) -> Result<Vec<f32>, KernelError> {
    observe_attention(args, Observation::Accumulated, reduction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_row_is_a_window_of_one_query_and_heads_share_its_mean() {
        let args = PromptArgs {
            queries: &[0.0, 0.0, 1.0, 0.0, 0.0, 0.0],
            keys: &[3.0_f32.ln(), 0.0, 4.0_f32.ln(), 1.0, 2.0, 3.0],
            rows: 3,
            tokens: 3,
            group: 1,
            head_dim: 1,
            scale: 1.0,
            softcap: None,
        };
        let alone = observe(Observation::Latest, Reduction::MEAN, &args).expect("sound");
        let window = observe_window(&args, 1, Reduction::MEAN).expect("sound");
        assert_eq!(alone, Some(window));
        let reduction = Reduction {
            shared: true,
            ..Reduction::MEAN
        };
        let shared = observe(Observation::Latest, reduction, &args)
            .expect("sound")
            .expect("observed");
        // 3/8 and 1/3; 1/8 and 1/3.
        let expected = [17.0 / 48.0, 11.0 / 48.0, f32::INFINITY];
        for (index, seen) in shared.iter().enumerate() {
            let expected = expected[index % 3];
            assert!(
                seen == &expected || (seen - expected).abs() < 1e-6,
                "{shared:?}"
            );
        }
    }
}
