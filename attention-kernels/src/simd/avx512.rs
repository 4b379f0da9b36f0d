//! Lanes as one register of 512 bits.
#![expect(
    unsafe_code,
    reason = "the instructions of an instruction set are unsafe to call where the CPU might not have it; loads and stores take pointers"
)]
use std::arch::x86_64::*;

use super::{LANES, Op, Simd};

/// The CPU has AVX-512F.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }

    #[inline]
    pub(crate) fn run<O: Op>(self, op: O) -> O::Output {
        #[target_feature(enable = "avx512f,avx2,fma,f16c")]
        fn run<O: Op>(token: Avx512, op: O) -> O::Output {
            op.run(token)
        }
        // SAFETY: a token exists only where the CPU has AVX-512F, which no CPU has without the others.
        unsafe { run(self, op) }
    }
}

/// The four 128-bit quarters of sums of two lanes each, added.
#[inline(always)]
fn add_quarters(lanes: __m512) -> [f32; 4] {
    // SAFETY: called with a token only.
    unsafe {
        let low = _mm512_castps512_ps256(lanes);
        let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes)));
        let halves = _mm256_add_ps(low, high);
        let quarters = _mm_add_ps(
            _mm256_castps256_ps128(halves),
            _mm256_extractf128_ps::<1>(halves),
        );
        let mut sums = [0.0; 4];
        _mm_storeu_ps(sums.as_mut_ptr(), quarters);
        sums
    }
}

// SAFETY, for every block below: a token exists only where the CPU has the instructions, and pointers come from references to as many
// numbers as are read or written.
impl Simd for Avx512 {
    type Lanes = __m512;
    const ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, number: f32) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_set1_ps(number) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u16; LANES]) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    fn store(self, lanes: __m512, to: &mut [f32; LANES]) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), lanes) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn power_of_2(self, biased: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_castps_si512(biased), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        }
    }

    #[inline(always)]
    fn zero_below(self, x: __m512, limit: f32, number: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let stays = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(limit));
            _mm512_maskz_mov_ps(stays, number)
        }
    }

    #[inline(always)]
    fn sum_4(self, [a, b, c, d]: [__m512; 4]) -> [f32; 4] {
        // SAFETY: as above.
        let lanes = unsafe {
            // Of every quarter: a0 + a2, b0 + b2, a1 + a3, b1 + b3, and so for c and d.
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            _mm512_add_ps(
                _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd),
                _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd),
            )
        };
        add_quarters(lanes)
    }

    #[inline(always)]
    fn prefetch<T>(self, at: &T) {
        // SAFETY: as above; a prefetch reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).cast()) }
    }
}
