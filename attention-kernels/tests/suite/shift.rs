//! Turned keys against the oracle, and against `RoPE` written down once more with complex numbers in mind.

use attention_kernels::{
    AttendArgs, KvDtype, PageLayout, PageStore, RopeStyle, RowShift, RowWrite, ShiftArgs,
    WriteArgs, attend, oracle, shift, write,
};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::world::{
    BOUND, DTYPES, Head, Rows, World, bits, random_queries, relative_error, rng, row_write,
};

const STYLES: [RopeStyle; 2] = [RopeStyle::Halves, RopeStyle::Interleaved];

/// `(D, R)`: keys turned in full and in part.
const DIMS: [(usize, usize); 6] = [(2, 2), (7, 4), (16, 16), (80, 32), (96, 96), (128, 64)];

/// Positions of the tables.
const POSITIONS: i32 = 2000;

/// Tables of angles, as a model has them.
struct Tables {
    cos: Vec<f32>,
    sin: Vec<f32>,
    rotary_dim: usize,
    style: RopeStyle,
}

impl Tables {
    fn new(rotary_dim: usize, style: RopeStyle) -> Self {
        let angles = (0..POSITIONS).flat_map(|position| angles(position, rotary_dim));
        let (cos, sin) = angles
            .map(|angle| (rounded(angle.cos()), rounded(angle.sin())))
            .unzip();
        Self {
            cos,
            sin,
            rotary_dim,
            style,
        }
    }

    fn args<'a>(&'a self, rows: &'a [RowShift]) -> ShiftArgs<'a> {
        ShiftArgs {
            rows,
            cos: &self.cos,
            sin: &self.sin,
            rotary_dim: self.rotary_dim,
            style: self.style,
        }
    }

    /// `key`, never turned, as it is at `position`.
    fn at(&self, key: &[f32], position: i32) -> Vec<f64> {
        let mut turned: Vec<f64> = key.iter().copied().map(f64::from).collect();
        for (pair, angle) in angles(position, self.rotary_dim).enumerate() {
            let (real, imaginary) = self.pair(pair);
            let (length, argument) = (
                turned[real].hypot(turned[imaginary]),
                turned[imaginary].atan2(turned[real]) + angle,
            );
            (turned[real], turned[imaginary]) = (length * argument.cos(), length * argument.sin());
        }
        turned
    }

    /// As [`Self::at`], rounded to `f32`.
    fn rounded_at(&self, key: &[f32], position: i32) -> Vec<f32> {
        self.at(key, position).into_iter().map(rounded).collect()
    }

    fn pair(&self, pair: usize) -> (usize, usize) {
        let mut elements: Vec<usize> = (0..self.rotary_dim).collect();
        if self.style == RopeStyle::Interleaved {
            // The even ones, and then the odd ones.
            elements.sort_by_key(|element| element % 2);
        }
        (elements[pair], elements[self.rotary_dim / 2 + pair])
    }

    /// The worst error of a moved key, against the length of the pair or the element itself.
    fn worst_error(&self, got: &[f32], want: &[f64]) -> f64 {
        let mut lengths: Vec<f64> = want.iter().map(|x| x.abs()).collect();
        for (one, other) in (0..self.rotary_dim / 2).map(|pair| self.pair(pair)) {
            let length = want[one].hypot(want[other]);
            (lengths[one], lengths[other]) = (length, length);
        }
        let errors = got
            .iter()
            .zip(want)
            .zip(lengths)
            .map(|((got, want), length)| {
                let off = (f64::from(*got) - want).abs();
                if off == 0.0 { 0.0 } else { off / length }
            });
        errors.fold(0.0, f64::max)
    }
}

/// The angles of a position.
fn angles(position: i32, rotary_dim: usize) -> impl Iterator<Item = f64> {
    let exponent = move |pair| -2.0 * pair as f64 / rotary_dim as f64;
    (0..rotary_dim / 2).map(move |pair| f64::from(position) * 10_000_f64.powf(exponent(pair)))
}

#[expect(clippy::cast_possible_truncation, reason = "what the tables are for")]
fn rounded(number: f64) -> f32 {
    number as f32
}

