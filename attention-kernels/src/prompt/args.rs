//! The queries and keys of a prompt, in rows that may be padded.

use std::ops::Range;

use crate::KernelError;
use crate::scoring::Scoring;

/// The queries and keys of one sequence's prompt, for every op that observes a prompt.
#[derive(Clone, Copy, Debug)]
pub struct PromptArgs<'a> {
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
}

impl<'a> PromptArgs<'a> {
    /// Checks everything, and says how many KV heads there are.
    pub(crate) fn check(&self) -> Result<usize, KernelError> {
        let &Self {
            rows,
            group,
            head_dim,
            ..
        } = self;
        let heads = check_heads(self.keys, rows, self.tokens, head_dim)?;
        if group == 0 {
            return Err(KernelError::GroupOutOfRange { group });
        }
        // Saturating: a product that does not fit is the length of no slice.
        let expected = self.keys.len().saturating_mul(group);
        if self.queries.len() != expected {
            return Err(KernelError::PromptQueriesLength {
                elements: self.queries.len(),
                expected,
                heads,
                group,
                rows,
                head_dim,
            });
        }
        self.scoring().check()?;
        Ok(heads)
    }

    pub(crate) fn scoring(&self) -> Scoring {
        Scoring {
            scale: self.scale,
            softcap: self.softcap,
        }
    }

    /// Rows `tokens` of query head `query_head`.
    pub(crate) fn queries_of(&self, query_head: usize, tokens: Range<usize>) -> &'a [f32] {
        self.cut(self.queries, query_head, tokens)
    }

    /// Rows `tokens` of the keys that query head `query_head` looks at.
    pub(crate) fn keys_of(&self, query_head: usize, tokens: Range<usize>) -> &'a [f32] {
        self.cut(self.keys, query_head / self.group, tokens)
    }

    fn cut(&self, rows: &'a [f32], head: usize, tokens: Range<usize>) -> &'a [f32] {
        let first = head * self.rows;
        &rows[(first + tokens.start) * self.head_dim..(first + tokens.end) * self.head_dim]
    }
}

/// How many heads of `rows` rows there are, `tokens` of which are in use.
pub(crate) fn check_heads(
    keys: &[f32],
    rows: usize,
    tokens: usize,
    head_dim: usize,
) -> Result<usize, KernelError> {
    if head_dim == 0 {
        return Err(KernelError::HeadDimOutOfRange { head_dim });
    }
    // Saturating: a product that does not fit divides no slice.
    let per_head = rows.saturating_mul(head_dim);
    if !keys.len().is_multiple_of(per_head) {
        return Err(KernelError::HeadsNotWhole {
            elements: keys.len(),
            rows,
            head_dim,
        });
    }
    if tokens > rows {
        return Err(KernelError::TokensOutOfRange { tokens, rows });
    }
    // Heads of no rows are no heads.
    Ok(keys.len().checked_div(per_head).unwrap_or(0))
}
