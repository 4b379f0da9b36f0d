//! Lanes as two registers of 256 bits.
#![expect(
    unsafe_code,
    reason = "the instructions of an instruction set are unsafe to call where the CPU might not have it; loads and stores take pointers"
)]
use std::arch::x86_64::*;

use super::{LANES, Op, Simd};

/// The CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        let has_all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has_all.then_some(Self(()))
    }

    #[inline]
    pub(crate) fn run<O: Op>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn run<O: Op>(token: Avx2, op: O) -> O::Output {
            op.run(token)
        }
        // SAFETY: a token exists only where the CPU has the three.
        unsafe { run(self, op) }
    }
}

/// Lanes 0 to 7, lanes 8 to 15.
type Halves = [__m256; 2];

/// Of two times four numbers the sums of each two, `0 + 2` and `1 + 3`, added: `[a, b, c, d]` of the lower four and of the higher.
#[inline(always)]
fn sum_4_of_8([a, b, c, d]: [__m256; 4]) -> __m256 {
    // SAFETY: called with a token only.
    unsafe {
        let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        _mm256_add_ps(
            _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd),
            _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd),
        )
    }
}

// SAFETY, for every block below: a token exists only where the CPU has the instructions, and pointers come from references to as many
// numbers as are read or written.
impl Simd for Avx2 {
    type Lanes = Halves;
    const ROWS: usize = 2;

    #[inline(always)]
    fn splat(self, number: f32) -> Halves {
        // SAFETY: as above.
        unsafe { [_mm256_set1_ps(number); 2] }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Halves {
        // SAFETY: as above.
        unsafe {
            [
                _mm256_loadu_ps(from.as_ptr()),
                _mm256_loadu_ps(from[8..].as_ptr()),
            ]
        }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Halves {
        // SAFETY: as above.
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(from[8..].as_ptr().cast())),
            ]
        }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> Halves {
        // SAFETY: as above.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from[8..].as_ptr().cast()));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ]
        }
    }

    #[inline(always)]
    fn store(self, [low, high]: Halves, to: &mut [f32; LANES]) {
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), low);
            _mm256_storeu_ps(to[8..].as_mut_ptr(), high);
        }
    }

    #[inline(always)]
    fn add(self, a: Halves, b: Halves) -> Halves {
        // SAFETY: as above.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn sub(self, a: Halves, b: Halves) -> Halves {
        // SAFETY: as above.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul(self, a: Halves, b: Halves) -> Halves {
        // SAFETY: as above.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn max(self, a: Halves, b: Halves) -> Halves {
        // SAFETY: as above.
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul_add(self, a: Halves, b: Halves, c: Halves) -> Halves {
        // SAFETY: as above.
        unsafe {
            [
                _mm256_fmadd_ps(a[0], b[0], c[0]),
                _mm256_fmadd_ps(a[1], b[1], c[1]),
            ]
        }
    }

    #[inline(always)]
    fn power_of_2(self, biased: Halves) -> Halves {
        // SAFETY: as above.
        let power = |half| unsafe {
            let exponent = _mm256_add_epi32(_mm256_castps_si256(half), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        };
        [power(biased[0]), power(biased[1])]
    }

    #[inline(always)]
    fn zero_below(self, x: Halves, limit: f32, number: Halves) -> Halves {
        // SAFETY: as above.
        let zero = |x, number| unsafe {
            let stays = _mm256_cmp_ps::<_CMP_NLT_UQ>(x, _mm256_set1_ps(limit));
            _mm256_and_ps(stays, number)
        };
        [zero(x[0], number[0]), zero(x[1], number[1])]
    }

    #[inline(always)]
    fn sum_4(self, [a, b, c, d]: [Halves; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        // SAFETY: as above.
        unsafe {
            let halves = _mm256_add_ps(
                sum_4_of_8([a[0], b[0], c[0], d[0]]),
                sum_4_of_8([a[1], b[1], c[1], d[1]]),
            );
            let quarters = _mm_add_ps(
                _mm256_castps256_ps128(halves),
                _mm256_extractf128_ps::<1>(halves),
            );
            _mm_storeu_ps(sums.as_mut_ptr(), quarters);
        }
        sums
    }

    #[inline(always)]
    fn prefetch<T>(self, at: &T) {
        // SAFETY: as above; a prefetch reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).cast()) }
    }
}
