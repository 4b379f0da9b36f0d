//! Instructions that touch nothing but registers.

use super::warp::{Lanes, Warp, lanes};
use super::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW};
use crate::number::convert::{convert, convert_pair, extend, float_value};
use crate::number::{float, half::Half, int};
use crate::op::{
    Combine, Compare, CompareType, Convert, FloatMode, FloatOp, Inst, Int, IntOp, LogicOp, NONE,
    Op, Pieces, Rounding,
};
use crate::program::Program;
use crate::types::{Space, Type};

/// Sets row `d` to `f` of rows `a`, `b`, `c` in the lanes of `mask`. A source that is not there reads as row `d`.
#[inline(always)]
fn map(warp: &mut Warp, inst: &Inst, mask: u32, f: impl Fn(u64, u64, u64) -> u64) {
    let rows = &warp.rows;
    let row = |index: u32| -> &Lanes { &rows[if index == NONE { inst.d } else { index } as usize] };
    let (a, b, c) = (row(inst.a), row(inst.b), row(inst.c));
    let out = if mask == u32::MAX {
        std::array::from_fn(|lane| f(a[lane], b[lane], c[lane]))
    } else {
        let mut out = rows[inst.d as usize];
        for lane in lanes(mask) {
            out[lane] = f(a[lane], b[lane], c[lane]);
        }
        out
    };
    warp.rows[inst.d as usize] = out;
}

/// The lanes for which `f` of rows `a` and `b` holds.
#[inline(always)]
fn test(warp: &Warp, inst: &Inst, mask: u32, f: impl Fn(u64, u64) -> bool) -> u32 {
    let a = &warp.rows[inst.a as usize];
    let b = &warp.rows[if inst.b == NONE { inst.a } else { inst.b } as usize];
    let mut bits = 0;
    if mask == u32::MAX {
        for lane in 0..super::LANES {
            bits |= u32::from(f(a[lane], b[lane])) << lane;
        }
    } else {
        for lane in lanes(mask) {
            bits |= u32::from(f(a[lane], b[lane])) << lane;
        }
    }
    bits
}

/// Executes the instruction if it is of this kind.
#[inline]
pub(super) fn compute(program: &Program, warp: &mut Warp, inst: &Inst, mask: u32) -> bool {
    match inst.op {
        Op::Mov => map(warp, inst, mask, |a, _, _| a),
        Op::Int(op, ty) => integer(warp, inst, mask, op, ty),
        Op::Float(op, ty, mode) => floating(warp, inst, mask, op, ty, mode),
        Op::Convert(how) => converting(warp, inst, mask, how),
        Op::ConvertPair(how) => map(warp, inst, mask, |a, b, _| convert_pair(a, b, how)),
        Op::Pack(pieces) => pack(program, warp, inst, mask, pieces),
        Op::Unpack(pieces) => unpack(program, warp, inst, mask, pieces),
        Op::Setp(how, combine, ty) => {
            let bits = comparison(warp, inst, mask, how, ty);
            let (d, e) = combined(warp, inst, bits, combine);
            warp.set_predicate(inst.d, mask, d);
            if inst.e != NONE {
                warp.set_predicate(inst.e, mask, e);
            }
        }
        Op::Set(how, combine, ty, to) => {
            let bits = comparison(warp, inst, mask, how, ty);
            let (bits, _) = combined(warp, inst, bits, combine);
            let yes = match to {
                Type::F32 => u64::from(1.0_f32.to_bits()),
                Type::F16 => 0x3C00,
                Type::Bf16 => 0x3F80,
                _ => extend(u64::MAX, to.bits(), false),
            };
            for lane in lanes(mask) {
                warp.rows[inst.d as usize][lane] = if bits >> lane & 1 == 1 { yes } else { 0 };
            }
        }
        Op::Select => {
            let p = warp.predicate(inst.p);
            for lane in lanes(mask) {
                let source = if p >> lane & 1 == 1 { inst.a } else { inst.b };
                warp.rows[inst.d as usize][lane] = warp.rows[source as usize][lane];
            }
        }
        Op::SelectSign(ty) => map(warp, inst, mask, |a, b, c| {
            let first = if ty == Type::F32 {
                f32::from_bits(c as u32) >= 0.0
            } else {
                c as i32 >= 0
            };
            if first { a } else { b }
        }),
        Op::Logic(op) => {
            let p = warp.predicate(inst.p);
            let q = if inst.b == NONE {
                0
            } else {
                warp.predicates[inst.b as usize]
            };
            let bits = match op {
                LogicOp::Mov => p,
                LogicOp::And => p & q,
                LogicOp::Or => p | q,
                LogicOp::Xor => p ^ q,
                LogicOp::Not => !p,
            };
            warp.set_predicate(inst.d, mask, bits);
        }
        Op::TestFloat(what, ty) => {
            let bits = test(warp, inst, mask, |a, _| {
                let value = float_value(a, ty, false);
                let subnormal = match ty {
                    Type::F32 => f32::from_bits(a as u32).is_subnormal(),
                    _ => value.is_subnormal(),
                };
                float::test(what, value, subnormal)
            });
            warp.set_predicate(inst.d, mask, bits);
        }
        Op::IsSpace(space) => {
            let bits = test(warp, inst, mask, |a, _| {
                let found = classify(a);
                // Constant memory is part of global memory here.
                found == space || (found == Space::Global && space == Space::Const)
            });
            warp.set_predicate(inst.d, mask, bits);
        }
        Op::ActiveMask => {
            for lane in lanes(mask) {
                warp.rows[inst.d as usize][lane] = u64::from(mask);
            }
        }
        Op::Nop => {}
        _ => return false,
    }
    true
}

