//! Sixteen numbers at a time, on whatever the CPU has.
//!
//! Every inner loop of this crate is written once, over [`Simd`]: sixteen lanes of `f32`. An implementation is a token that exists only
//! where the CPU has what it needs, found out when the program runs: `avx512` (one register), `avx2` (two, with FMA and F16C) and
//! `portable` (an array that the compiler turns into whatever the target has: SSE2 on x86-64, NEON on AArch64).
//!
//! # Bits
//!
//! The order of every addition is in the source: a sum over lanes is one fixed tree, the same in every implementation. Implementations
//! that round a multiply-add once give the same bits as each other; the portable one does so only where the target has such an
//! instruction.
//!
//! # Why not a library
//!
//! `pulp` and `wide` have no lanes of 16-bit floats, which are what a cache holds, so their loops would widen into a buffer first, and
//! that was what this replaced. The instructions needed are two dozen; they stand in one file for each instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod level;
mod math;
mod portable;
mod rows;

pub(crate) use level::dispatch;
pub use level::{SimdLevel, simd_level};
pub(crate) use math::{exponentiate, highest, rescale, scale};
pub(crate) use rows::{Rows, Scores, Weights, add_rows, score_rows};

/// Numbers that are worked on side by side.
pub(crate) const LANES: usize = 16;

/// A CPU that works on `LANES` numbers of `f32` at a time.
///
/// All methods are to be inlined into a function that is compiled for the instruction set: see `dispatch`.
pub trait Simd: Copy + Send + Sync {
    /// The lanes.
    type Lanes: Copy;
    /// Rows whose dot products with a few queries are summed at once: as many as the registers hold.
    const ROWS: usize;

    /// The same number in every lane.
    fn splat(self, number: f32) -> Self::Lanes;
    /// Sixteen numbers.
    fn load(self, from: &[f32; LANES]) -> Self::Lanes;
    /// The bits of 16 numbers of IEEE 754 half precision. Exact.
    fn load_f16(self, from: &[u16; LANES]) -> Self::Lanes;
    /// The upper halves of 16 numbers. Exact.
    fn load_bf16(self, from: &[u16; LANES]) -> Self::Lanes;
    /// As they stand.
    fn store(self, lanes: Self::Lanes, to: &mut [f32; LANES]);
    /// `a + b`.
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// `a - b`.
    fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// `a * b`.
    fn mul(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// The larger of each two; `b` where one is NaN.
    fn max(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// `a * b + c`, rounded once where the target can.
    fn mul_add(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes;
    /// `2^n` for numbers `n + 1.5 * 2^23`, `n` whole and in the range of normal exponents.
    fn power_of_2(self, biased: Self::Lanes) -> Self::Lanes;
    /// `number`, or 0 where `x < limit`.
    fn zero_below(self, x: Self::Lanes, limit: f32, number: Self::Lanes) -> Self::Lanes;
    /// Sums over the lanes of four at once, each by the same tree as [`Simd::sum`].
    fn sum_4(self, four: [Self::Lanes; 4]) -> [f32; 4];
    /// Asks for the cache line of `at` to be brought near.
    fn prefetch<T>(self, at: &T);

    /// The sum over the lanes: of every four neighbours `(0 + 2) + (1 + 3)`, and so of the four sums.
    #[inline(always)]
    fn sum(self, lanes: Self::Lanes) -> f32 {
        let zero = self.splat(0.0);
        self.sum_4([lanes, zero, zero, zero])[0]
    }

    /// The largest lane; NaNs are passed over.
    #[inline(always)]
    fn highest(self, lanes: Self::Lanes) -> f32 {
        let mut numbers = [0.0; LANES];
        self.store(lanes, &mut numbers);
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                numbers[lane] = numbers[lane].max(numbers[lane + width]);
            }
            width /= 2;
        }
        numbers[0]
    }

    /// As many lanes as there is room for.
    #[inline(always)]
    fn store_part(self, lanes: Self::Lanes, to: &mut [f32]) {
        let mut numbers = [0.0; LANES];
        self.store(lanes, &mut numbers);
        to.copy_from_slice(&numbers[..to.len()]);
    }
}

/// A loop that is compiled for each instruction set. `run` is to be `#[inline(always)]`, with all that it calls in its loops.
pub(crate) trait Op {
    /// What it returns.
    type Output;
    /// The loop.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}