/// What storing a number adds to its error.
fn unit(dtype: KvDtype) -> f64 {
    match dtype {
        KvDtype::F16 => 2_f64.powi(-11),
        KvDtype::Bf16 => 2_f64.powi(-8),
        _ => 0.0,
    }
}

/// The bound on one shift.
fn bound(dtype: KvDtype) -> f64 {
    2_f64.powi(-22) + unit(dtype)
}

/// A store with `keys` in the slots of its only page.
fn store_of(dtype: KvDtype, keys: &[f32], head_dim: usize) -> PageStore {
    let tokens = keys.len() / head_dim;
    let layout = PageLayout::new(tokens, head_dim).expect("a layout");
    let mut store = PageStore::new(layout, dtype, 1).expect("a small store");
    let rows: Vec<RowWrite> = (0..tokens)
        .map(|slot| row_write(slot, &[0], slot, tokens))
        .collect();
    let args = WriteArgs {
        keys,
        values: keys,
        rows: &rows,
    };
    write(&mut store, &args).expect("a sound write");
    store
}

/// Moves the key of slot 0 of page 0.
fn move_first(store: &mut PageStore, tables: &Tables, by: i32) {
    let row = RowShift {
        page: 0,
        offset: 0,
        by,
    };
    shift(store, &tables.args(&[row])).expect("a sound shift");
}

/// Up to `count` slots in use, none twice.
fn some_slots(rng: &mut ChaCha8Rng, head: &Head, block: usize, count: usize) -> Vec<RowShift> {
    let mut slots: Vec<usize> = (0..head.len).collect();
    slots.shuffle(rng);
    let row = |slot: usize| {
        let RowWrite { page, offset, .. } = row_write(0, &head.pages, slot, block);
        RowShift {
            page,
            offset,
            by: rng.random_range(1 - POSITIONS..POSITIONS),
        }
    };
    slots.into_iter().take(count).map(row).collect()
}

/// Every key and value of a store, bit for bit: `[pages][B]`.
fn contents(store: &PageStore) -> Vec<Vec<(Vec<u32>, Vec<u32>)>> {
    let (pages, block) = (store.pages(), store.layout().block());
    let small = |number: usize| u32::try_from(number).expect("a small store");
    let slot = |page, offset| {
        let (key, value) = (store.read_key(page, offset), store.read_value(page, offset));
        (bits(&key), bits(&value))
    };
    let page = |page| (0..small(block)).map(|offset| slot(page, offset)).collect();
    (0..small(pages)).map(page).collect()
}

/// Keys that move are the oracle's, and everything else keeps every bit.
#[test]
fn moved_keys_follow_the_oracle_and_nothing_else_changes() {
    let mut rng = rng(0x61);
    for (head_dim, rotary_dim) in DIMS {
        for (dtype, style) in DTYPES
            .into_iter()
            .flat_map(|dtype| STYLES.map(|s| (dtype, s)))
        {
            let tables = Tables::new(rotary_dim, style);
            let rows = Rows::random(&mut rng, 23, head_dim, dtype);
            let layout = PageLayout::new(5, head_dim).expect("a layout");
            let mut world = World::new(&mut rng, layout, dtype, &[rows]);
            let moved = some_slots(&mut rng, &world.heads[0], 5, 9);
            let args = tables.args(&moved);
            let keys = |store: &PageStore| -> Vec<Vec<f32>> {
                let key = |row: &RowShift| store.read_key(row.page, row.offset);
                moved.iter().map(key).collect()
            };
            let (mut before, old) = (contents(&world.store), keys(&world.store));
            shift(&mut world.store, &args).expect("a sound shift");
            for ((row, old), new) in moved.iter().zip(old).zip(keys(&world.store)) {
                let error = tables.worst_error(&new, &oracle::shift(&old, row.by, &args));
                assert!(
                    error <= bound(dtype),
                    "{dtype}, {style:?}, D {head_dim}, R {rotary_dim}, by {}: {error:e}",
                    row.by
                );
                let key = &mut before[row.page as usize][row.offset as usize].0;
                key[..rotary_dim].copy_from_slice(&bits(&new)[..rotary_dim]);
            }
            assert_eq!(contents(&world.store), before);
        }
    }
}

