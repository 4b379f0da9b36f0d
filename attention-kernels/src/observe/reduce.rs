//! From columns of every query head to one row per KV head.

use kv_core::{Pool, Reduce, Reduction, ReductionOrder};

use crate::prompt::fold;
use crate::{KernelError, PromptArgs};

pub(crate) fn check_pool(pool: Pool) -> Result<(), KernelError> {
    match pool {
        Pool::Average(width) | Pool::Max(width) if width % 2 == 0 => {
            Err(KernelError::PoolWidthOutOfRange { width })
        }
        _ => Ok(()),
    }
}

/// Reduces the group and pools, and rounds the result into the first `before` of every `n` numbers of `out` (`[H, n]`). `columns` is
/// `[H * G, before]`.
pub(super) fn reduce_heads(
    columns: &[f64],
    before: usize,
    prompt: &PromptArgs<'_>,
    reduction: Reduction,
    out: &mut [f32],
) {
    if columns.is_empty() {
        return;
    }
    let heads = columns.chunks_exact(prompt.group * before);
    for (columns, out) in heads.zip(out.chunks_exact_mut(prompt.tokens)) {
        let row = reduce_head(columns, before, reduction);
        for (out, number) in out.iter_mut().zip(row) {
            *out = round(number);
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is what it is for"
)]
fn round(number: f64) -> f32 {
    number as f32
}

fn reduce_head(columns: &[f64], before: usize, reduction: Reduction) -> Vec<f64> {
    let heads = columns.chunks_exact(before);
    match reduction.order {
        ReductionOrder::GroupThenPool => {
            let group = reduce_group(reduction.group, heads.map(<[f64]>::to_vec), before);
            pool(reduction.pool, group)
        }
        ReductionOrder::PoolThenGroup => {
            let pooled = heads.map(|head| pool(reduction.pool, head.to_vec()));
            reduce_group(reduction.group, pooled, before)
        }
    }
}

fn reduce_group(
    reduce: Reduce,
    heads: impl ExactSizeIterator<Item = Vec<f64>>,
    before: usize,
) -> Vec<f64> {
    let group = heads.len() as f64;
    let mut row = vec![0.0; before];
    for head in heads {
        fold(reduce, &mut row, head.into_iter());
    }
    if reduce == Reduce::Mean {
        row.iter_mut().for_each(|number| *number /= group);
    }
    row
}

/// Padding counts as 0 in a mean, whose divisor is always the width, and not at all in a maximum.
fn pool(pool: Pool, row: Vec<f64>) -> Vec<f64> {
    match pool {
        Pool::None => row,
        Pool::Average(width) => over_neighbours(&row, width, |neighbours| {
            neighbours.iter().sum::<f64>() / width as f64
        }),
        Pool::Max(width) => over_neighbours(&row, width, |neighbours| {
            neighbours.iter().copied().fold(f64::NEG_INFINITY, f64::max)
        }),
    }
}

fn over_neighbours(row: &[f64], width: usize, pooled: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let reach = width / 2;
    let at = |middle: usize| {
        let end = row.len().min(middle.saturating_add(reach + 1));
        pooled(&row[middle.saturating_sub(reach)..end])
    };
    (0..row.len()).map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: [f64; 4] = [1.0, 2.0, 8.0, 4.0];

    #[test]
    fn pools_by_hand() {
        let cases = [
            (Pool::None, ROW),
            (Pool::Average(1), ROW),
            (Pool::Max(1), ROW),
            (Pool::Average(3), [1.0, 11.0 / 3.0, 14.0 / 3.0, 4.0]),
            (Pool::Max(3), [2.0, 8.0, 8.0, 8.0]),
            (Pool::Average(9), [15.0 / 9.0; 4]),
            (Pool::Max(usize::MAX), [8.0; 4]),
        ];
        for (wanted, want) in cases {
            assert_eq!(pool(wanted, ROW.to_vec()), want, "{wanted:?}");
        }
    }

    /// A mean of maxima is not the maximum of the mean.
    #[test]
    fn the_order_shows() {
        let columns = [0.0, 4.0, 0.0, 2.0, 0.0, 0.0];
        let reduction = |order| Reduction {
            pool: Pool::Max(3),
            order,
            ..Reduction::MEAN
        };
        let group_first = reduction(ReductionOrder::GroupThenPool);
        assert_eq!(reduce_head(&columns, 3, group_first), [2.0, 2.0, 2.0]);
        let pool_first = reduction(ReductionOrder::PoolThenGroup);
        assert_eq!(reduce_head(&columns, 3, pool_first), [3.0, 3.0, 2.0]);
    }
}
