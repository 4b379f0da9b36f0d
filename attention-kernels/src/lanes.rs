//! The inner loops, written so that the compiler turns them into SIMD code.
//!
//! A sum over `D` has [`LANES`] running sums and one fixed tree at the end. The order of every addition is therefore in the source
//! and not in the compiler's or the CPU's hands: a row gives the same bits wherever it stands, alone or in a tile of rows. Which bits
//! is a matter of the build (a fused multiply-add rounds once), not of the run.
//!
//! Before changing the shape of these loops, run the benchmark `attend`. Two shapes that look as good were much slower there: running
//! sums updated in place inside an array, instead of passed and returned by value as [`Lanes`] (the compiler keeps them in memory,
//! and works on some of them one by one), and [`dot_rows`] and [`add_rows`] inlined into the walk over pages (together they
//! need more registers than there are, hence `inline(never)`). Eight lanes were slower and tiles of eight rows no faster.

use std::array;

/// Running sums per dot product: one 512-bit register or two 256-bit ones. Any `D` works; a multiple of it has no tail.
const LANES: usize = 16;

/// Rows that are worked on together. Their dot products are independent, which hides the latency of the adds, and a query is loaded
/// once for all of them.
pub(crate) const TILE: usize = 4;

/// `a * b + c`, rounded once where the target can do that in one instruction. Without the test, a target that cannot would call a
/// library function for every element.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

/// [`LANES`] numbers that are worked on side by side.
type Lanes = [f32; LANES];

#[inline(always)]
fn multiply_add_lanes(a: &Lanes, b: &Lanes, mut c: Lanes) -> Lanes {
    for lane in 0..LANES {
        c[lane] = multiply_add(a[lane], b[lane], c[lane]);
    }
    c
}

/// The `R` rows of `rows` (`R * D`), each in full sets of lanes and a tail.
#[inline(always)]
fn split_rows<const R: usize>(rows: &[f32], head_dim: usize) -> [(&[Lanes], &[f32]); R] {
    array::from_fn(|row| rows[row * head_dim..(row + 1) * head_dim].as_chunks())
}

/// Dot products of `query` (`D`) with `R` rows that follow each other (`R * D`).
#[inline(never)]
pub(crate) fn dot_rows<const R: usize>(rows: &[f32], query: &[f32]) -> [f32; R] {
    let rows = split_rows::<R>(rows, query.len());
    let (query, query_tail) = query.as_chunks::<LANES>();
    // Cut to the same length, which the compiler cannot see otherwise.
    let chunks = rows.map(|(chunks, _)| &chunks[..query.len()]);
    let mut sums = [[0.0; LANES]; R];
    for (at, query) in query.iter().enumerate() {
        for row in 0..R {
            sums[row] = multiply_add_lanes(&chunks[row][at], query, sums[row]);
        }
    }
    for (sums, (_, row_tail)) in sums.iter_mut().zip(rows) {
        for ((sum, k), q) in sums.iter_mut().zip(row_tail).zip(query_tail) {
            *sum = multiply_add(*k, *q, *sum);
        }
    }
    sums.map(sum_lanes)
}

/// Dot products of `query` (`D`) with up to [`TILE`] rows, one per element of `dots`.
#[inline(always)]
pub(crate) fn dot_tile(dots: &mut [f32], rows: &[f32], query: &[f32]) {
    if let Ok(dots) = <&mut [f32; TILE]>::try_from(&mut *dots) {
        *dots = dot_rows(rows, query);
    } else {
        for (dot, row) in dots.iter_mut().zip(rows.chunks_exact(query.len())) {
            [*dot] = dot_rows(row, query);
        }
    }
}

/// Adds `weights[r] * row r` to `total` (`D`) for `R` rows that follow each other (`R * D`), row by row in order.
#[inline(never)]
pub(crate) fn add_rows<const R: usize>(total: &mut [f32], rows: &[f32], weights: [f32; R]) {
    let rows = split_rows::<R>(rows, total.len());
    let (total, total_tail) = total.as_chunks_mut::<LANES>();
    let chunks = rows.map(|(chunks, _)| &chunks[..total.len()]);
    for (at, total) in total.iter_mut().enumerate() {
        let mut sums = *total;
        for (chunks, weight) in chunks.iter().zip(weights) {
            sums = multiply_add_lanes(&[weight; LANES], &chunks[at], sums);
        }
        *total = sums;
    }
    for ((_, row_tail), weight) in rows.iter().zip(weights) {
        for (total, v) in total_tail.iter_mut().zip(*row_tail) {
            *total = multiply_add(weight, *v, *total);
        }
    }
}

/// The largest number; negative infinity where there is none. NaNs are passed over: they show up in the sum.
pub(crate) fn highest(numbers: &[f32]) -> f32 {
    let (chunks, tail) = numbers.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, number) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(*number);
        }
    }
    let numbers = lanes.iter().chain(tail);
    numbers.copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Replaces every score by `exp(score - highest)` and returns their sum.
pub(crate) fn exponentiate(scores: &mut [f32], highest: f32) -> f32 {
    let (chunks, tail) = scores.as_chunks_mut::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            *score = exp_at_most_0(*score - highest);
            *sum += *score;
        }
    }
    for (sum, score) in sums.iter_mut().zip(tail) {
        *score = exp_at_most_0(*score - highest);
        *sum += *score;
    }
    sum_lanes(sums)
}

