//! Integers.

use super::convert::extend;
use crate::op::{Compare, Int, PermuteMode};

/// The value with its sign.
fn signed(bits: u64, int: Int) -> i64 {
    extend(bits, int.bits, true) as i64
}

/// Upper half of the product.
pub(crate) fn mul_high(a: u64, b: u64, int: Int) -> u64 {
    let product = if int.signed {
        (i128::from(signed(a, int)) * i128::from(signed(b, int))) as u128
    } else {
        u128::from(a) * u128::from(b)
    };
    (product >> int.bits) as u64
}

/// All of the product, twice as wide.
pub(crate) fn mul_wide(a: u64, b: u64, int: Int) -> u64 {
    let product = if int.signed {
        signed(a, int).wrapping_mul(signed(b, int)) as u64
    } else {
        a.wrapping_mul(b)
    };
    extend(product, int.bits * 2, false)
}

/// Product of the low 24 bits, 48 bits long.
pub(crate) fn mul24(a: u64, b: u64, int: Int) -> u64 {
    let [a, b] = [a, b].map(|x| extend(x, 24, int.signed));
    a.wrapping_mul(b)
}

/// Quotient. All bits set for a division by 0, as the hardware has it.
pub(crate) fn div(a: u64, b: u64, int: Int) -> u64 {
    if int.signed {
        match signed(b, int) {
            0 => u64::MAX,
            b => signed(a, int).wrapping_div(b) as u64,
        }
    } else {
        a.checked_div(b).unwrap_or(u64::MAX)
    }
}

/// Remainder. The dividend for a division by 0.
pub(crate) fn rem(a: u64, b: u64, int: Int) -> u64 {
    if int.signed {
        match signed(b, int) {
            0 => a,
            b => signed(a, int).wrapping_rem(b) as u64,
        }
    } else {
        a.checked_rem(b).unwrap_or(a)
    }
}

pub(crate) fn less(a: u64, b: u64, int: Int) -> bool {
    if int.signed {
        signed(a, int) < signed(b, int)
    } else {
        a < b
    }
}

pub(crate) fn compare(compare: Compare, a: u64, b: u64, int: Int) -> bool {
    match compare {
        Compare::Eq | Compare::Equ => a == b,
        Compare::Ne | Compare::Neu => a != b,
        Compare::Lt | Compare::Ltu => less(a, b, int),
        Compare::Le | Compare::Leu => !less(b, a, int),
        Compare::Gt | Compare::Gtu => less(b, a, int),
        Compare::Ge | Compare::Geu => !less(a, b, int),
        Compare::Num => true,
        Compare::Nan => false,
    }
}

/// Sum or difference, held to the ends of the range.
pub(crate) fn saturating(a: u64, b: u64, int: Int, subtract: bool) -> u64 {
    let [a, b] = [a, b].map(|x| i128::from(signed(x, int)));
    let sum = if subtract { a - b } else { a + b };
    let end = 1_i128 << (int.bits - 1);
    sum.clamp(-end, end - 1) as u64
}

/// `|a - b| + c`.
pub(crate) fn sad(a: u64, b: u64, c: u64, int: Int) -> u64 {
    let difference = if less(a, b, int) {
        b.wrapping_sub(a)
    } else {
        a.wrapping_sub(b)
    };
    difference.wrapping_add(c)
}

pub(crate) fn shift_left(a: u64, by: u64, int: Int) -> u64 {
    if by >= u64::from(int.bits) {
        0
    } else {
        a << by
    }
}

pub(crate) fn shift_right(a: u64, by: u64, int: Int) -> u64 {
    let by = by.min(u64::from(int.bits));
    if int.signed {
        (signed(a, int) >> by.min(63)) as u64
    } else if by >= 64 {
        0
    } else {
        a >> by
    }
}