/// The space of a generic address.
#[inline]
pub(super) fn classify(address: u64) -> Space {
    let within = |window: u64| address.wrapping_sub(window) < WINDOW;
    if within(SHARED_WINDOW) {
        Space::Shared
    } else if within(LOCAL_WINDOW) {
        Space::Local
    } else if within(PARAM_WINDOW) {
        Space::Param
    } else {
        Space::Global
    }
}

/// Both results of a comparison that joins a predicate.
fn combined(warp: &Warp, inst: &Inst, bits: u32, combine: Combine) -> (u32, u32) {
    let p = warp.predicate(inst.p);
    match combine {
        Combine::Alone => (bits, !bits),
        Combine::And => (bits & p, !bits & p),
        Combine::Or => (bits | p, !bits | p),
        Combine::Xor => (bits ^ p, !bits ^ p),
    }
}

fn comparison(warp: &Warp, inst: &Inst, mask: u32, how: Compare, ty: CompareType) -> u32 {
    let CompareType { ty, ftz } = ty;
    if ty.float() {
        return test(warp, inst, mask, |a, b| {
            let [a, b] = [a, b].map(|bits| float_value(bits, ty, ftz));
            float::compare(how, a, b)
        });
    }
    let int = Int {
        bits: ty.bits(),
        signed: ty.signed(),
    };
    match how {
        Compare::Eq => test(warp, inst, mask, |a, b| a == b),
        Compare::Ne => test(warp, inst, mask, |a, b| a != b),
        _ => test(warp, inst, mask, |a, b| int::compare(how, a, b, int)),
    }
}

fn pack(program: &Program, warp: &mut Warp, inst: &Inst, mask: u32, pieces: Pieces) {
    let list = rows_of(program, pieces);
    for lane in lanes(mask) {
        let parts = list.iter().rev();
        let value = parts.fold(0, |value, row| {
            let part = extend(warp.rows[*row as usize][lane], pieces.bits, false);
            (value << (pieces.bits & 63)) | part
        });
        warp.rows[inst.d as usize][lane] = value;
    }
}

fn rows_of(program: &Program, pieces: Pieces) -> &[u32] {
    &program.lists[pieces.list as usize..][..usize::from(pieces.count)]
}

fn unpack(program: &Program, warp: &mut Warp, inst: &Inst, mask: u32, pieces: Pieces) {
    let list = rows_of(program, pieces);
    for lane in lanes(mask) {
        let mut value = warp.rows[inst.a as usize][lane];
        for row in list {
            warp.rows[*row as usize][lane] = extend(value, pieces.bits, false);
            value >>= pieces.bits & 63;
        }
    }
}

