//! Keys turned to other positions, against the oracle.

use attention_kernels::{KvDtype, RopeStyle, RowShift, ShiftArgs, oracle};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Backend, Scene};
use crate::world::{DTYPES, rng};

const POSITIONS: i32 = 60;

/// `(D, R)`: keys turned in full and in part.
pub(crate) const SHAPES: [(usize, usize); 5] = [(8, 8), (80, 32), (96, 96), (128, 64), (64, 2)];

/// Cosines and sines of `[P, R / 2]` angles.
struct Tables {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Tables {
    fn new(rotary_dim: usize) -> Self {
        let pairs = rotary_dim / 2;
        let angle = |position: i32, pair: usize| {
            position as f32 * 100_f32.powf(-(pair as f32) / pairs as f32)
        };
        let angles =
            (0..POSITIONS).flat_map(|position| (0..pairs).map(move |pair| angle(position, pair)));
        let (cos, sin) = angles.map(|angle| (angle.cos(), angle.sin())).unzip();
        Self { cos, sin }
    }

    fn args<'a>(
        &'a self,
        rows: &'a [RowShift],
        rotary_dim: usize,
        style: RopeStyle,
    ) -> ShiftArgs<'a> {
        ShiftArgs {
            rows,
            cos: &self.cos,
            sin: &self.sin,
            rotary_dim,
            style,
        }
    }
}

/// The factor on the length of a pair, and what is added.
fn bound(dtype: KvDtype) -> (f64, f64) {
    let (unit, tiny) = match dtype {
        KvDtype::F16 => (2_f64.powi(-11), -25),
        KvDtype::Bf16 => (2_f64.powi(-8), -133),
        _ => (0.0, -148),
    };
    (2_f64.powi(-22) + unit, 2_f64.powi(tiny))
}

/// Some slots of a scene's heads, none twice, with shifts in both directions.
fn random_rows(rng: &mut ChaCha8Rng, scene: &Scene) -> Vec<RowShift> {
    let block = scene.layout.block();
    let mut rows = Vec::new();
    for head in &scene.heads {
        for slot in 0..head.len {
            if rng.random_bool(0.7) {
                rows.push(RowShift {
                    page: head.pages[slot / block],
                    offset: u32::try_from(slot % block).expect("small"),
                    by: rng.random_range(1 - POSITIONS..POSITIONS),
                });
            }
        }
    }
    rows
}

pub(crate) fn keys_follow_the_oracle<B: Backend>(backend: &B) {
    let mut rng = rng(0x151);
    for dtype in DTYPES {
        for shape in SHAPES {
            follow(backend, &mut rng, dtype, shape);
        }
    }
}

/// Turns keys of `D` elements, `R` of them, in both styles.
pub(crate) fn follow<B: Backend>(
    backend: &B,
    rng: &mut ChaCha8Rng,
    dtype: KvDtype,
    (head_dim, rotary_dim): (usize, usize),
) {
    for style in [RopeStyle::Halves, RopeStyle::Interleaved] {
        let scene = Scene::random(rng, (8, head_dim), dtype, &[13, 5]);
        let rows = random_rows(rng, &scene);
        let tables = Tables::new(rotary_dim);
        let args = tables.args(&rows, rotary_dim, style);
        let mut store = scene.build(backend);
        let before = backend.contents(&store);
        backend.shift(&mut store, &args);
        let after = backend.contents(&store);
        let mut record = before.clone();
        for row in &rows {
            let at = before.at(row.page, row.offset);
            let want = oracle::shift(before.key(at), row.by, &args);
            assert_turned(after.key(at), before.key(at), &want, &args, dtype);
            let turned = at * head_dim..at * head_dim + rotary_dim;
            record.keys[turned.clone()].copy_from_slice(&after.keys[turned]);
        }
        // All that was not turned.
        after.assert_is(
            &record,
            &format!("{dtype}, D {head_dim}, R {rotary_dim}, {style:?}"),
        );
    }
}

fn assert_turned(got: &[f32], key: &[f32], want: &[f64], args: &ShiftArgs<'_>, dtype: KvDtype) {
    let (factor, tiny) = bound(dtype);
    let pairs = args.rotary_dim / 2;
    for pair in 0..pairs {
        let (a, b) = match args.style {
            RopeStyle::Halves => (pair, pair + pairs),
            RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
        };
        let length = f64::from(key[a]).hypot(f64::from(key[b]));
        for element in [a, b] {
            let off = (f64::from(got[element]) - want[element]).abs();
            assert!(
                off <= factor * length + tiny,
                "{dtype}, {:?}, element {element}: {} instead of {}",
                args.style,
                got[element],
                want[element]
            );
        }
    }
}

pub(crate) fn what_stays_keeps_its_bits<B: Backend>(backend: &B) {
    let mut rng = rng(0x152);
    for dtype in DTYPES {
        let scene = Scene::random(&mut rng, (16, 64), dtype, &[20]);
        let mut rows = random_rows(&mut rng, &scene);
        rows.iter_mut().for_each(|row| row.by = 0);
        let mut store = scene.build(backend);
        let before = backend.contents(&store);
        let tables = Tables::new(64);
        for rows in [&rows[..], &[]] {
            backend.shift(&mut store, &tables.args(rows, 64, RopeStyle::Halves));
            backend
                .contents(&store)
                .assert_is(&before, "a shift by nothing");
        }
    }
}
