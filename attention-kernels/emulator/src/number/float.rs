//! Floats of 32 and 64 bits.

use super::round::{F32, add_odd};
use crate::op::{Compare, FloatMode, FloatOp, FloatTest, Rounding};

/// The NaN that arithmetic on floats of 32 bits makes.
const NAN: u32 = 0x7FFF_FFFF;

/// Zero of the same sign for a subnormal number.
pub(crate) fn flush(value: f32) -> f32 {
    if value.is_subnormal() {
        0.0_f32.copysign(value)
    } else {
        value
    }
}

/// Bits of a result: every NaN becomes the one that the hardware makes.
pub(crate) fn canonical(value: f32) -> u64 {
    u64::from(if value.is_nan() { NAN } else { value.to_bits() })
}

/// The smaller one; the other one if one is NaN, or NaN with `nan`. Negative zero is smaller than zero.
pub(crate) fn min(a: f64, b: f64, nan: bool) -> f64 {
    if a.is_nan() || b.is_nan() {
        return match (nan, a.is_nan()) {
            (true, _) => f64::NAN,
            (false, true) => b,
            (false, false) => a,
        };
    }
    if a < b || (a == b && a.is_sign_negative()) {
        a
    } else {
        b
    }
}

/// `.sat` and `.relu`.
pub(crate) fn bound(value: f64, mode: FloatMode) -> f64 {
    if mode.sat {
        // Negative zero becomes zero, and NaN too.
        return if value > 0.0 { value.min(1.0) } else { 0.0 };
    }
    if mode.relu && value <= 0.0 {
        0.0
    } else {
        value
    }
}

/// One operation on floats of 32 bits, with whatever rounding and bounds.
pub(crate) fn operate(op: FloatOp, mode: FloatMode, sources: [u64; 3]) -> u64 {
    // These move bits and leave NaN alone.
    match op {
        FloatOp::CopySign => {
            return (sources[0] & 0x7FFF_FFFF) | (sources[1] & 0x8000_0000);
        }
        FloatOp::Neg | FloatOp::Abs if !mode.ftz => {
            let sign = sources[0] & 0x8000_0000;
            let sign = if op == FloatOp::Neg {
                sign ^ 0x8000_0000
            } else {
                0
            };
            return (sources[0] & 0x7FFF_FFFF) | sign;
        }
        _ => {}
    }
    let [a, b, c] = sources.map(|bits| {
        let value = f32::from_bits(bits as u32);
        if mode.ftz { flush(value) } else { value }
    });
    let result = if mode.rounding == Rounding::Nearest {
        nearest(op, a, b, c)
    } else {
        directed(op, mode.rounding, a, b, c)
    };
    let result = if mode.ftz { flush(result) } else { result };
    let result = if mode.sat || mode.relu {
        bound(f64::from(result), mode) as f32
    } else {
        result
    };
    canonical(result)
}

fn nearest(op: FloatOp, a: f32, b: f32, c: f32) -> f32 {
    let wide = |function: fn(f64) -> f64| function(f64::from(a)) as f32;
    match op {
        FloatOp::Add => a + b,
        FloatOp::Sub => a - b,
        FloatOp::Mul => a * b,
        FloatOp::Fma => a.mul_add(b, c),
        FloatOp::Div => a / b,
        FloatOp::Rcp => 1.0 / a,
        FloatOp::Sqrt => a.sqrt(),
        FloatOp::Rsqrt => wide(|a| 1.0 / a.sqrt()),
        FloatOp::Min { nan } => min(f64::from(a), f64::from(b), nan) as f32,
        FloatOp::Max { nan } => -(min(f64::from(-a), f64::from(-b), nan) as f32),
        FloatOp::Neg => -a,
        FloatOp::Abs => a.abs(),
        FloatOp::CopySign => a.copysign(b),
        FloatOp::Ex2 => wide(f64::exp2),
        FloatOp::Lg2 => wide(f64::log2),
        FloatOp::Sin => wide(f64::sin),
        FloatOp::Cos => wide(f64::cos),
        FloatOp::Tanh => wide(f64::tanh),
    }
}

/// Products of two floats are exact in a double, and sums rounded to odd can be rounded again.
fn directed(op: FloatOp, rounding: Rounding, a: f32, b: f32, c: f32) -> f32 {
    let [a, b, c] = [a, b, c].map(f64::from);
    let (exact, terms) = match op {
        FloatOp::Add => (add_odd(a, b), [a, b]),
        FloatOp::Sub => (add_odd(a, -b), [a, -b]),
        FloatOp::Mul => (a * b, [a * b; 2]),
        FloatOp::Fma => (add_odd(a * b, c), [a * b, c]),
        _ => return f32::NAN,
    };
    if exact == 0.0 && rounding == Rounding::Down && terms[0] == -terms[1] {
        // Terms that cancel give negative zero when rounding down.
        let both_positive = terms
            .iter()
            .all(|term| *term == 0.0 && term.is_sign_positive());
        return if both_positive { 0.0 } else { -0.0 };
    }
    F32.round(exact, rounding) as f32
}

/// One operation on floats of 64 bits.
pub(crate) fn operate_double(op: FloatOp, sources: [u64; 3]) -> u64 {
    let [a, b, c] = sources.map(f64::from_bits);
    let result = match op {
        FloatOp::Add => a + b,
        FloatOp::Sub => a - b,
        FloatOp::Mul => a * b,
        FloatOp::Fma => a.mul_add(b, c),
        FloatOp::Div => a / b,
        FloatOp::Rcp => 1.0 / a,
        FloatOp::Sqrt => a.sqrt(),
        FloatOp::Rsqrt => 1.0 / a.sqrt(),
        FloatOp::Min { nan } => min(a, b, nan),
        FloatOp::Max { nan } => -min(-a, -b, nan),
        FloatOp::Neg => -a,
        FloatOp::Abs => a.abs(),
        FloatOp::CopySign => a.copysign(b),
        FloatOp::Ex2 => a.exp2(),
        FloatOp::Lg2 => a.log2(),
        FloatOp::Sin => a.sin(),
        FloatOp::Cos => a.cos(),
        FloatOp::Tanh => a.tanh(),
    };
    result.to_bits()
}

/// A comparison of floats.
pub(crate) fn compare(compare: Compare, a: f64, b: f64) -> bool {
    let nan = a.is_nan() || b.is_nan();
    match compare {
        Compare::Eq => a == b,
        // The ordered one: false with NaN.
        Compare::Ne => !nan && a != b,
        Compare::Lt => a < b,
        Compare::Le => a <= b,
        Compare::Gt => a > b,
        Compare::Ge => a >= b,
        Compare::Equ => nan || a == b,
        Compare::Neu => nan || a != b,
        Compare::Ltu => nan || a < b,
        Compare::Leu => nan || a <= b,
        Compare::Gtu => nan || a > b,
        Compare::Geu => nan || a >= b,
        Compare::Num => !nan,
        Compare::Nan => nan,
    }
}

/// `testp`; `subnormal` and `normal` are of the value's own width.
pub(crate) fn test(test: FloatTest, value: f64, subnormal: bool) -> bool {
    match test {
        FloatTest::Finite => value.is_finite(),
        FloatTest::Infinite => value.is_infinite(),
        FloatTest::Number => !value.is_nan(),
        FloatTest::NotANumber => value.is_nan(),
        FloatTest::Normal => value.is_finite() && value != 0.0 && !subnormal,
        FloatTest::Subnormal => subnormal,
    }
}
