//! `write` and `copy_rows` against a plain model: a map from slot to row.

use std::collections::HashMap;

use attention_kernels::{
    AttendArgs, CopyRow, KvDtype, PageLayout, PageStore, RowWrite, WriteArgs, attend, copy_rows,
    write,
};
use kv_core::{Demand, Geometry, KeepPlan, LayerView, Ledger, Pins, Position, Room, SeqId};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::world::{BOUND, DTYPES, Rows, World, bits, rng, row_write, stored, worst_error};

const HEAD_DIM: usize = 24;
const BLOCK: u32 = 8;
const PAGES: u32 = 7;

type Slot = (u32, u32);

/// What should be in the store.
struct Model {
    dtype: KvDtype,
    rows: HashMap<Slot, (Vec<f32>, Vec<f32>)>,
}

impl Model {
    fn assert_is(&self, store: &PageStore) {
        let zeros = (vec![0.0; HEAD_DIM], vec![0.0; HEAD_DIM]);
        for page in 0..PAGES {
            for offset in 0..BLOCK {
                let (key, value) = self.rows.get(&(page, offset)).unwrap_or(&zeros);
                let slot = format!("{}, page {page}, offset {offset}", self.dtype);
                assert_eq!(bits(&store.read_key(page, offset)), bits(key), "{slot}");
                assert_eq!(bits(&store.read_value(page, offset)), bits(value), "{slot}");
            }
        }
    }
}

fn new_store(dtype: KvDtype) -> PageStore {
    let layout = PageLayout::new(BLOCK as usize, HEAD_DIM).expect("a layout");
    PageStore::new(layout, dtype, PAGES as usize).expect("a small store")
}

fn random_slot(rng: &mut ChaCha8Rng) -> Slot {
    (rng.random_range(0..PAGES), rng.random_range(0..BLOCK))
}

/// One call of `write` with up to 20 entries, some of which may meet in a slot or share a row.
fn write_some(rng: &mut ChaCha8Rng, store: &mut PageStore, model: &mut Model) {
    let sources = rng.random_range(1..6_usize);
    let mut numbers = || -> Vec<f32> {
        let number = |_| rng.random_range(-100.0..100.0);
        (0..sources * HEAD_DIM).map(number).collect()
    };
    let (keys, values) = (numbers(), numbers());
    let entries = rng.random_range(0..20);
    let rows: Vec<RowWrite> = (0..entries)
        .map(|_| {
            let (page, offset) = random_slot(rng);
            RowWrite {
                source: rng.random_range(0..sources),
                page,
                offset,
            }
        })
        .collect();
    let args = WriteArgs {
        keys: &keys,
        values: &values,
        rows: &rows,
    };
    write(store, &args).expect("entries in range");
    for row in &rows {
        let read = |rows: &[f32]| -> Vec<f32> {
            let row = &rows[row.source * HEAD_DIM..(row.source + 1) * HEAD_DIM];
            row.iter().map(|&x| stored(x, model.dtype)).collect()
        };
        let read = (read(&keys), read(&values));
        model.rows.insert((row.page, row.offset), read);
    }
}

/// One call of `copy_rows` with up to 20 entries, which may chain, meet, or stay where they are.
fn copy_some(rng: &mut ChaCha8Rng, store: &mut PageStore, model: &mut Model) {
    let entries = rng.random_range(0..20);
    let rows: Vec<CopyRow> = (0..entries)
        .map(|_| {
            let ((from_page, from_offset), (to_page, to_offset)) =
                (random_slot(rng), random_slot(rng));
            CopyRow {
                from_page,
                from_offset,
                to_page,
                to_offset,
            }
        })
        .collect();
    copy_rows(store, &rows).expect("entries in range");
    for row in &rows {
        let to = (row.to_page, row.to_offset);
        match model.rows.get(&(row.from_page, row.from_offset)).cloned() {
            Some(moved) => model.rows.insert(to, moved),
            None => model.rows.remove(&to),
        };
    }
}

#[test]
fn writes_and_copies_do_what_the_model_does() {
    let mut rng = rng(0x21);
    for dtype in DTYPES {
        let mut store = new_store(dtype);
        let mut model = Model {
            dtype,
            rows: HashMap::new(),
        };
        model.assert_is(&store);
        for _ in 0..60 {
            if rng.random() {
                write_some(&mut rng, &mut store, &mut model);
            } else {
                copy_some(&mut rng, &mut store, &mut model);
            }
            model.assert_is(&store);
        }
    }
}

