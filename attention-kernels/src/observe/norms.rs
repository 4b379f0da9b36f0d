//! The lengths of keys.

use crate::prompt::check_heads;
use crate::simd::{Op, Scores, Simd, dispatch, score_rows};
use crate::{KernelError, PromptArgs};

/// What [`key_norms`] reads.
#[derive(Clone, Copy, Debug)]
pub struct KeyNormsArgs<'a> {
    /// `[H, rows, D]`, row-major. Its length gives `H`.
    pub keys: &'a [f32],
    /// Rows per head, at least `tokens`.
    pub rows: usize,
    /// `n`, tokens of the prompt. Rows from `tokens` on are never read, whatever they hold.
    pub tokens: usize,
    /// `D`, elements per row.
    pub head_dim: usize,
}

impl<'a> From<&PromptArgs<'a>> for KeyNormsArgs<'a> {
    fn from(args: &PromptArgs<'a>) -> Self {
        Self {
            keys: args.keys,
            rows: args.rows,
            tokens: args.tokens,
            head_dim: args.head_dim,
        }
    }
}

/// The Euclidean norms of keys, negated, so that a long key scores low: `[H, n]`. What is computed is defined by
/// [`oracle::key_norm`](crate::oracle::key_norm), which also says how close the result is. The bits of a number depend on its key alone.
///
/// ```
/// use attention_kernels::{KeyNormsArgs, key_norms};
///
/// // Two tokens and a row of padding.
/// let keys = [3.0, 4.0, 0.0, 2.0, 9.0, 9.0];
/// let args = KeyNormsArgs { keys: &keys, rows: 3, tokens: 2, head_dim: 2 };
/// assert_eq!(key_norms(&args)?, [-5.0, -2.0]);
/// # Ok::<(), attention_kernels::KernelError>(())
/// ```
///
/// # Errors
///
/// [`KernelError::HeadDimOutOfRange`], [`KernelError::HeadsNotWhole`], [`KernelError::TokensOutOfRange`].
pub fn key_norms(args: &KeyNormsArgs<'_>) -> Result<Vec<f32>, KernelError> {
    let &KeyNormsArgs {
        keys,
        rows,
        tokens,
        head_dim,
    } = args;
    let heads = check_heads(keys, rows, tokens, head_dim)?;
    let keys = (0..heads).flat_map(|head| {
        let keys = keys[head * rows * head_dim..].chunks_exact(head_dim);
        keys.take(tokens)
    });
    let norms = keys.map(|key| -dispatch(Square(key)).sqrt());
    Ok(norms.collect())
}

/// The dot product of a key with itself.
struct Square<'a>(&'a [f32]);

impl Op for Square<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let mut square = [0.0];
        let mut into = Scores {
            scores: &mut square,
            stride: 1,
            at: 0,
        };
        score_rows(simd, self.0.into(), self.0, self.0.len(), &mut into);
        square[0]
    }
}
