//! From dot products to scores, for every op that attends.

use crate::KernelError;
use crate::simd::{Simd, scale};

/// How a dot product becomes a score.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scoring {
    pub(crate) scale: f32,
    pub(crate) softcap: Option<f32>,
}

impl Scoring {
    pub(crate) fn check(self) -> Result<(), KernelError> {
        let Self { scale, softcap } = self;
        if !scale.is_finite() {
            return Err(KernelError::ScaleOutOfRange { scale });
        }
        if let Some(softcap) = softcap
            && !(softcap.is_finite() && softcap > 0.0)
        {
            return Err(KernelError::SoftcapOutOfRange { softcap });
        }
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, simd: S, dots: &mut [f32]) {
        scale(simd, dots, self.scale);
        if let Some(cap) = self.softcap {
            for score in dots {
                *score = cap * (*score / cap).tanh();
            }
        }
    }
}