#[inline(always)]
fn integer(warp: &mut Warp, inst: &Inst, mask: u32, op: IntOp, ty: Int) {
    let ones = u64::MAX >> (64 - u32::from(ty.bits));
    match op {
        IntOp::Add => map(warp, inst, mask, |a, b, _| a.wrapping_add(b) & ones),
        IntOp::Sub => map(warp, inst, mask, |a, b, _| a.wrapping_sub(b) & ones),
        IntOp::MulLow => map(warp, inst, mask, |a, b, _| a.wrapping_mul(b) & ones),
        IntOp::MadLow => map(warp, inst, mask, |a, b, c| {
            a.wrapping_mul(b).wrapping_add(c) & ones
        }),
        IntOp::MulWide => map(warp, inst, mask, |a, b, _| int::mul_wide(a, b, ty)),
        IntOp::MadWide => map(warp, inst, mask, |a, b, c| {
            extend(int::mul_wide(a, b, ty).wrapping_add(c), ty.bits * 2, false)
        }),
        IntOp::And => map(warp, inst, mask, |a, b, _| a & b),
        IntOp::Or => map(warp, inst, mask, |a, b, _| a | b),
        IntOp::Xor => map(warp, inst, mask, |a, b, _| a ^ b),
        IntOp::Not => map(warp, inst, mask, |a, _, _| !a & ones),
        IntOp::Neg => map(warp, inst, mask, |a, _, _| a.wrapping_neg() & ones),
        IntOp::Shl => map(warp, inst, mask, |a, b, _| int::shift_left(a, b, ty) & ones),
        IntOp::Shr => map(warp, inst, mask, |a, b, _| {
            int::shift_right(a, b, ty) & ones
        }),
        _ => map_with_fourth(warp, inst, mask, op, ty),
    }
}

/// The rarer integer operations.
fn map_with_fourth(warp: &mut Warp, inst: &Inst, mask: u32, op: IntOp, ty: Int) {
    let fourth = (inst.m != NONE).then(|| warp.rows[inst.m as usize]);
    if let (IntOp::BitfieldInsert, Some(length)) = (op, fourth) {
        for lane in lanes(mask) {
            let [a, b, c] = [inst.a, inst.b, inst.c].map(|row| warp.rows[row as usize][lane]);
            let value = int::bitfield_insert(a, b, c, length[lane], ty);
            warp.rows[inst.d as usize][lane] = extend(value, ty.bits, false);
        }
        return;
    }
    map(warp, inst, mask, |a, b, c| {
        // A count has 32 bits even of a wider number.
        extend(rare(op, ty, a, b, c), ty.bits, false)
    });
}

fn rare(op: IntOp, ty: Int, a: u64, b: u64, c: u64) -> u64 {
    match op {
        IntOp::AddSat => int::saturating(a, b, ty, false),
        IntOp::SubSat => int::saturating(a, b, ty, true),
        IntOp::MulHigh => int::mul_high(a, b, ty),
        IntOp::MadHigh => int::mul_high(a, b, ty).wrapping_add(c),
        IntOp::Mul24Low => int::mul24(a, b, ty),
        IntOp::Mul24High => int::mul24(a, b, ty) >> 16,
        IntOp::Mad24Low => int::mul24(a, b, ty).wrapping_add(c),
        IntOp::Sad => int::sad(a, b, c, ty),
        IntOp::Div => int::div(a, b, ty),
        IntOp::Rem => int::rem(a, b, ty),
        IntOp::Min if int::less(b, a, ty) => b,
        IntOp::Max if int::less(a, b, ty) => b,
        IntOp::Min | IntOp::Max => a,
        IntOp::Abs => (extend(a, ty.bits, true) as i64).unsigned_abs(),
        IntOp::Cnot => u64::from(a == 0),
        IntOp::FunnelLeft { clamp } => int::funnel(a, b, c, true, clamp),
        IntOp::FunnelRight { clamp } => int::funnel(a, b, c, false, clamp),
        IntOp::Lop3(table) => int::lop3(a, b, c, table),
        IntOp::BitfieldExtract => int::bitfield_extract(a, b, c, ty),
        IntOp::Permute(mode) => int::permute(a, b, c, mode),
        IntOp::PopCount => u64::from(a.count_ones()),
        IntOp::LeadingZeros => u64::from(a.leading_zeros()) - (64 - u64::from(ty.bits)),
        IntOp::BitReverse => a.reverse_bits() >> (64 - u32::from(ty.bits)),
        // `bfind` of 64 bits has a result of 32, which it fills where it finds nothing.
        IntOp::BitFind { shift } => int::bit_find(a, ty, shift),
        _ => 0,
    }
}

