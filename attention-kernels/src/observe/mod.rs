//! What a policy asked to see, reduced to one number per KV head and token: `[H, T]`, higher keeps.
//!
//! [`observe_window`] and [`observe_accumulated`] read the queries and keys of a prompt, [`key_norms`] its keys alone;
//! [`attend_observed`](crate::attend_observed) watches a decode step. [`Reduction`] says how attention of every
//! query head and query becomes one number: over the queries, then over the group and along the text.
//!
//! # How the work is cut
//!
//! The queries of a query head are taken in blocks of [`BLOCK_QUERIES`]. A block scores its queries against all keys that they can
//! see, makes every row a softmax, and folds the rows into one row of columns. So no more than a block of scores exists at a time per
//! thread. The blocks are dealt in turn to [`PARTS`] parts, each with columns of its own; head and part are the unit of work for a
//! thread, and the parts of a head are put together first to last. Scores and weights are `f32`, all that is folded is `f64`,
//! and what is returned is rounded once.
//!
//! # What the bits depend on
//!
//! The row of a KV head is a function of its keys, the queries of its group, their number `n`, the scale, the soft cap and what was
//! asked for, to the last bit. It does not depend on the number of threads, on other heads, or on padding: rows from `n` on are never
//! read. Another build may round differently (fused multiply-add).

mod columns;
mod norms;
mod prompt;
mod reduce;

use kv_core::Reduction;

use crate::KernelError;
use columns::{Queries, columns};
use prompt::Prompt;
use reduce::{check_pool, reduce_heads};

pub use columns::{BLOCK_QUERIES, PARTS};
pub use norms::{KeyNormsArgs, key_norms};

/// What [`observe_window`] reads, and what it makes of it.
#[derive(Clone, Copy, Debug)]
pub struct WindowArgs<'a> {
    /// `[H * G, rows, D]`, row-major, after `RoPE`. The query heads of a KV head are neighbours.
    pub queries: &'a [f32],
    /// `[H, rows, D]`, row-major, after `RoPE`. Its length gives `H`.
    pub keys: &'a [f32],
    /// Rows per head, at least `tokens`. So one sequence of a padded batch can be passed as it stands.
    pub rows: usize,
    /// `n`, tokens of the prompt: rows `0..tokens` of every head. Rows from `tokens` on are never read, whatever they hold.
    pub tokens: usize,
    /// `G`, query heads per KV head.
    pub group: usize,
    /// `D`, elements per row.
    pub head_dim: usize,
    /// Factor on every score, usually `1 / sqrt(D)`.
    pub scale: f32,
    /// Where given, a score `s` becomes `cap * tanh(s / cap)` after scaling.
    pub softcap: Option<f32>,
    /// Queries to watch, counted from the end of the prompt. More than there are means all.
    pub window: usize,
    /// How attention becomes one number per token.
    pub reduction: Reduction,
}

/// What [`observe_accumulated`] reads, and what it makes of it. The fields are those of [`WindowArgs`].
#[derive(Clone, Copy, Debug)]
pub struct AccumulatedArgs<'a> {
    /// As [`WindowArgs::queries`].
    pub queries: &'a [f32],
    /// As [`WindowArgs::keys`].
    pub keys: &'a [f32],
    /// As [`WindowArgs::rows`].
    pub rows: usize,
    /// As [`WindowArgs::tokens`].
    pub tokens: usize,
    /// As [`WindowArgs::group`].
    pub group: usize,
    /// As [`WindowArgs::head_dim`].
    pub head_dim: usize,
    /// As [`WindowArgs::scale`].
    pub scale: f32,
    /// As [`WindowArgs::softcap`].
    pub softcap: Option<f32>,
    /// As [`WindowArgs::reduction`].
    pub reduction: Reduction,
}

/// Attention of the last `w` prompt queries to the tokens before them: `[H, n]`. The window's own tokens take their share of each
/// softmax, are left out of the pool, and score positive infinity. What is computed is defined by
/// [`oracle::observe_window`](crate::oracle::observe_window), which also says how close the result is; [the module](self) says what
/// the bits depend on.
///
/// A number that is not finite among the queries or keys of a head makes that head's row unspecified and touches no other head.
///
/// ```
/// use attention_kernels::{WindowArgs, observe_window};
/// use kv_core::Reduction;
///
/// // One head of three tokens. The last query weighs them 3 : 1 : 4.
/// let args = WindowArgs {
///     queries: &[0.0, 0.0, 1.0],
///     keys: &[3.0_f32.ln(), 0.0, 4.0_f32.ln()],
///     rows: 3,
///     tokens: 3,
///     group: 1,
///     head_dim: 1,
///     scale: 1.0,
///     softcap: None,
///     window: 1,
///     reduction: Reduction::MEAN,
/// };
/// let seen = observe_window(&args)?;
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
pub fn observe_window(args: &WindowArgs<'_>) -> Result<Vec<f32>, KernelError> {
    let prompt = Prompt::from(args);
    let heads = prompt.check()?;
    check_pool(args.reduction.pool)?;
    let window = args.window;
    if window == 0 {
        return Err(KernelError::WindowOutOfRange { window });
    }
    let before = args.tokens - window.min(args.tokens);
    let queries = Queries {
        range: before..args.tokens,
        before,
    };
    let columns = columns(&prompt, heads, &queries, args.reduction.queries);
    let mut out = vec![f32::INFINITY; heads * args.tokens];
    reduce_heads(&columns, before, &prompt, args.reduction, &mut out);
    Ok(out)
}

/// Attention accumulated over all prompt queries: `[H, n]`. What is computed is defined by
/// [`oracle::observe_accumulated`](crate::oracle::observe_accumulated), which also says how close the result is; [the module](self)
/// says what the bits depend on. Takes about `H * G * n * n * D / 2` multiply-adds and no memory beyond a few rows of `n`
/// per query head.
///
/// A number that is not finite among the queries or keys of a head makes that head's row unspecified and touches no other head.
///
/// # Errors
///
/// Those of [`observe_window`], the window's apart.
pub fn observe_accumulated(args: &AccumulatedArgs<'_>) -> Result<Vec<f32>, KernelError> {
    let prompt = Prompt::from(args);
    let heads = prompt.check()?;
    check_pool(args.reduction.pool)?;
    let queries = Queries {
        range: 0..args.tokens,
        before: args.tokens,
    };
    let columns = columns(&prompt, heads, &queries, args.reduction.queries);
    let mut out = vec![0.0; heads * args.tokens];
    reduce_heads(&columns, args.tokens, &prompt, args.reduction, &mut out);
    Ok(out)
}
