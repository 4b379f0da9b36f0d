//! Rows into slots, between slots, and keys to other positions.

use std::collections::HashSet;

use super::entries::{APPEND_THREADS, PINNED, ROW_THREADS, WARP, narrow};
use super::step::bytes;
use super::store::{memory, number};
use super::{Arg, CudaError, Device, Launch, PageStore, Step, View};
use crate::{CopyRow, KernelError, RopeStyle, ShiftArgs};

/// One token to write: key and value row `source` go to `offset` of `page`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotWrite {
    /// Row of the keys and values.
    pub source: usize,
    /// Page to write into.
    pub page: u32,
    /// Place in the page, below `B`.
    pub offset: u32,
    /// Where the token stands in the text; below 2^31.
    pub position: u32,
    /// Whether it may never be overwritten.
    pub is_pinned: bool,
}

/// Rows of new keys and values, of the store's element type: row-major, `D` each.
#[derive(Debug)]
pub struct NewRows<'a, B> {
    /// Keys after `RoPE`.
    pub keys: View<'a, B>,
    /// Values.
    pub values: View<'a, B>,
    /// Rows of each.
    pub rows: usize,
}

/// Writes rows of keys and values into slots, no two into the same. Where the store keeps them, a slot's position is noted, and its
/// score: `scores[source]`, or 0 where nothing was observed.
///
/// # Errors
///
/// [`KernelError::RowOutOfRange`], [`KernelError::PageOutOfRange`], [`KernelError::OffsetOutOfRange`],
/// [`CudaError::BufferTooSmall`], [`CudaError::TooMany`], [`CudaError::Device`].
pub fn write<D: Device>(
    store: &mut PageStore<D>,
    new: &NewRows<'_, D::Buffer>,
    scores: Option<View<'_, D::Buffer>>,
    rows: &[SlotWrite],
) -> Result<(), CudaError> {
    let [keys, values] = new_args(store, new)?;
    let observed = match scores {
        Some(view) => memory(store.device(), view, new.rows, 4, "scores")?,
        None => Arg::Null,
    };
    let mut words = Vec::with_capacity(4 * rows.len());
    for (index, row) in rows.iter().enumerate() {
        if row.source >= new.rows {
            return Err(CudaError::Kernel(KernelError::RowOutOfRange {
                index,
                row: row.source,
                rows: new.rows,
            }));
        }
        store.check_slot(index, row.page, row.offset)?;
        let pinned = if row.is_pinned { PINNED } else { 0 };
        let source = number("rows", row.source)?;
        words.extend([source, row.page, row.offset, row.position | pinned]);
    }
    if rows.is_empty() {
        return Ok(());
    }
    let list = store.device().upload(&bytes(&words))?;
    let [keys_of_pages, values_of_pages, positions, scores_of_slots] = store.memory_args();
    let [head_dim, block] = store.shape_args();
    let args = [
        keys_of_pages,
        values_of_pages,
        positions,
        scores_of_slots,
        keys,
        values,
        observed,
        Arg::Memory(&list, 0),
        Arg::U32(narrow(rows.len())),
        head_dim,
        block,
    ];
    launch_rows(store, "kv_write", rows.len(), &args)
}

/// Writes the new token of every head of a layer of a step, `[S, H, T, D]` rows of which the token `token` of `tokens` is meant.
///
/// # Errors
///
/// [`CudaError::BufferTooSmall`], [`CudaError::TooMany`], [`CudaError::Device`].
///
/// # Panics
///
/// If the step has no such layer, or the rows no such token.
pub fn append<D: Device>(
    store: &mut PageStore<D>,
    step: &Step<D>,
    layer: usize,
    new: &NewRows<'_, D::Buffer>,
    (token, tokens): (usize, usize),
) -> Result<(), CudaError> {
    let heads = step.heads();
    assert!(
        token < tokens && new.rows == heads * tokens,
        "token {token} of {} rows for {heads} heads of {tokens} tokens",
        new.rows
    );
    if heads == 0 {
        return Ok(());
    }
    let [keys, values] = new_args(store, new)?;
    let [keys_of_pages, values_of_pages, positions, scores_of_slots] = store.memory_args();
    let [head_dim, block] = store.shape_args();
    let args = [
        keys_of_pages,
        values_of_pages,
        positions,
        scores_of_slots,
        keys,
        values,
        step.heads_arg(layer),
        step.pages_arg(),
        step.positions_arg(),
        Arg::U32(narrow(heads / step.sequences())),
        Arg::U32(number("tokens", tokens)?),
        Arg::U32(narrow(token)),
        head_dim,
        block,
    ];
    let launch = Launch {
        entry: &store.entry("kv_append"),
        grid: [number("heads of a step", heads)?, 1],
        threads: APPEND_THREADS,
        args: &args,
    };
    Ok(store.device().launch(&launch)?)
}

