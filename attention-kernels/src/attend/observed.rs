//! Decode attention that also says where it looked.

use kv_core::Reduce;

use super::chunk::{Total, add_scaled, weigh};
use super::{AttendArgs, CHUNK_TOKENS, Extra, Workspace, check, run};
use crate::simd::{Op, Simd, dispatch};
use crate::{KernelError, PageStore};

/// What [`attend_observed`] returns.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// As from [`attend`](super::attend()), to the last bit.
    pub out: Vec<f32>,
    /// The attention row of every head, one after the other in the order of [`AttendArgs::heads`]: `T` numbers each, in slot order.
    pub rows: Vec<f32>,
}

/// As [`attend`](super::attend()), and beside it the attention row of this step: the softmax weight of every token, reduced over the
/// `G` query heads of its KV head. What is computed is defined by [`oracle::attention_row`](crate::oracle::attention_row), which
/// also says how close the result is; a row's bits depend on what the head's result depends on, and on `group_reduce`.
///
/// ```
/// use attention_kernels::{
///     AttendArgs, HeadSlots, KvDtype, PageLayout, PageStore, RowWrite, WriteArgs, attend_observed, write,
/// };
/// use kv_core::Reduce;
///
/// let mut store = PageStore::new(PageLayout::new(16, 1)?, KvDtype::F32, 1)?;
/// let rows = [0, 1].map(|token| RowWrite { source: token, page: 0, offset: token as u32 });
/// write(&mut store, &WriteArgs { keys: &[0.0, 1.0], values: &[4.0, 8.0], rows: &rows })?;
///
/// // The first query weighs the two tokens 1 : 1, the second 1 : 3.
/// let args = AttendArgs {
///     queries: &[0.0, 3.0_f32.ln()],
///     heads: &[HeadSlots { pages: &[0], len: 2 }],
///     group: 2,
///     scale: 1.0,
///     softcap: None,
/// };
/// let seen = attend_observed(&store, &args, Reduce::Mean)?;
/// assert!((seen.rows[0] - 0.375).abs() < 1e-6 && (seen.rows[1] - 0.625).abs() < 1e-6);
/// # Ok::<(), attention_kernels::KernelError>(())
/// ```
///
/// # Errors
///
/// As [`attend`](super::attend()).
pub fn attend_observed(
    store: &PageStore,
    args: &AttendArgs<'_>,
    group_reduce: Reduce,
) -> Result<Observed, KernelError> {
    let mut out = vec![0.0; args.queries.len()];
    check(store, args, &out)?;
    let mut rows = vec![0.0; row_elements(args)];
    let workspace = &mut Workspace::default();
    attend_observed_into(store, args, group_reduce, workspace, &mut out, &mut rows)?;
    Ok(Observed { out, rows })
}

/// As [`attend_observed`], into a buffer of as many elements as there are in the queries and one of as many as the heads hold tokens.
///
/// # Errors
///
/// As [`attend_into`](super::attend_into), and [`KernelError::RowsLength`]. `out` and `rows` are unchanged then.
pub fn attend_observed_into(
    store: &PageStore,
    args: &AttendArgs<'_>,
    group_reduce: Reduce,
    workspace: &mut Workspace,
    out: &mut [f32],
    rows: &mut [f32],
) -> Result<(), KernelError> {
    check(store, args, out)?;
    let expected = row_elements(args);
    if rows.len() != expected {
        return Err(KernelError::RowsLength {
            elements: rows.len(),
            expected,
        });
    }
    let wanted = Wanted {
        reduce: group_reduce,
        rows,
    };
    run(store, args, workspace, out, Extra::Rows(wanted));
    Ok(())
}

fn row_elements(args: &AttendArgs<'_>) -> usize {
    args.heads.iter().map(|head| head.len).sum()
}

/// The attention rows that a call was asked for.
pub(super) struct Wanted<'a> {
    reduce: Reduce,
    /// The heads' rows, one after the other.
    rows: &'a mut [f32],
}

/// Brings the weights that the chunks kept to rows. `weights` is `[chunks, G, CHUNK_TOKENS]` and `totals` `[chunks, G]`, both in the
/// order of the heads.
pub(super) fn merge_rows(
    args: &AttendArgs<'_>,
    mut weights: &[f32],
    mut totals: &[Total],
    wanted: Wanted<'_>,
) {
    let group = args.group;
    let Wanted { reduce, mut rows } = wanted;
    for head in args.heads {
        let chunks = head.len.div_ceil(CHUNK_TOKENS) * group;
        let (head_weights, head_totals, row);
        (head_weights, weights) = weights.split_at(chunks * CHUNK_TOKENS);
        (head_totals, totals) = totals.split_at(chunks);
        (row, rows) = rows.split_at_mut(head.len);
        dispatch(MergeRow {
            weights: head_weights,
            totals: head_totals,
            group,
            reduce,
            row,
        });
    }
}

/// Brings the weights of one head to its row.
struct MergeRow<'a> {
    weights: &'a [f32],
    totals: &'a [Total],
    group: usize,
    reduce: Reduce,
    row: &'a mut [f32],
}

impl Op for MergeRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            weights,
            totals,
            group,
            reduce,
            row,
        } = self;
        row.fill(0.0);
        for query in 0..group {
            let totals = totals.iter().skip(query).step_by(group);
            let all = weigh(simd, totals.clone());
            let weights = weights.chunks_exact(CHUNK_TOKENS).skip(query);
            let chunks = row.chunks_mut(CHUNK_TOKENS).zip(totals);
            for ((row, total), weights) in chunks.zip(weights.step_by(group)) {
                let share = total.rescale(simd, all.highest) / all.weight;
                let weights = &weights[..row.len()];
                match reduce {
                    Reduce::Mean | Reduce::Sum => add_scaled(simd, weights, share, row),
                    Reduce::Max => raise(row, weights, share),
                }
            }
        }
        if reduce == Reduce::Mean {
            for weight in row {
                *weight /= group as f32;
            }
        }
    }
}

#[inline(always)]
fn raise(row: &mut [f32], weights: &[f32], share: f32) {
    for (highest, weight) in row.iter_mut().zip(weights) {
        *highest = highest.max(weight * share);
    }
}
