//! What every attention kernel does with scores.
use super::{LANES, Simd};

/// The largest number; negative infinity where there is none. NaNs are passed over: they show up in the sum.
#[inline(always)]
pub(crate) fn highest<S: Simd>(simd: S, numbers: &[f32]) -> f32 {
    let (chunks, tail) = numbers.as_chunks::<LANES>();
    let mut lanes = simd.splat(f32::NEG_INFINITY);
    for chunk in chunks {
        lanes = simd.max(simd.load(chunk), lanes);
    }
    tail.iter().copied().fold(simd.highest(lanes), f32::max)
}

/// Multiplies every number by `factor`.
#[inline(always)]
pub(crate) fn scale<S: Simd>(simd: S, numbers: &mut [f32], factor: f32) {
    let lanes = simd.splat(factor);
    let (chunks, tail) = numbers.as_chunks_mut::<LANES>();
    for chunk in chunks {
        simd.store(simd.mul(simd.load(chunk), lanes), chunk);
    }
    for number in tail {
        *number *= factor;
    }
}

/// Replaces every score by `exp(score - highest)` and returns their sum.
#[inline(always)]
pub(crate) fn exponentiate<S: Simd>(simd: S, scores: &mut [f32], highest: f32) -> f32 {
    let highest = simd.splat(highest);
    let (chunks, tail) = scores.as_chunks_mut::<LANES>();
    let mut sums = simd.splat(0.0);
    for chunk in chunks {
        let weights = exp_at_most_0(simd, simd.sub(simd.load(chunk), highest));
        sums = simd.add(sums, weights);
        simd.store(weights, chunk);
    }
    if !tail.is_empty() {
        let mut part = [f32::NEG_INFINITY; LANES];
        part[..tail.len()].copy_from_slice(tail);
        let weights = exp_at_most_0(simd, simd.sub(simd.load(&part), highest));
        sums = simd.add(sums, weights);
        simd.store_part(weights, tail);
    }
    simd.sum(sums)
}

/// `exp(from - to)` for `from <= to`: the factor that brings weights relative to the score `from` to `to`.
#[inline(always)]
pub(crate) fn rescale<S: Simd>(simd: S, from: f32, to: f32) -> f32 {
    let mut factor = [from];
    exponentiate(simd, &mut factor, to);
    factor[0]
}

/// `exp(x)` for `x <= 0`, with a relative error below `f32::EPSILON`; 0 below -87, where `f32` would leave its normal range; NaN for NaN.
///
/// Straight arithmetic, so that it runs in lanes: `x = n * ln 2 + r` with whole `n` and `|r| <= ln 2 / 2`, a Taylor series for
/// `exp(r)` (its first missing term is below a tenth of a rounding error), and `2^n` put together from bits.
#[inline(always)]
pub(crate) fn exp_at_most_0<S: Simd>(simd: S, x: S::Lanes) -> S::Lanes {
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
    let round = simd.splat(ROUND);
    let rounded = simd.mul_add(x, simd.splat(std::f32::consts::LOG2_E), round);
    let n = simd.sub(rounded, round);
    let r = simd.mul_add(n, simd.splat(-LN_2_HIGH), x);
    let r = simd.mul_add(n, simd.splat(-LN_2_LOW), r);
    let mut exp_r = simd.splat(1.0 / 5040.0);
    for coefficient in TAYLOR {
        exp_r = simd.mul_add(exp_r, r, simd.splat(coefficient));
    }
    simd.zero_below(x, -87.0, simd.mul(exp_r, simd.power_of_2(rounded)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Op, SimdLevel};

    struct Exponentiate<'a>(&'a mut [f32], f32);

    impl Op for Exponentiate<'_> {
        type Output = f32;
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> f32 {
            exponentiate(simd, self.0, self.1)
        }
    }

    struct Highest<'a>(&'a [f32]);

    impl Op for Highest<'_> {
        type Output = f32;
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> f32 {
            highest(simd, self.0)
        }
    }

    #[test]
    fn exp_is_close_everywhere() {
        for level in SimdLevel::here() {
            let mut worst = 0.0_f64;
            for step in (0..=200_000_u32).step_by(LANES) {
                let x = |lane: u32| {
                    let step = (step + lane).min(200_000);
                    -87.0 * f32::from_bits(0x3f80_0000 | (step * 41)) + 87.0
                };
                let numbers: Vec<f32> = (0..16).map(x).collect();
                let mut weights = numbers.clone();
                level.run(Exponentiate(&mut weights, 0.0));
                for (x, got) in numbers.into_iter().zip(weights) {
                    assert!((-87.0..=0.0).contains(&x));
                    worst = worst.max((f64::from(got) / f64::from(x).exp() - 1.0).abs());
                }
            }
            assert!(
                worst < f64::from(f32::EPSILON),
                "{level}: relative error {worst:e}"
            );
        }
    }

    #[test]
    fn exp_at_the_ends() {
        for level in SimdLevel::here() {
            let mut ends = [0.0, -0.0, -87.1, f32::NEG_INFINITY, f32::MIN, f32::NAN];
            level.run(Exponentiate(&mut ends, 0.0));
            assert_eq!(ends[..5], [1.0, 1.0, 0.0, 0.0, 0.0], "{level}");
            assert!(ends[5].is_nan(), "{level}");
        }
    }

    /// In every lane, in the tail, and none.
    #[test]
    fn the_highest_is_found_anywhere() {
        for level in SimdLevel::here() {
            assert_eq!(level.run(Highest(&[])), f32::NEG_INFINITY);
            for len in [1, 15, 16, 17, 40] {
                for at in 0..len {
                    let mut numbers = vec![-3.0; len];
                    numbers[at] = -2.0;
                    assert_eq!(level.run(Highest(&numbers)), -2.0, "{level} {at} of {len}");
                    numbers[(at + 1) % len] = if len > 1 { f32::NAN } else { -2.0 };
                    assert_eq!(
                        level.run(Highest(&numbers)),
                        -2.0,
                        "{level} {at} of {len}, and a NaN"
                    );
                }
            }
        }
    }

    #[test]
    fn sums_at_every_length() {
        for level in SimdLevel::here() {
            for len in 0..50 {
                let mut scores = vec![2.0; len];
                assert_eq!(
                    level.run(Exponentiate(&mut scores, 2.0)),
                    len as f32,
                    "{level}"
                );
                assert_eq!(scores, vec![1.0; len]);
            }
        }
    }
}