/// One way to a position is as good as two. Each shift rounds, and the tables are rounded too.
#[test]
fn two_shifts_are_one() {
    let mut rng = rng(0x62);
    for (dtype, style) in DTYPES
        .into_iter()
        .flat_map(|dtype| STYLES.map(|s| (dtype, s)))
    {
        let tables = Tables::new(64, style);
        for _ in 0..50 {
            let key = Rows::random(&mut rng, 1, 80, dtype).keys;
            let (a, b) = (rng.random_range(-900..900), rng.random_range(-900..900));
            let mut store = store_of(dtype, &key, 80);
            move_first(&mut store, &tables, a);
            move_first(&mut store, &tables, b);
            let want = oracle::shift(&key, a + b, &tables.args(&[]));
            let error = tables.worst_error(&store.read_key(0, 0), &want);
            let bound = 2.0 * bound(dtype) * (1.0 + bound(dtype));
            assert!(
                error <= bound,
                "{dtype}, {style:?}, {a} then {b}: {error:e}"
            );
        }
    }
}

/// A key that is turned back a thousand times, as in a text without an end, is where one turn would have put it.
#[test]
fn a_thousand_shifts_hardly_drift() {
    const SHIFTS: i32 = 1000;
    let mut rng = rng(0x67);
    for (style, (head_dim, rotary_dim)) in STYLES.into_iter().zip([(64, 64), (80, 32)]) {
        let tables = Tables::new(rotary_dim, style);
        let raw = random_queries(&mut rng, head_dim, 4.0);
        let mut store = store_of(KvDtype::F32, &tables.rounded_at(&raw, SHIFTS), head_dim);
        for _ in 0..SHIFTS {
            move_first(&mut store, &tables, -1);
        }
        let error = tables.worst_error(&store.read_key(0, 0), &tables.at(&raw, 0));
        assert!(error <= 1e-4, "{style:?}: {error:e}");
    }
}

/// Moving `RoPE(k, p)` by `d` gives `RoPE(k, p + d)`, forwards and backwards.
#[test]
fn a_moved_key_is_the_key_of_its_new_position() {
    let mut rng = rng(0x63);
    for (dtype, style) in DTYPES
        .into_iter()
        .flat_map(|dtype| STYLES.map(|s| (dtype, s)))
    {
        let tables = Tables::new(64, style);
        for _ in 0..50 {
            let key = random_queries(&mut rng, 64, 4.0);
            let (from, to) = (rng.random_range(0..3000), rng.random_range(0..1999));
            let by = (to - from).clamp(1 - POSITIONS, POSITIONS - 1);
            let mut store = store_of(dtype, &tables.rounded_at(&key, from), 64);
            move_first(&mut store, &tables, by);
            let want = tables.at(&key, from + by);
            let error = tables.worst_error(&store.read_key(0, 0), &want);
            // What was written was rounded already.
            let bound = 2.0 * bound(dtype) * (1.0 + bound(dtype));
            assert!(
                error <= bound,
                "{dtype}, {style:?}, {from} by {by}: {error:e}"
            );
        }
    }
}

/// What it is for. `E` tokens between sinks and recent ones are gone; with the sinks moved by `E`, attention is that of a text
/// without the `E` tokens.
#[test]
fn moved_sinks_make_positions_relative_to_the_cache() {
    let mut rng = rng(0x64);
    let (head_dim, sinks, recent, gone) = (64, 4, 16, 1234);
    for style in STYLES {
        let tables = Tables::new(head_dim, style);
        let rows = Rows::random(&mut rng, sinks + recent, head_dim, KvDtype::F32);
        let query = random_queries(&mut rng, head_dim, 3.0);
        let turned = |position: &dyn Fn(usize) -> usize| -> Vec<f32> {
            let keys = rows.keys.chunks_exact(head_dim).enumerate();
            let key = |(slot, key)| {
                let position = i32::try_from(position(slot)).expect("a short text");
                tables.rounded_at(key, position)
            };
            keys.flat_map(key).collect()
        };
        let newest = i32::try_from(sinks + recent - 1).expect("a small cache");
        let relative = tables.rounded_at(&query, newest);
        let want = oracle::attend(&turned(&|slot| slot), &rows.values, &relative, 0.125, None);

        let held = Rows {
            keys: turned(&|slot| if slot < sinks { slot } else { slot + gone }),
            values: rows.values.clone(),
        };
        let layout = PageLayout::new(8, head_dim).expect("a layout");
        let mut world = World::new(&mut rng, layout, KvDtype::F32, &[held]);
        let by = i32::try_from(gone).expect("a short text");
        let queries = tables.rounded_at(&query, newest + by);
        let error = |world: &World| {
            let args = AttendArgs {
                queries: &queries,
                heads: &world.slots(),
                group: 1,
                scale: 0.125,
                softcap: None,
            };
            let out = attend(&world.store, &args).expect("a sound call");
            relative_error(&out, &want, &rows.values)
        };
        assert!(error(&world) > 100.0 * BOUND, "the sinks are not far away");
        let moved = (0..sinks).map(|slot| {
            let RowWrite { page, offset, .. } = row_write(0, &world.heads[0].pages, slot, 8);
            RowShift { page, offset, by }
        });
        let moved: Vec<RowShift> = moved.collect();
        shift(&mut world.store, &tables.args(&moved)).expect("a sound shift");
        let error = error(&world);
        assert!(error <= BOUND, "{style:?}: relative error {error:e}");
    }
}

