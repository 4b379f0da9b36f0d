//! Lanes as an array: the compiler turns the loops into whatever the target has.
use half::{bf16, f16};

use super::{LANES, Simd};

/// Needs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Portable;

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

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    for (index, lane) in lanes.iter_mut().enumerate() {
        *lane = f(index);
    }
    lanes
}

#[inline(always)]
fn sum(lanes: &[f32; LANES]) -> f32 {
    let four = |at: usize| (lanes[at] + lanes[at + 2]) + (lanes[at + 1] + lanes[at + 3]);
    (four(0) + four(8)) + (four(4) + four(12))
}

impl Simd for Portable {
    type Lanes = [f32; LANES];
    const ROWS: usize = 2;

    #[inline(always)]
    fn splat(self, number: f32) -> Self::Lanes {
        [number; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::Lanes {
        *from
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::Lanes {
        each(|lane| f16::from_bits(from[lane]).to_f32())
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Self::Lanes {
        each(|lane| bf16::from_bits(from[lane]).to_f32())
    }

    #[inline(always)]
    fn store(self, lanes: Self::Lanes, to: &mut [f32; LANES]) {
        *to = lanes;
    }

    #[inline(always)]
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        each(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        each(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn mul(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        each(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn max(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        each(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
        each(|lane| multiply_add(a[lane], b[lane], c[lane]))
    }

    #[inline(always)]
    fn power_of_2(self, biased: Self::Lanes) -> Self::Lanes {
        // The exponent field of 2^n is n + 127; the shift drops what is left of the bias.
        each(|lane| f32::from_bits(biased[lane].to_bits().wrapping_add(127) << 23))
    }

    #[inline(always)]
    fn zero_below(self, x: Self::Lanes, limit: f32, number: Self::Lanes) -> Self::Lanes {
        each(|lane| if x[lane] < limit { 0.0 } else { number[lane] })
    }

    #[inline(always)]
    fn sum_4(self, four: [Self::Lanes; 4]) -> [f32; 4] {
        [sum(&four[0]), sum(&four[1]), sum(&four[2]), sum(&four[3])]
    }

    #[inline(always)]
    fn prefetch<T>(self, _at: &T) {}
}
