//! The queries and keys of a prompt, in rows that may be padded.

use std::ops::Range;

use super::{AccumulatedArgs, WindowArgs};
use crate::KernelError;
use crate::scoring::Scoring;

/// What both ops over a prompt share. The fields are those of [`WindowArgs`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prompt<'a> {
    queries: &'a [f32],
    keys: &'a [f32],
    rows: usize,
    pub(crate) tokens: usize,
    pub(crate) group: usize,
    pub(crate) head_dim: usize,
    pub(crate) scoring: Scoring,
}

impl<'a> From<&WindowArgs<'a>> for Prompt<'a> {
    fn from(args: &WindowArgs<'a>) -> Self {
        Self {
            queries: args.queries,
            keys: args.keys,
            rows: args.rows,
            tokens: args.tokens,
            group: args.group,
            head_dim: args.head_dim,
            scoring: Scoring {
                scale: args.scale,
                softcap: args.softcap,
            },
        }
    }
}

impl<'a> From<&AccumulatedArgs<'a>> for Prompt<'a> {
    fn from(args: &AccumulatedArgs<'a>) -> Self {
        Self {
            queries: args.queries,
            keys: args.keys,
            rows: args.rows,
            tokens: args.tokens,
            group: args.group,
            head_dim: args.head_dim,
            scoring: Scoring {
                scale: args.scale,
                softcap: args.softcap,
            },
        }
    }
}

impl<'a> Prompt<'a> {
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
        self.scoring.check()?;
        Ok(heads)
    }

    /// Rows `tokens` of query head `query_head`.
    pub(crate) fn queries(&self, query_head: usize, tokens: Range<usize>) -> &'a [f32] {
        self.cut(self.queries, query_head, tokens)
    }

    /// Rows `tokens` of the keys that query head `query_head` looks at.
    pub(crate) fn keys(&self, query_head: usize, tokens: Range<usize>) -> &'a [f32] {
        self.cut(self.keys, query_head / self.group, tokens)
    }

    fn cut(&self, rows: &'a [f32], head: usize, tokens: Range<usize>) -> &'a [f32] {
        let first = head * self.rows;
        &rows[(first + tokens.start) * self.head_dim..(first + tokens.end) * self.head_dim]
    }
}

/// How many heads of `rows` rows there are, `tokens` of which are in use.
pub(super) fn check_heads(
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