/// In one call or in many, in any order, with any neighbours: same bits.
#[test]
fn a_key_alone_is_the_key_among_others() {
    let mut rng = rng(0x65);
    for dtype in DTYPES {
        let tables = Tables::new(32, RopeStyle::Halves);
        let rows = Rows::random(&mut rng, 23, 40, dtype);
        let layout = PageLayout::new(5, 40).expect("a layout");
        let World { mut store, heads } = World::new(&mut rng, layout, dtype, &[rows]);
        let moved = some_slots(&mut rng, &heads[0], 5, 23);
        let keys = heads[0].rows.keys.chunks_exact(40);
        let alone: Vec<(Vec<u32>, RowShift)> = keys
            .enumerate()
            .map(|(slot, key)| {
                let at = row_write(0, &heads[0].pages, slot, 5);
                let is_here = |row: &&RowShift| (row.page, row.offset) == (at.page, at.offset);
                let row = *moved.iter().find(is_here).expect("every slot moves");
                let mut store = store_of(dtype, key, 40);
                move_first(&mut store, &tables, row.by);
                (bits(&store.read_key(0, 0)), row)
            })
            .collect();
        shift(&mut store, &tables.args(&moved)).expect("a sound shift");
        for (key, row) in alone {
            assert_eq!(bits(&store.read_key(row.page, row.offset)), key, "{dtype}");
        }
    }
}

/// Zeros of both signs and NaNs with a message survive a shift by 0, whatever the tables say of position 0.
#[test]
fn a_shift_by_0_keeps_every_bit() {
    let row = [0x8000_0000_u32, 0x7fc1_0000, 0xff80_0000, 0x0001_0000].map(f32::from_bits);
    for dtype in DTYPES {
        let mut store = store_of(dtype, &row, 4);
        let before = contents(&store);
        let args = ShiftArgs {
            rows: &[RowShift {
                page: 0,
                offset: 0,
                by: 0,
            }],
            cos: &[0.5; 2],
            sin: &[0.5; 2],
            rotary_dim: 4,
            style: RopeStyle::Interleaved,
        };
        shift(&mut store, &args).expect("a sound shift");
        assert_eq!(contents(&store), before, "{dtype}");
        assert_eq!(
            oracle::shift(&[1.0, 2.0, 3.0, 4.0], 0, &args),
            [1.0, 2.0, 3.0, 4.0]
        );
    }
}

/// A NaN spoils its pair and no other element.
#[test]
fn nan_stays_in_its_pair() {
    for (style, pair) in [
        (RopeStyle::Halves, [1, 9]),
        (RopeStyle::Interleaved, [8, 9]),
    ] {
        let mut key = vec![1.0; 20];
        key[9] = f32::NAN;
        let mut store = store_of(KvDtype::F32, &key, 20);
        move_first(&mut store, &Tables::new(16, style), -3);
        for (element, number) in store.read_key(0, 0).into_iter().enumerate() {
            assert_eq!(
                number.is_nan(),
                pair.contains(&element),
                "element {element}"
            );
        }
    }
}
