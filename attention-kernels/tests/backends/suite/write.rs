//! Rows into slots, and between slots.

use attention_kernels::cuda::SlotWrite;
use attention_kernels::{CopyRow, KvDtype, PageLayout};
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{Backend, NewTokens, Record};
use crate::world::{DTYPES, random_queries, rng};

const PAGES: u32 = 5;

/// `(D, B)`: rows that a warp reads in one go, in part, and in several; small and large pages.
const SHAPES: [(usize, usize); 5] = [(8, 8), (24, 16), (64, 32), (112, 8), (256, 16)];

fn slots(block: usize) -> Vec<(u32, u32)> {
    let block = u32::try_from(block).expect("small");
    (0..PAGES)
        .flat_map(|page| (0..block).map(move |offset| (page, offset)))
        .collect()
}

/// Writes of `count` slots drawn at random, from a longer matrix; some rows are named twice.
fn random_writes(
    rng: &mut ChaCha8Rng,
    block: usize,
    count: usize,
    matrix: usize,
) -> Vec<SlotWrite> {
    let mut free = slots(block);
    free.shuffle(rng);
    let chosen = free.iter().take(count);
    chosen
        .map(|&(page, offset)| SlotWrite {
            source: rng.random_range(0..matrix),
            page,
            offset,
            position: rng.random_range(0..1 << 31),
            is_pinned: rng.random_bool(0.3),
        })
        .collect()
}

/// A store with every slot written, half of them a second time, and its record. The writes come in three calls, one of them empty.
pub(crate) fn filled<B: Backend>(
    backend: &B,
    rng: &mut ChaCha8Rng,
    dtype: KvDtype,
    (head_dim, block): (usize, usize),
) -> (B::Store, Record) {
    let layout = PageLayout::new(block, head_dim).expect("a layout");
    let mut store = backend.store(layout, dtype, PAGES as usize);
    let mut record = Record::zeros(layout, PAGES as usize);
    record.assert_is(&backend.contents(&store), "a fresh store");
    let all = slots(block).len();
    for (count, is_scored) in [(all, true), (0, true), (all / 2, false), (3, true)] {
        let matrix = all + 7;
        let keys = random_queries(rng, matrix * head_dim, 9.0);
        let values = random_queries(rng, matrix * head_dim, 9.0);
        let scores = random_queries(rng, matrix, 2.0);
        let new = NewTokens {
            keys: &keys,
            values: &values,
        };
        let scores = is_scored.then_some(&scores[..]);
        let writes = random_writes(rng, block, count, matrix);
        backend.write(&mut store, new, scores, &writes);
        record.write(new, scores, &writes, dtype);
        backend
            .contents(&store)
            .assert_is(&record, &format!("{dtype}, D {head_dim}, B {block}"));
    }
    (store, record)
}

pub(crate) fn rows_lie_where_they_were_sent<B: Backend>(backend: &B) {
    let mut rng = rng(0x101);
    for dtype in DTYPES {
        for shape in SHAPES {
            let _ = filled(backend, &mut rng, dtype, shape);
        }
    }
}

/// Lists in which entries read what earlier ones wrote, overwrite what they read, or write what they wrote.
pub(crate) fn copies_happen_in_order<B: Backend>(backend: &B) {
    let mut rng = rng(0x102);
    for dtype in DTYPES {
        for shape in [(24, 8), (128, 16)] {
            copies(backend, &mut rng, dtype, shape);
        }
    }
}

/// Copies between a few slots, many of them in chains, and what compaction does: everything moves down.
pub(crate) fn copies<B: Backend>(
    backend: &B,
    rng: &mut ChaCha8Rng,
    dtype: KvDtype,
    shape: (usize, usize),
) {
    let (mut store, mut record) = filled(backend, rng, dtype, shape);
    let mut check = |rows: &[CopyRow], when: &str| {
        backend.copy_rows(&mut store, rows);
        rows.iter().for_each(|row| record.copy(row));
        backend
            .contents(&store)
            .assert_is(&record, &format!("{dtype}, {when}"));
    };
    let all = slots(shape.1);
    for few in [4, 16, all.len()] {
        let some: Vec<(u32, u32)> = all.choose_multiple(rng, few).copied().collect();
        let mut slot = || some[rng.random_range(0..few)];
        let rows: Vec<CopyRow> = (0..24).map(|_| copy(slot(), slot())).collect();
        check(&rows, &format!("{few} slots"));
    }
    let down = all.iter().zip(&all[3..]);
    let rows: Vec<CopyRow> = down.map(|(&to, &from)| copy(from, to)).collect();
    check(&rows, "all move");
}

pub(crate) fn a_copy_onto_itself_changes_nothing<B: Backend>(backend: &B) {
    let mut rng = rng(0x103);
    for dtype in DTYPES {
        let (mut store, record) = filled(backend, &mut rng, dtype, (16, 8));
        let rows: Vec<CopyRow> = slots(8).into_iter().map(|slot| copy(slot, slot)).collect();
        for rows in [&rows[..], &rows[..1], &[]] {
            backend.copy_rows(&mut store, rows);
            backend
                .contents(&store)
                .assert_is(&record, "copies onto themselves");
        }
    }
}

fn copy(from: (u32, u32), to: (u32, u32)) -> CopyRow {
    CopyRow {
        from_page: from.0,
        from_offset: from.1,
        to_page: to.0,
        to_offset: to.1,
    }
}