/// Copies rows between slots of one store, bit for bit and **in order**: an entry reads what the entries before it wrote. Positions and
/// scores move along. One launch serves a run of entries none of which reads or overwrites what another of the run writes.
///
/// # Errors
///
/// [`KernelError::PageOutOfRange`], [`KernelError::OffsetOutOfRange`], [`CudaError::Device`].
pub fn copy_rows<D: Device>(store: &mut PageStore<D>, rows: &[CopyRow]) -> Result<(), CudaError> {
    for (index, row) in rows.iter().enumerate() {
        store.check_slot(index, row.from_page, row.from_offset)?;
        store.check_slot(index, row.to_page, row.to_offset)?;
    }
    for run in independent_runs(rows) {
        let words: Vec<u32> = run
            .iter()
            .flat_map(|row| [row.from_page, row.from_offset, row.to_page, row.to_offset])
            .collect();
        let list = store.device().upload(&bytes(&words))?;
        let [keys_of_pages, values_of_pages, positions, scores_of_slots] = store.memory_args();
        let [head_dim, block] = store.shape_args();
        let args = [
            keys_of_pages,
            values_of_pages,
            positions,
            scores_of_slots,
            Arg::Memory(&list, 0),
            Arg::U32(number("rows", run.len())?),
            head_dim,
            block,
        ];
        launch_rows(store, "kv_copy", run.len(), &args)?;
    }
    Ok(())
}

/// Cuts a list where an entry touches a slot that an earlier entry of the run writes, or writes one that it reads.
fn independent_runs(rows: &[CopyRow]) -> Vec<&[CopyRow]> {
    let (mut runs, mut start) = (Vec::new(), 0);
    let (mut read, mut written) = (HashSet::new(), HashSet::new());
    for (index, row) in rows.iter().enumerate() {
        let from = (row.from_page, row.from_offset);
        let to = (row.to_page, row.to_offset);
        if written.contains(&from) || written.contains(&to) || read.contains(&to) || from == to {
            runs.push(&rows[start..index]);
            start = index;
            read.clear();
            written.clear();
        }
        read.insert(from);
        written.insert(to);
    }
    runs.push(&rows[start..]);
    runs.retain(|run| run.iter().any(|row| !stays(row)));
    runs
}

/// Whether a row is copied onto itself.
fn stays(row: &CopyRow) -> bool {
    (row.from_page, row.from_offset) == (row.to_page, row.to_offset)
}

/// Rotates keys to other positions, as [`crate::shift()`] does on a CPU; the noted positions stay.
///
/// # Errors
///
/// Those of [`crate::shift()`], [`CudaError::TooMany`] and [`CudaError::Device`].
pub fn shift<D: Device>(store: &mut PageStore<D>, args: &ShiftArgs<'_>) -> Result<(), CudaError> {
    args.check(store.layout(), store.pages())?;
    if args.rows.is_empty() {
        return Ok(());
    }
    let words: Vec<u32> = args
        .rows
        .iter()
        .flat_map(|row| [row.page, row.offset, row.by.cast_unsigned()])
        .collect();
    let device = store.device();
    let list = device.upload(&bytes(&words))?;
    let upload = |table: &[f32]| {
        let bits: Vec<u32> = table.iter().map(|number| number.to_bits()).collect();
        device.upload(&bytes(&bits))
    };
    let (cosines, sines) = (upload(args.cos)?, upload(args.sin)?);
    let [head_dim, block] = store.shape_args();
    let arguments = [
        store.keys_arg(),
        Arg::Memory(&list, 0),
        Arg::Memory(&cosines, 0),
        Arg::Memory(&sines, 0),
        Arg::U32(number("rows", args.rows.len())?),
        Arg::U32(narrow(args.rotary_dim)),
        Arg::U32(u32::from(args.style == RopeStyle::Interleaved)),
        head_dim,
        block,
    ];
    launch_rows(store, "kv_shift", args.rows.len(), &arguments)
}

fn new_args<'a, D: Device>(
    store: &PageStore<D>,
    new: &NewRows<'a, D::Buffer>,
) -> Result<[Arg<'a, D::Buffer>; 2], CudaError> {
    let bytes = store.dtype().size_in_bytes();
    let elements = new.rows.saturating_mul(store.layout().head_dim());
    Ok([
        memory(store.device(), new.keys, elements, bytes, "keys")?,
        memory(store.device(), new.values, elements, bytes, "values")?,
    ])
}

/// A warp for each row.
fn launch_rows<D: Device>(
    store: &PageStore<D>,
    name: &str,
    rows: usize,
    args: &[Arg<'_, D::Buffer>],
) -> Result<(), CudaError> {
    let blocks = rows.div_ceil((ROW_THREADS / WARP) as usize);
    let launch = Launch {
        entry: &store.entry(name),
        grid: [number("rows", blocks)?, 1],
        threads: ROW_THREADS,
        args,
    };
    Ok(store.device().launch(&launch)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies(pairs: &[(u32, u32)]) -> Vec<CopyRow> {
        let copy = |&(from_offset, to_offset): &(u32, u32)| CopyRow {
            from_page: 0,
            from_offset,
            to_page: 0,
            to_offset,
        };
        pairs.iter().map(copy).collect()
    }

    #[test]
    fn runs_end_where_order_matters() {
        type Case<'a> = (&'a [(u32, u32)], &'a [usize]);
        let cases: [Case<'_>; 6] = [
            (&[], &[]),
            (&[(4, 0), (5, 1), (6, 2)], &[3]),
            // The second reads what the first wrote.
            (&[(4, 0), (0, 1)], &[1, 1]),
            // The second overwrites what the first read.
            (&[(4, 0), (5, 4)], &[1, 1]),
            // Both write the same slot.
            (&[(4, 0), (5, 0)], &[1, 1]),
            (&[(3, 3)], &[]),
        ];
        for (pairs, lens) in cases {
            let rows = copies(pairs);
            let runs = independent_runs(&rows);
            let got: Vec<usize> = runs.iter().map(|run| run.len()).collect();
            assert_eq!(got, lens, "{pairs:?}");
        }
    }
}