/// The upper or lower word of `b:a`, shifted.
pub(crate) fn funnel(a: u64, b: u64, by: u64, left: bool, clamp: bool) -> u64 {
    let by = if clamp { by.min(32) } else { by & 31 };
    let both = b << 32 | a;
    if left {
        // At 32 the lower word has moved up whole.
        (both << by) >> 32
    } else {
        both >> by
    }
}

/// Bit by bit, what the table says of the three bits.
pub(crate) fn lop3(a: u64, b: u64, c: u64, table: u8) -> u64 {
    let mut result = 0;
    for entry in 0..8 {
        if table >> entry & 1 == 1 {
            let pick = |x: u64, bit: u8| if entry >> bit & 1 == 1 { x } else { !x };
            result |= pick(a, 2) & pick(b, 1) & pick(c, 0);
        }
    }
    result
}

pub(crate) fn bitfield_extract(a: u64, start: u64, length: u64, int: Int) -> u64 {
    let (start, length) = (start & 0xFF, length & 0xFF);
    let width = u64::from(int.bits);
    if length == 0 {
        return 0;
    }
    let kept = length.min(width.saturating_sub(start));
    let field = if start >= width { 0 } else { a >> start };
    if !int.signed {
        return extend_or_zero(field, kept, false);
    }
    // Where the field ends beyond the number, its sign is the number's.
    let sign_at = (start + length - 1).min(width - 1);
    if a >> sign_at & 1 == 0 {
        extend_or_zero(field, kept, false)
    } else {
        let low = extend_or_zero(field, kept, false);
        if kept >= 64 {
            low
        } else {
            low | u64::MAX << kept
        }
    }
}

fn extend_or_zero(bits: u64, width: u64, signed: bool) -> u64 {
    if width == 0 {
        0
    } else {
        extend(bits, width as u8, signed)
    }
}

/// The low `length` bits of `a` in `b` from bit `start` on.
pub(crate) fn bitfield_insert(a: u64, b: u64, start: u64, length: u64, int: Int) -> u64 {
    let (start, length) = (start & 0xFF, length & 0xFF);
    if length == 0 || start >= u64::from(int.bits) {
        return b;
    }
    let ones = u64::MAX >> (64 - length.min(64));
    b & !(ones << start) | (a & ones) << start
}

/// Four bytes of `b:a`, each picked by four bits of `c`, the highest of which asks for the byte's sign.
pub(crate) fn permute(a: u64, b: u64, c: u64, mode: PermuteMode) -> u64 {
    let bytes = (b << 32 | a).to_le_bytes();
    let low = c & 3;
    let picks: [u64; 4] = match mode {
        PermuteMode::Index => [0, 4, 8, 12].map(|shift| c >> shift & 0xF),
        PermuteMode::Forward4 => [0, 1, 2, 3].map(|at| low + at),
        PermuteMode::Backward4 => [0, 7, 6, 5].map(|at| (low + at) & 7),
        PermuteMode::Replicate8 => [low; 4],
        PermuteMode::EdgeLeft => [0, 1, 2, 3].map(|at| low.max(at)),
        PermuteMode::EdgeRight => [0, 1, 2, 3].map(|at| low.min(at)),
        PermuteMode::Replicate16 => [0, 1, 0, 1].map(|at| (low & 1) * 2 + at),
    };
    let picked = picks.map(|pick| {
        let byte = bytes[(pick & 7) as usize];
        if pick & 8 == 0 {
            byte
        } else {
            (byte as i8 >> 7) as u8
        }
    });
    u64::from(u32::from_le_bytes(picked))
}

/// Number of the highest bit that differs from the sign, or how far up it would have to be shifted. All ones if there is none.
pub(crate) fn bit_find(a: u64, int: Int, shift: bool) -> u64 {
    let a = if int.signed && signed(a, int) < 0 {
        extend(!a, int.bits, false)
    } else {
        a
    };
    match a.checked_ilog2() {
        None => u64::from(u32::MAX),
        Some(at) if shift => u64::from(int.bits) - 1 - u64::from(at),
        Some(at) => u64::from(at),
    }
}