/// `exp(x)` for `x <= 0`, with a relative error below `f32::EPSILON`; 0 below -87, where `f32` would leave its normal range; NaN for NaN.
///
/// The library's `exp` is one call per number, and a decode step takes `G * T` of them per head. This one is straight arithmetic,
/// so that it runs in lanes: `x = n * ln 2 + r` with whole `n` and `|r| <= ln 2 / 2`, a Taylor series for `exp(r)` (its first
/// missing term is below a tenth of a rounding error), and `2^n` put together from bits.
#[inline(always)]
pub(crate) fn exp_at_most_0(x: f32) -> f32 {
    /// 1.5 * 2^23: adding it rounds to a whole number and leaves that number in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts. The first has few enough bits that a multiple of it is exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const TAYLOR: [f32; 7] = [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        1.0 / 2.0,
        1.0,
        1.0,
    ];
    let rounded = multiply_add(x, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = multiply_add(n, -LN_2_LOW, multiply_add(n, -LN_2_HIGH, x));
    let mut exp_r = 1.0 / 5040.0;
    for coefficient in TAYLOR {
        exp_r = multiply_add(exp_r, r, coefficient);
    }
    // The exponent field of 2^n is n + 127; the shift drops what is left of ROUND.
    let two_to_n = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { exp_r * two_to_n }
}

/// Sum of the lanes, in halves: the same tree every time.
#[inline(always)]
fn sum_lanes(lanes: Lanes) -> f32 {
    let eight: [f32; 8] = array::from_fn(|lane| lanes[lane] + lanes[lane + 8]);
    let four: [f32; 4] = array::from_fn(|lane| eight[lane] + eight[lane + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fixed, uneven sequence of numbers between -1 and 1 with no pattern that a wrong stride would survive.
    fn numbers(len: usize) -> Vec<f32> {
        let mut state = 1_u32;
        let step = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from_bits(0x4000_0000 | (state >> 9)) - 3.0
        };
        (0..len).map(step).collect()
    }

    #[test]
    fn dot_rows_at_every_width() {
        for head_dim in 1..=130 {
            let (rows, query) = (numbers(TILE * head_dim), numbers(head_dim));
            let got: [f32; TILE] = dot_rows(&rows, &query);
            for (row, got) in rows.chunks_exact(head_dim).zip(got) {
                let products = row.iter().zip(&query);
                let want: f64 = products.map(|(&k, &q)| f64::from(k) * f64::from(q)).sum();
                assert!(
                    (f64::from(got) - want).abs() < 1e-5,
                    "D {head_dim}: {got} {want}"
                );
                assert_eq!(
                    dot_rows::<1>(row, &query),
                    [got],
                    "D {head_dim}: alone as in a tile"
                );
            }
        }
    }

    #[test]
    fn add_rows_at_every_width() {
        for head_dim in 1..=130 {
            let (rows, weights) = (numbers(TILE * head_dim), [0.5, -2.0, 0.25, 1.0]);
            let mut together = vec![1.0; head_dim];
            add_rows::<TILE>(&mut together, &rows, weights);
            let mut alone = vec![1.0; head_dim];
            for (row, weight) in rows.chunks_exact(head_dim).zip(weights) {
                add_rows::<1>(&mut alone, row, [weight]);
            }
            assert_eq!(together, alone, "D {head_dim}");
            for (d, got) in together.iter().enumerate() {
                let terms = weights.iter().zip(rows[d..].iter().step_by(head_dim));
                let want = 1.0 + terms.map(|(w, v)| f64::from(w * v)).sum::<f64>();
                assert!((f64::from(*got) - want).abs() < 1e-5, "D {head_dim} at {d}");
            }
        }
    }

    #[test]
    fn exp_is_close_everywhere() {
        let mut worst = 0.0_f64;
        for step in 0..=200_000_u32 {
            let x = -87.0 * f32::from_bits(0x3f80_0000 | (step * 41)) + 87.0;
            assert!((-87.0..=0.0).contains(&x));
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp_at_most_0(x)) / want - 1.0).abs());
        }
        assert!(worst < f64::from(f32::EPSILON), "relative error {worst:e}");
    }

    #[test]
    fn exp_at_the_edges() {
        assert_eq!(exp_at_most_0(0.0), 1.0);
        assert_eq!(exp_at_most_0(-0.0), 1.0);
        assert!(exp_at_most_0(-87.0) >= f32::MIN_POSITIVE);
        for x in [-87.1, -1e4, -1e30, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(exp_at_most_0(x), 0.0);
        }
        assert!(exp_at_most_0(f32::NAN).is_nan());
    }

    #[test]
    fn exponentiate_and_highest_at_every_length() {
        for len in 0..70 {
            let scores = numbers(len);
            let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(highest(&scores), top);
            let mut weights = scores.clone();
            let sum = exponentiate(&mut weights, 1.0);
            let want: f64 = scores.iter().map(|&s| (f64::from(s) - 1.0).exp()).sum();
            assert!((f64::from(sum) - want).abs() <= 1e-5, "{len} scores");
            assert!(
                weights
                    .iter()
                    .zip(&scores)
                    .all(|(&w, &s)| w == exp_at_most_0(s - 1.0))
            );
        }
    }

    #[test]
    fn nan_is_not_lost() {
        let mut scores = vec![0.0; 20];
        scores[17] = f32::NAN;
        assert_eq!(highest(&scores), 0.0);
        assert!(exponentiate(&mut scores, 0.0).is_nan());
    }
}
