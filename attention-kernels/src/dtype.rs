//! Element types that a store can hold.
//!
//! Arithmetic is always `f32`; the element type only says how K and V lie in memory. bf16 is missing on purpose: the KV
//! caches that the engine makes on a CPU are `f32` or `f16`, and a type nobody stores would be a type nobody tests.

use std::fmt;

use half::f16;
use half::slice::HalfFloatSliceExt;

/// How one number of K or V lies in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KvDtype {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision. Rounding is to nearest, ties to even; magnitudes from 65520 on become infinite.
    F16,
}

impl KvDtype {
    /// Bytes of one element.
    #[must_use]
    pub const fn size_in_bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::F16 => size_of::<f16>(),
        }
    }
}

impl fmt::Display for KvDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        })
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::f16 {}
}

/// A Rust type that is the element of a [`KvDtype`]. Sealed: the set of types is this crate's.
pub trait Element: sealed::Sealed + Copy + fmt::Debug + Send + Sync + 'static {
    /// The type's name at run time.
    const DTYPE: KvDtype;

    /// Stores `values` as `Self`, rounding to nearest, ties to even.
    ///
    /// # Panics
    ///
    /// Where the two slices differ in length.
    fn narrow(values: &[f32], elements: &mut [Self]);

    /// Reads `elements` as `f32`. Exact.
    ///
    /// # Panics
    ///
    /// Where the two slices differ in length.
    fn widen(elements: &[Self], values: &mut [f32]);

    /// `elements` as `f32`: the slice itself where it is one already, or else widened into the front of `scratch`.
    ///
    /// # Panics
    ///
    /// Where a conversion is needed and `scratch` is shorter than `elements`.
    fn as_f32<'a>(elements: &'a [Self], scratch: &'a mut [f32]) -> &'a [f32];
}

impl Element for f32 {
    const DTYPE: KvDtype = KvDtype::F32;

    fn narrow(values: &[f32], elements: &mut [Self]) {
        elements.copy_from_slice(values);
    }

    fn widen(elements: &[Self], values: &mut [f32]) {
        values.copy_from_slice(elements);
    }

    #[inline]
    fn as_f32<'a>(elements: &'a [Self], _scratch: &'a mut [f32]) -> &'a [f32] {
        elements
    }
}

impl Element for f16 {
    const DTYPE: KvDtype = KvDtype::F16;

    fn narrow(values: &[f32], elements: &mut [Self]) {
        elements.convert_from_f32_slice(values);
    }

    fn widen(elements: &[Self], values: &mut [f32]) {
        elements.convert_to_f32_slice(values);
    }

    #[inline]
    fn as_f32<'a>(elements: &'a [Self], scratch: &'a mut [f32]) -> &'a [f32] {
        let values = &mut scratch[..elements.len()];
        elements.convert_to_f32_slice(values);
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes() {
        assert_eq!(format!("{} {:>4}", KvDtype::F32, KvDtype::F16), "f32  f16");
        assert_eq!(KvDtype::F32.size_in_bytes(), 4);
        assert_eq!(KvDtype::F16.size_in_bytes(), 2);
        assert_eq!((f32::DTYPE, f16::DTYPE), (KvDtype::F32, KvDtype::F16));
    }

    /// Every length, so that the vectorised body and the scalar tail of the conversion are both met.
    #[test]
    fn f16_rounds_to_nearest_even_at_every_length() {
        // 2049 lies halfway between 2048 and 2050, 2051 halfway between 2050 and 2052.
        let ties = [2049.0_f32, 2051.0, 65519.0, 65520.0, -0.0];
        let rounded = [2048.0, 2052.0, 65504.0, f32::INFINITY, -0.0];
        for len in 0..40 {
            let values: Vec<f32> = (0..len).map(|i| ties[i % ties.len()]).collect();
            let mut stored = vec![f16::ONE; len];
            f16::narrow(&values, &mut stored);
            let mut widened = vec![1.0; len];
            f16::widen(&stored, &mut widened);
            let mut scratch = vec![1.0; len + 3];
            assert_eq!(f16::as_f32(&stored, &mut scratch), widened);
            for (i, value) in widened.iter().enumerate() {
                assert_eq!(value.to_bits(), f32::to_bits(rounded[i % rounded.len()]));
            }
        }
    }

    #[test]
    fn f32_passes_through() {
        let values = [1.5_f32, -2.0, f32::MIN_POSITIVE];
        let mut stored = [0.0; 3];
        f32::narrow(&values, &mut stored);
        assert_eq!(f32::as_f32(&stored, &mut []), values);
        let mut widened = [0.0; 3];
        f32::widen(&stored, &mut widened);
        assert_eq!(widened, values);
    }
}
