//! Element types that a store can hold.
//!
//! Arithmetic is always `f32`; the element type only says how K and V lie in memory. Every number of the two types of 16 bits is
//! an `f32` too, so reading is exact and only writing rounds.

use std::fmt;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// How one number of K or V lies in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KvDtype {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision. Rounding is to nearest, ties to even; magnitudes from 65520 on become infinite.
    F16,
    /// The upper half of an `f32`: its range, and 8 bits of precision. Rounding is to nearest, ties to even.
    Bf16,
}

impl KvDtype {
    /// Bytes of one element.
    #[must_use]
    pub const fn size_in_bytes(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::F16 => size_of::<f16>(),
            Self::Bf16 => size_of::<bf16>(),
        }
    }
}

/// A text that is the name of no [`KvDtype`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` must be f16, bf16 or f32")]
pub struct UnknownDtype(pub String);

impl std::str::FromStr for KvDtype {
    type Err = UnknownDtype;

    fn from_str(name: &str) -> Result<Self, UnknownDtype> {
        [Self::F32, Self::F16, Self::Bf16]
            .into_iter()
            .find(|dtype| dtype.to_string() == name)
            .ok_or_else(|| UnknownDtype(name.into()))
    }
}

impl fmt::Display for KvDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

mod sealed {
    use half::{bf16, f16};

    use crate::simd::{LANES, Simd};

    /// What the kernels' inner loops need of an element.
    pub trait Sealed: Copy {
        /// Sixteen of them as `f32`.
        fn load<S: Simd>(simd: S, from: &[Self; LANES]) -> S::Lanes;
    }

    impl Sealed for f32 {
        #[inline(always)]
        fn load<S: Simd>(simd: S, from: &[Self; LANES]) -> S::Lanes {
            simd.load(from)
        }
    }

    /// The bits, which the slice of bits is anyway.
    macro_rules! half {
        ($type:ty, $load:ident) => {
            impl Sealed for $type {
                #[inline(always)]
                fn load<S: Simd>(simd: S, from: &[Self; LANES]) -> S::Lanes {
                    simd.$load(&from.map(<$type>::to_bits))
                }
            }
        };
    }
    half!(f16, load_f16);
    half!(bf16, load_bf16);
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
    #[inline]
    fn as_f32<'a>(elements: &'a [Self], scratch: &'a mut [f32]) -> &'a [f32] {
        let values = &mut scratch[..elements.len()];
        Self::widen(elements, values);
        values
    }
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
}

impl Element for bf16 {
    const DTYPE: KvDtype = KvDtype::Bf16;

    fn narrow(values: &[f32], elements: &mut [Self]) {
        elements.convert_from_f32_slice(values);
    }

    /// A plain shift of bits. `half` looks at every element for a NaN, with which attention takes 1.6 times as long.
    fn widen(elements: &[Self], values: &mut [f32]) {
        assert_eq!(elements.len(), values.len(), "as many values as elements");
        for (value, element) in values.iter_mut().zip(elements) {
            *value = f32::from_bits(u32::from(element.to_bits()) << 16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes() {
        assert_eq!(format!("{} {:>4}", KvDtype::F32, KvDtype::F16), "f32  f16");
        assert_eq!(KvDtype::Bf16.to_string(), "bf16");
        for dtype in [KvDtype::F32, KvDtype::F16, KvDtype::Bf16] {
            assert_eq!(dtype.to_string().parse(), Ok(dtype));
        }
        assert_eq!("q8".parse::<KvDtype>(), Err(UnknownDtype("q8".into())));
        assert_eq!(KvDtype::F32.size_in_bytes(), 4);
        assert_eq!(KvDtype::F16.size_in_bytes(), 2);
        assert_eq!(KvDtype::Bf16.size_in_bytes(), 2);
        assert_eq!((f32::DTYPE, f16::DTYPE), (KvDtype::F32, KvDtype::F16));
        assert_eq!(bf16::DTYPE, KvDtype::Bf16);
    }

    /// At every length, so that the vectorised body and the scalar tail of the conversion are both met.
    fn rounds<E: Element>(one: E, numbers: &[f32], rounded: &[f32]) {
        for len in 0..40 {
            let cycle = |of: &[f32]| -> Vec<f32> { of.iter().copied().cycle().take(len).collect() };
            let (values, wanted) = (cycle(numbers), cycle(rounded));
            let mut stored = vec![one; len];
            E::narrow(&values, &mut stored);
            let mut widened = vec![1.0; len];
            E::widen(&stored, &mut widened);
            let mut scratch = vec![1.0; len + 3];
            assert_eq!(E::as_f32(&stored, &mut scratch), widened);
            for (got, want) in widened.iter().zip(wanted) {
                assert_eq!(got.to_bits(), want.to_bits());
            }
        }
    }

    #[test]
    fn f16_rounds_to_nearest_even() {
        // 2049 lies halfway between 2048 and 2050, 2051 halfway between 2050 and 2052.
        let ties = [2049.0_f32, 2051.0, 65519.0, 65520.0, -0.0];
        let rounded = [2048.0, 2052.0, 65504.0, f32::INFINITY, -0.0];
        rounds(f16::ONE, &ties, &rounded);
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        // 257 lies halfway between 256 and 258, 259 halfway between 258 and 260; the last finite number is 2^128 - 2^120.
        let ties = [257.0_f32, 259.0, 65520.0, f32::MAX, -0.0, 257.000_03];
        let rounded = [256.0, 260.0, 65536.0, f32::INFINITY, -0.0, 258.0];
        rounds(bf16::ONE, &ties, &rounded);
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