#[inline(always)]
fn floating(warp: &mut Warp, inst: &Inst, mask: u32, op: FloatOp, ty: Type, mode: FloatMode) {
    let single = |bits: u64| f32::from_bits(bits as u32);
    match (ty, op) {
        (Type::F32, FloatOp::Add) if mode == FloatMode::PLAIN => {
            map(warp, inst, mask, |a, b, _| {
                float::canonical(single(a) + single(b))
            });
        }
        (Type::F32, FloatOp::Sub) if mode == FloatMode::PLAIN => {
            map(warp, inst, mask, |a, b, _| {
                float::canonical(single(a) - single(b))
            });
        }
        (Type::F32, FloatOp::Mul) if mode == FloatMode::PLAIN => {
            map(warp, inst, mask, |a, b, _| {
                float::canonical(single(a) * single(b))
            });
        }
        (Type::F32, FloatOp::Fma) if mode == FloatMode::PLAIN => {
            map(warp, inst, mask, |a, b, c| {
                float::canonical(single(a).mul_add(single(b), single(c)))
            });
        }
        (Type::F32, _) => map(warp, inst, mask, |a, b, c| {
            float::operate(op, mode, [a, b, c])
        }),
        (Type::F64, _) => map(warp, inst, mask, |a, b, c| {
            float::operate_double(op, [a, b, c])
        }),
        _ => {
            let half = match ty {
                Type::F16 | Type::F16x2 => Half::F16,
                _ => Half::Bf16,
            };
            let packed = matches!(ty, Type::F16x2 | Type::Bf16x2);
            map(warp, inst, mask, |a, b, c| {
                let low = u64::from(half.operate(op, mode, [a, b, c]));
                if packed {
                    let high = half.operate(op, mode, [a >> 16, b >> 16, c >> 16]);
                    u64::from(high) << 16 | low
                } else {
                    low
                }
            });
        }
    }
}

const TOWARDS_ZERO: FloatMode = FloatMode {
    rounding: Rounding::Zero,
    ..FloatMode::PLAIN
};

fn converting(warp: &mut Warp, inst: &Inst, mask: u32, how: Convert) {
    let plain = how.mode == FloatMode::PLAIN;
    let (from, to) = (how.from, how.to);
    if !from.float() && !to.float() && !how.mode.sat {
        let (width, signed, bits) = (from.bits(), from.signed(), to.bits());
        return map(warp, inst, mask, |a, _, _| {
            extend(extend(a, width, signed), bits, false)
        });
    }
    match (from, to) {
        (Type::S32, Type::F32) if plain => map(warp, inst, mask, |a, _, _| {
            u64::from((a as i32 as f32).to_bits())
        }),
        (Type::U32, Type::F32) if plain => map(warp, inst, mask, |a, _, _| {
            u64::from((a as u32 as f32).to_bits())
        }),
        // A cast cuts off the fraction, stops at the ends of the range and makes 0 of NaN.
        (Type::F32, Type::S32) if how.mode == TOWARDS_ZERO => map(warp, inst, mask, |a, _, _| {
            u64::from(f32::from_bits(a as u32) as i32 as u32)
        }),
        (Type::F32, Type::U32) if how.mode == TOWARDS_ZERO => map(warp, inst, mask, |a, _, _| {
            u64::from(f32::from_bits(a as u32) as u32)
        }),
        (Type::F16, Type::F32) if plain => map(warp, inst, mask, |a, _, _| {
            float::canonical(Half::F16.decode(a as u16))
        }),
        (Type::F32, Type::F64) if plain => map(warp, inst, mask, |a, _, _| {
            f64::from(f32::from_bits(a as u32)).to_bits()
        }),
        (Type::F64, Type::F32) if plain && how.mode.rounding == Rounding::Nearest => {
            map(warp, inst, mask, |a, _, _| {
                float::canonical(f64::from_bits(a) as f32)
            });
        }
        _ => map(warp, inst, mask, |a, _, _| convert(a, how)),
    }
}
