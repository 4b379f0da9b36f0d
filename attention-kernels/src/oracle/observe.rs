//! What the ops of [`observe`](crate::observe) compute.

use kv_core::{Pool, Reduce, Reduction, ReductionOrder};

use super::{scores, softmax};
use crate::PromptArgs;

/// Attention of the last `window` prompt queries to the tokens before them, `[H, n]`, in `f64`.
///
/// With `w = min(window, n)`, `p = n - w`, and the scores `s_gij` of query `i` of query head `g` and token `j` as in [`scores`]:
///
/// ```text
/// a_gij = exp(s_gij) / sum_(t <= i) exp(s_git)                       for j <= i
/// r_gj  = mean, sum or maximum of a_gij over the queries i in p..n    for j < p
/// ```
///
/// The rows `r_g` of a group then become one, token by token, as their mean, sum or maximum. Pooling replaces each number of a row
/// of `p` by what is made of it and its `k/2` neighbours on either side: by the largest of those there are, or by the sum of those there
/// are divided by `k`. It comes after the group, or before it where the order says so. The numbers from `p` on are positive infinity.
///
/// # How close an implementation must be
///
/// For every number,
///
/// ```text
/// |got - want| <= 1e-5 * want + 1e-30
/// ```
///
/// while no `|scale| * sum_d |q_d * k_d|` is above 16. All terms are positive, so nothing cancels behind the softmax: an error of a
/// score, which grows with the terms of its dot product, is the relative error of its weight. Beyond 16 the first term of the bound grows
/// in proportion. The second term is for weights that are so far below the highest (`e^-87`) that `f32` may take them for 0.
///
/// # Panics
///
/// Where the op refuses the arguments' shapes.
#[must_use]
pub fn observe_window(args: &PromptArgs<'_>, window: usize, reduction: Reduction) -> Vec<f64> {
    let before = args.tokens - window.min(args.tokens);
    reduced(args, before, reduction, |token| before.max(token))
}

/// Attention accumulated over all prompt queries, `[H, n]`, in `f64`.
///
/// With the weights `a_gij` of [`observe_window`],
///
/// ```text
/// r_gj = mean, sum or maximum of a_gij over the queries i in j..n
/// ```
///
/// so that a mean is a sum divided by `n - j`. Group and pool follow as in [`observe_window`], the pool over all `n` tokens. The same
/// bound holds.
///
/// # Panics
///
/// Where the op refuses the arguments' shapes.
#[must_use]
pub fn observe_accumulated(args: &PromptArgs<'_>, reduction: Reduction) -> Vec<f64> {
    reduced(args, args.tokens, reduction, |token| token)
}

/// The attention row of one decode step for one KV head, `[T]`, in `f64`: the weights `exp(s_gt) / sum_t exp(s_gt)` of the scores of each
/// query of `queries` (`[G, D]`), reduced over the group. [`observe_window`]'s bound holds.
///
/// # Panics
///
/// Where `head_dim` is 0.
#[must_use]
pub fn attention_row(
    keys: &[f32],
    queries: &[f32],
    head_dim: usize,
    scale: f32,
    softcap: Option<f32>,
    reduce: Reduce,
) -> Vec<f64> {
    let queries = queries.chunks_exact(head_dim);
    let rows = queries.map(|query| softmax(&scores(keys, query, scale, softcap)));
    over_rows(reduce, &rows.collect::<Vec<_>>())
}