/// What the ledger says is where the row goes, and what moves.
#[test]
fn an_address_names_its_slot() {
    let geometry = Geometry {
        layers: 1,
        kv_heads: 1,
        group: 1,
        head_dim: HEAD_DIM,
        block: BLOCK as usize,
        element_bytes: 4,
        max_positions: 64,
    };
    let mut ledger = Ledger::new(geometry, PAGES as usize);
    let (seq, pins) = (SeqId(0), Pins::default());
    let demand = Demand {
        rooms: vec![Room::Each(usize::MAX)],
        together: None,
        appends: false,
        prompt: 11,
    };
    ledger.open(seq, 12, demand, &pins).expect("room");
    let kept = KeepPlan::all(1).resolve(&LayerView::prefill(0, 1, 11, usize::MAX), &pins);
    ledger.write_prompt(seq, 0, 11, &kept).expect("room");
    ledger.fork(seq, SeqId(1), 12).expect("room");
    // Others hold the second page, too, so that three tokens come along into the third.
    let entered = ledger.append(seq, 0, Position(11)).expect("room");
    let want = RowWrite {
        source: 3,
        page: 2,
        offset: 3,
    };
    assert_eq!(RowWrite::at(3, entered.heads[0]), want);
    let moved: Vec<CopyRow> = entered.moves.iter().map(CopyRow::of).collect();
    let copied = |offset| CopyRow {
        from_page: 1,
        from_offset: offset,
        to_page: 2,
        to_offset: offset,
    };
    assert_eq!(moved, [0, 1, 2].map(copied));
}

/// NaN payloads, infinities, zeros of both signs and subnormals move as bits, not as numbers.
#[test]
fn copies_keep_every_bit() {
    let patterns = [
        0x7fc0_0001_u32,
        0xff80_0000,
        0x8000_0000,
        0x0000_0001,
        0x7f80_0000,
        0x3f80_0001,
    ];
    let row: Vec<f32> = (0..HEAD_DIM)
        .map(|d| f32::from_bits(patterns[d % patterns.len()]))
        .collect();
    for dtype in DTYPES {
        let mut store = new_store(dtype);
        let rows = [row_write(0, &[2], 3, BLOCK as usize)];
        let args = WriteArgs {
            keys: &row,
            values: &row,
            rows: &rows,
        };
        write(&mut store, &args).expect("an entry in range");
        let copy = CopyRow {
            from_page: 2,
            from_offset: 3,
            to_page: 6,
            to_offset: 7,
        };
        copy_rows(&mut store, &[copy]).expect("an entry in range");
        assert_eq!(bits(&store.read_key(6, 7)), bits(&store.read_key(2, 3)));
        assert_eq!(bits(&store.read_value(6, 7)), bits(&store.read_value(2, 3)));
        if dtype == KvDtype::F32 {
            assert_eq!(bits(&store.read_key(6, 7)), bits(&row));
        }
    }
}

/// What compression after the fact does: tokens are dropped from the middle, the rest moves up, and attention is that of the rest.
#[test]
fn attention_after_compaction_is_attention_over_the_kept_tokens() {
    let mut rng = rng(0x22);
    let layout = PageLayout::new(BLOCK as usize, HEAD_DIM).expect("a layout");
    for dtype in DTYPES {
        let rows = Rows::random(&mut rng, 100, HEAD_DIM, dtype);
        let mut world = World::new(&mut rng, layout, dtype, std::slice::from_ref(&rows));
        let kept: Vec<usize> = (0..100).filter(|_| rng.random_bool(0.4)).collect();
        let head = &mut world.heads[0];
        let copies: Vec<CopyRow> = kept
            .iter()
            .enumerate()
            .map(|(to, &from)| {
                let from = row_write(0, &head.pages, from, BLOCK as usize);
                let to = row_write(0, &head.pages, to, BLOCK as usize);
                CopyRow {
                    from_page: from.page,
                    from_offset: from.offset,
                    to_page: to.page,
                    to_offset: to.offset,
                }
            })
            .collect();
        copy_rows(&mut world.store, &copies).expect("slots in range");
        head.len = kept.len();
        head.pages.truncate(layout.pages_for(kept.len()));
        head.rows = rows.permuted(&kept, HEAD_DIM);
        let queries = crate::world::random_queries(&mut rng, 2 * HEAD_DIM, 2.0);
        let args = AttendArgs {
            queries: &queries,
            heads: &world.slots(),
            group: 2,
            scale: 0.2,
            softcap: None,
        };
        let out = attend(&world.store, &args).expect("a sound call");
        let (error, _) = worst_error(&args, &world.heads, &out);
        assert!(error <= BOUND, "{dtype}: relative error {error:e}");
    }
}
