//! Literals.

use crate::syntax::Number;

/// The value of a literal without its sign: `12`, `0x1F`, `017`, `0b11`, `12U`, `0f3F800000`, `0d3FF0000000000000`, `1.5`.
pub(super) fn parse(text: &str) -> Option<Number> {
    let lower = text.to_ascii_lowercase();
    if let Some(bits) = lower.strip_prefix("0f") {
        return u32::from_str_radix(bits, 16).ok().map(Number::F32);
    }
    if let Some(bits) = lower.strip_prefix("0d") {
        return u64::from_str_radix(bits, 16).ok().map(Number::F64);
    }
    if lower.contains('.') {
        let value: f64 = lower.parse().ok()?;
        return Some(Number::F64(value.to_bits()));
    }
    let digits = lower.strip_suffix('u').unwrap_or(&lower);
    let (digits, radix) = if let Some(digits) = digits.strip_prefix("0x") {
        (digits, 16)
    } else if let Some(digits) = digits.strip_prefix("0b") {
        (digits, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (&digits[1..], 8)
    } else {
        (digits, 10)
    };
    u64::from_str_radix(digits, radix).ok().map(Number::Integer)
}

/// The number with its sign turned.
pub(super) fn negate(number: Number) -> Number {
    match number {
        Number::Integer(value) => Number::Integer(value.wrapping_neg()),
        Number::F32(bits) => Number::F32(bits ^ (1 << 31)),
        Number::F64(bits) => Number::F64(bits ^ (1 << 63)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        for (text, number) in [
            ("0", Number::Integer(0)),
            ("12U", Number::Integer(12)),
            ("0x1F", Number::Integer(31)),
            ("017", Number::Integer(15)),
            ("0b101", Number::Integer(5)),
            ("18446744073709551615", Number::Integer(u64::MAX)),
            ("0f3F800000", Number::F32(0x3F80_0000)),
            ("0dBFF0000000000000", Number::F64(0xBFF0_0000_0000_0000)),
            ("0.5", Number::F64(0x3FE0_0000_0000_0000)),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        for text in ["0fxyz", "12ab", "09", "18446744073709551616"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(negate(Number::Integer(1)), Number::Integer(u64::MAX));
    }
}
