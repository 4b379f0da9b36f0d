//! Two-byte floats.

use super::round::{self, Format, add_odd, exponent, power_of_two};
use crate::op::{FloatMode, FloatOp, Rounding};

/// The NaN that arithmetic on two-byte floats makes.
const NAN: u16 = 0x7FFF;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    F16,
    Bf16,
}

impl Half {
    fn format(self) -> Format {
        match self {
            Self::F16 => round::F16,
            Self::Bf16 => round::BF16,
        }
    }

    /// The value of `bits`.
    pub(crate) fn decode(self, bits: u16) -> f32 {
        match self {
            Self::Bf16 => f32::from_bits(u32::from(bits) << 16),
            Self::F16 => decode_f16(bits),
        }
    }

    /// `value` rounded.
    pub(crate) fn encode(self, value: f64, rounding: Rounding) -> u16 {
        if value.is_nan() {
            return NAN;
        }
        let value = self.format().round(value, rounding);
        match self {
            Self::Bf16 => ((value as f32).to_bits() >> 16) as u16,
            Self::F16 => encode_f16(value),
        }
    }

    /// One operation on the lowest 16 bits of each source.
    pub(crate) fn operate(self, op: FloatOp, mode: FloatMode, sources: [u64; 3]) -> u16 {
        match op {
            FloatOp::Neg => return sources[0] as u16 ^ 0x8000,
            FloatOp::Abs => return sources[0] as u16 & 0x7FFF,
            _ => {}
        }
        let flush = |value: f64| {
            if mode.ftz && value.abs() < self.format().tiny() {
                0.0_f64.copysign(value)
            } else {
                value
            }
        };
        let [a, b, c] = sources.map(|bits| flush(f64::from(self.decode(bits as u16))));
        let result = flush(match op {
            FloatOp::Add => add_odd(a, b),
            FloatOp::Sub => add_odd(a, -b),
            FloatOp::Mul => a * b,
            FloatOp::Fma => add_odd(a * b, c),
            FloatOp::Min { nan } => super::float::min(a, b, nan),
            FloatOp::Max { nan } => -super::float::min(-a, -b, nan),
            FloatOp::CopySign => a.copysign(b),
            FloatOp::Ex2 => a.exp2(),
            FloatOp::Tanh => a.tanh(),
            _ => f64::NAN,
        });
        let result = super::float::bound(result, mode);
        self.encode(result, mode.rounding)
    }
}

fn decode_f16(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7FFF);
    let value = if magnitude >= 0x7C00 {
        f32::from_bits(magnitude << 13 | 0x7F80_0000)
    } else if magnitude >= 0x0400 {
        f32::from_bits((magnitude << 13) + ((127 - 15) << 23))
    } else {
        // Steps of 2^-24.
        magnitude as f32 * f32::from_bits((127 - 24) << 23)
    };
    f32::from_bits(value.to_bits() | sign)
}

/// Of a value that the format holds exactly.
fn encode_f16(value: f64) -> u16 {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let magnitude = value.abs();
    let bits = if magnitude == f64::INFINITY {
        0x7C00
    } else if magnitude < round::F16.tiny() {
        (magnitude * power_of_two(24)) as u16
    } else {
        let exponent = exponent(magnitude);
        let fraction = (magnitude * power_of_two(10 - exponent)) as u16 - 1024;
        ((exponent + 15) as u16) << 10 | fraction
    };
    sign | bits
}
