//! Which implementation this CPU gets.
use std::{env, fmt, sync::OnceLock};

use super::{Op, portable::Portable};
#[cfg(target_arch = "x86_64")]
use super::{avx2::Avx2, avx512::Avx512};

/// An instruction set that the kernels of this crate are compiled for, and that this CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimdLevel(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    Portable(Portable),
}

impl SimdLevel {
    /// What this CPU has, best first; never empty.
    #[must_use]
    pub fn here() -> Vec<Self> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            levels.extend(Avx512::detect().map(|token| Self(Level::Avx512(token))));
            levels.extend(Avx2::detect().map(|token| Self(Level::Avx2(token))));
        }
        levels.push(Self(Level::Portable(Portable)));
        levels
    }

    /// The name by which `HEADROOM_SIMD` asks for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(_) => "avx2",
            Level::Portable(_) => "portable",
        }
    }

    #[inline]
    pub(crate) fn run<O: Op>(self, op: O) -> O::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(token) => token.run(op),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(token) => token.run(op),
            Level::Portable(token) => op.run(token),
        }
    }
}

impl fmt::Display for SimdLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The instruction set that this process uses: the best that the CPU has, or the one that the environment variable `HEADROOM_SIMD`
/// names when the first kernel runs.
///
/// # Panics
///
/// Where `HEADROOM_SIMD` names one that this CPU has not.
pub fn simd_level() -> SimdLevel {
    static LEVEL: OnceLock<SimdLevel> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let here = SimdLevel::here();
        match env::var("HEADROOM_SIMD") {
            Err(_) => here[0],
            Ok(name) => {
                let found = here.iter().find(|level| level.name() == name);
                *found.unwrap_or_else(|| {
                    let names: Vec<&str> = here.iter().map(|level| level.name()).collect();
                    panic!(
                        "HEADROOM_SIMD is `{name}`, must be one of {}",
                        names.join(", ")
                    )
                })
            }
        }
    })
}

/// Runs a loop on what this CPU has.
#[inline]
pub(crate) fn dispatch<O: Op>(op: O) -> O::Output {
    simd_level().run(op)
}
