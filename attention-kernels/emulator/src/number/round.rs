//! Rounding to fewer bits.
//!
//! Sums that do not fit a double are rounded to odd first: the last bit is set where anything was lost. With two bits to spare, a
//! second rounding, of whatever direction, then gives what one rounding of the true value would have given.

use crate::op::Rounding;

/// A binary format with `precision` bits, the hidden one among them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Format {
    precision: i32,
    /// Exponent of the smallest normal number.
    lowest: i32,
    /// Largest finite number.
    max: f64,
}

pub(crate) const F32: Format = Format {
    precision: 24,
    lowest: -126,
    max: f32::MAX as f64,
};

pub(crate) const F16: Format = Format {
    precision: 11,
    lowest: -14,
    max: 65504.0,
};

pub(crate) const BF16: Format = Format {
    precision: 8,
    lowest: -126,
    max: 3.389_531_389_251_535_5e38,
};

impl Format {
    /// Smallest normal number.
    pub(crate) fn tiny(self) -> f64 {
        power_of_two(self.lowest)
    }

    /// `value` in the format's precision. Exact, zero, infinite and NaN values stay as they are.
    pub(crate) fn round(self, value: f64, rounding: Rounding) -> f64 {
        if value == 0.0 || !value.is_finite() {
            return value;
        }
        let quantum = exponent(value).max(self.lowest) - (self.precision - 1);
        // Both products only move the exponent.
        let rounded = whole(value * power_of_two(-quantum), rounding) * power_of_two(quantum);
        if rounded.abs() <= self.max {
            return rounded;
        }
        let to_infinity = match rounding {
            Rounding::Nearest => true,
            Rounding::Zero => false,
            Rounding::Down => value < 0.0,
            Rounding::Up => value > 0.0,
        };
        let magnitude = if to_infinity { f64::INFINITY } else { self.max };
        magnitude.copysign(value)
    }
}

/// `value` as a whole number.
pub(crate) fn whole(value: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => value.round_ties_even(),
        Rounding::Zero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
    }
}

/// `2^exponent` of a normal double.
pub(crate) fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// Exponent of the leading bit; -1023 for every subnormal double.
pub(crate) fn exponent(value: f64) -> i32 {
    ((value.to_bits() >> 52) & 0x7FF) as i32 - 1023
}

/// `sum` moved to the odd neighbour on the side of `lost`, which is what `sum` is short of the true value.
fn to_odd(sum: f64, lost: f64) -> f64 {
    if lost == 0.0 || lost.is_nan() || !sum.is_finite() || sum.to_bits() & 1 == 1 {
        return sum;
    }
    let bits = sum.to_bits();
    f64::from_bits(if (lost > 0.0) == (sum > 0.0) {
        bits + 1
    } else {
        bits - 1
    })
}

/// `a + b` rounded to odd. Exact unless the exponents lie far apart.
pub(crate) fn add_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let b_part = sum - a;
    let lost = (a - (sum - b_part)) + (b - b_part);
    to_odd(sum, lost)
}

/// A whole number as a double, rounded to odd.
pub(crate) fn whole_odd(value: i128) -> f64 {
    let near = value as f64;
    to_odd(near, (value - near as i128) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_f32_is_the_cast() {
        for bits in (0..u64::MAX).step_by(0x0003_1415_9265_3589) {
            let value = f64::from_bits(bits);
            let rounded = F32.round(value, Rounding::Nearest);
            if !value.is_nan() && exponent(value) > -200 {
                assert_eq!(
                    rounded.to_bits(),
                    f64::from(value as f32).to_bits(),
                    "{value:e}"
                );
            }
        }
    }

    #[test]
    fn directions() {
        let third = 1.0 / 3.0;
        let down = F32.round(third, Rounding::Down);
        let up = F32.round(third, Rounding::Up);
        assert_eq!((up as f32).to_bits() - (down as f32).to_bits(), 1);
        assert_eq!(F32.round(-third, Rounding::Zero), -down);
        assert_eq!(F32.round(-third, Rounding::Down), -up);
        assert_eq!(F16.round(1e6, Rounding::Nearest), f64::INFINITY);
        assert_eq!(F16.round(1e6, Rounding::Zero), 65504.0);
        assert_eq!(F16.round(-1e6, Rounding::Up), -65504.0);
    }

    #[test]
    fn what_is_lost_shows_in_the_last_bit() {
        assert_eq!(add_odd(1.0, 1e-30).to_bits(), 1.0_f64.to_bits() + 1);
        assert_eq!(add_odd(1.0, -1e-30).to_bits(), 1.0_f64.to_bits() - 1);
        assert_eq!(add_odd(1.0, 0.5), 1.5);
        assert_eq!(
            whole_odd((1 << 60) + 1).to_bits(),
            (2_f64.powi(60)).to_bits() + 1
        );
    }
}