/// The Euclidean norm of a key, negated, in `f64`. An implementation is within `1e-6 * |want|`, while the norm is 0 or between `1e-15`
/// and `1e15`.
#[must_use]
pub fn key_norm(key: &[f32]) -> f64 {
    -key.iter()
        .map(|&k| f64::from(k).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// `first_query` says which query is the first to count for a token.
fn reduced(
    args: &PromptArgs<'_>,
    before: usize,
    reduction: Reduction,
    first_query: impl Fn(usize) -> usize,
) -> Vec<f64> {
    let n = args.tokens;
    let heads = args.keys.len() / (args.rows * args.head_dim).max(1);
    let row_of_query_head = |query_head| {
        let attention: Vec<_> = (0..n)
            .map(|query| weights(args, query_head, query))
            .collect();
        let of_token = |token| {
            let seen = attention[first_query(token)..].iter().map(|row| row[token]);
            over(reduction.queries, seen)
        };
        (0..before).map(of_token).collect::<Vec<f64>>()
    };
    let row_of_head = |head| {
        let group = head * args.group..(head + 1) * args.group;
        let rows: Vec<_> = group.map(row_of_query_head).collect();
        let mut row = match reduction.order {
            ReductionOrder::GroupThenPool => {
                pooled(reduction.pool, &over_rows(reduction.group, &rows))
            }
            ReductionOrder::PoolThenGroup => {
                let rows: Vec<_> = rows.iter().map(|row| pooled(reduction.pool, row)).collect();
                over_rows(reduction.group, &rows)
            }
        };
        row.resize(n, f64::INFINITY);
        row
    };
    (0..heads).flat_map(row_of_head).collect()
}

/// `a_gi`: the weights of the tokens that a query can see.
fn weights(args: &PromptArgs<'_>, query_head: usize, query: usize) -> Vec<f64> {
    let PromptArgs { rows, head_dim, .. } = *args;
    let keys = query_head / args.group * rows * head_dim;
    let keys = &args.keys[keys..keys + (query + 1) * head_dim];
    let query = (query_head * rows + query) * head_dim;
    let query = &args.queries[query..query + head_dim];
    softmax(&scores(keys, query, args.scale, args.softcap))
}

fn over(reduce: Reduce, numbers: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = numbers.len() as f64;
    match reduce {
        Reduce::Mean => numbers.sum::<f64>() / count,
        Reduce::Sum => numbers.sum(),
        Reduce::Max => numbers.fold(f64::NEG_INFINITY, f64::max),
    }
}

/// Several rows to one, token by token.
fn over_rows(reduce: Reduce, rows: &[Vec<f64>]) -> Vec<f64> {
    let tokens = rows.first().map_or(0, Vec::len);
    let of_token = |token| over(reduce, rows.iter().map(|row| row[token]));
    (0..tokens).map(of_token).collect()
}

fn pooled(pool: Pool, row: &[f64]) -> Vec<f64> {
    let neighbours = |token: usize, width: usize| {
        let near = (0..row.len()).filter(move |other| other.abs_diff(token) <= width / 2);
        near.map(|other| row[other])
    };
    let of_token = |token| match pool {
        Pool::None => row[token],
        Pool::Average(width) => neighbours(token, width).sum::<f64>() / width as f64,
        Pool::Max(width) => neighbours(token, width).fold(f64::NEG_INFINITY, f64::max),
    };
    (0..row.len()).map(of_token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Queries that cannot tell tokens apart: rows 1, 1/2, 1/3, 1/4.
    const EVEN: PromptArgs<'static> = PromptArgs {
        queries: &[0.0; 4],
        keys: &[0.0; 4],
        rows: 4,
        tokens: 4,
        group: 1,
        head_dim: 1,
        scale: 1.0,
        softcap: None,
    };

    #[test]
    fn a_window_by_hand() {
        let (third, quarter) = (1.0 / 3.0, 0.25);
        let mean = (third + quarter) / 2.0;
        let infinite = f64::INFINITY;
        let got = observe_window(&EVEN, 2, Reduction::MEAN);
        assert_eq!(got, [mean, mean, infinite, infinite]);
        let pooled = Reduction {
            pool: Pool::Average(3),
            ..Reduction::MEAN
        };
        let halved = (mean + mean) / 3.0;
        let got = observe_window(&EVEN, 2, pooled);
        assert_eq!(got, [halved, halved, infinite, infinite]);
    }

    #[test]
    fn accumulated_by_hand() {
        let args = PromptArgs { tokens: 3, ..EVEN };
        let (third, sixth) = (1.0 / 3.0, 5.0 / 6.0);
        for (queries, want) in [
            (Reduce::Mean, [11.0 / 18.0, sixth / 2.0, third]),
            (Reduce::Sum, [11.0 / 6.0, sixth, third]),
            (Reduce::Max, [1.0, 0.5, third]),
        ] {
            let reduction = Reduction {
                queries,
                ..Reduction::MEAN
            };
            let got = observe_accumulated(&args, reduction);
            let off = got.iter().zip(want).map(|(got, want)| (got - want).abs());
            assert!(off.fold(0.0, f64::max) < 1e-15, "{got:?} {want:?}");
        }
    }

    #[test]
    fn a_row_by_hand() {
        let queries = [0.0, 3.0_f32.ln()];
        let row = |reduce| attention_row(&[0.0, 1.0], &queries, 1, 1.0, None, reduce);
        for (reduce, want) in [
            (Reduce::Mean, [0.375, 0.625]),
            (Reduce::Sum, [0.75, 1.25]),
            (Reduce::Max, [0.5, 0.75]),
        ] {
            let got = row(reduce);
            assert!((got[0] - want[0]).abs() < 1e-7 && (got[1] - want[1]).abs() < 1e-7);
        }
    }

    #[test]
    fn a_norm_by_hand() {
        assert_eq!(key_norm(&[3.0, 0.0, -4.0]), -5.0);
    }
}
