//! `cvt`.

use super::float::{bound, canonical, flush};
use super::half::Half;
use super::round::{F32, whole, whole_odd};
use crate::op::{Convert, Rounding};
use crate::types::Type;

enum Value {
    Whole(i128),
    Float(f64),
}

/// The value of `bits` as a float.
pub(crate) fn float_value(bits: u64, ty: Type, ftz: bool) -> f64 {
    match ty {
        Type::F16 => f64::from(Half::F16.decode(bits as u16)),
        Type::Bf16 => f64::from(Half::Bf16.decode(bits as u16)),
        Type::F64 => f64::from_bits(bits),
        _ => {
            let value = f32::from_bits(bits as u32);
            f64::from(if ftz { flush(value) } else { value })
        }
    }
}

/// The low `width` bits as a number of that sign.
pub(crate) fn extend(bits: u64, width: u8, signed: bool) -> u64 {
    let unused = 64 - u32::from(width);
    if signed {
        ((bits << unused) as i64 >> unused) as u64
    } else {
        bits << unused >> unused
    }
}

/// The bits of the result.
pub(crate) fn convert(bits: u64, how: Convert) -> u64 {
    let value = if how.from.float() {
        Value::Float(float_value(bits, how.from, how.mode.ftz))
    } else {
        let value = extend(bits, how.from.bits(), how.from.signed());
        Value::Whole(if how.from.signed() {
            i128::from(value as i64)
        } else {
            i128::from(value)
        })
    };
    match (value, how.to.float()) {
        (Value::Whole(value), false) => {
            let value = if how.mode.sat {
                saturate(value, how.to)
            } else {
                value
            };
            extend(value as u64, how.to.bits(), false)
        }
        (Value::Float(value), false) => to_int(value, how),
        (Value::Whole(value), true) => match how.to {
            Type::F64 => (value as f64).to_bits(),
            _ => to_float(whole_odd(value), how, how.mode.rounding),
        },
        (Value::Float(value), true) if how.integral => {
            let value = whole(value, how.mode.rounding);
            to_float(value, how, Rounding::Nearest)
        }
        (Value::Float(value), true) => to_float(value, how, how.mode.rounding),
    }
}

/// The nearest value of the type.
fn saturate(value: i128, ty: Type) -> i128 {
    let bits = u32::from(ty.bits());
    let (low, high) = if ty.signed() {
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    } else {
        (0, (1 << bits) - 1)
    };
    value.clamp(low, high)
}

fn to_int(value: f64, how: Convert) -> u64 {
    let bits = how.to.bits();
    if value.is_nan() {
        // Zero, but only among the narrow types.
        let narrow = how.from != Type::F64 && bits != 64;
        return if narrow { 0 } else { 1 << (bits - 1) };
    }
    // A cast of a double stops at the ends of the range, which are beyond those of every type here.
    let value = whole(value, how.mode.rounding) as i128;
    extend(saturate(value, how.to) as u64, bits, false)
}

fn to_float(value: f64, how: Convert, rounding: Rounding) -> u64 {
    let value = bound(value, how.mode);
    match how.to {
        Type::F16 => u64::from(Half::F16.encode(value, rounding)),
        Type::Bf16 => u64::from(Half::Bf16.encode(value, rounding)),
        Type::F64 => value.to_bits(),
        _ => {
            let value = F32.round(value, rounding) as f32;
            canonical(if how.mode.ftz { flush(value) } else { value })
        }
    }
}

/// `cvt.f16x2.f32` and its like: `a` in the upper half.
pub(crate) fn convert_pair(a: u64, b: u64, how: Convert) -> u64 {
    let to = if how.to == Type::F16x2 {
        Type::F16
    } else {
        Type::Bf16
    };
    let how = Convert { to, ..how };
    convert(a, how) << 16 | convert(b, how)
}
