//! Atomics.

use super::access::{Place, Touch};
use super::machine::{Machine, Stop};
use super::warp::{Warp, lanes};
use crate::error::{AccessKind, FaultKind};
use crate::number::convert::extend;
use crate::number::half::Half;
use crate::number::{float, int};
use crate::op::{Access, AtomicOp, FloatMode, FloatOp, Inst, Int, NONE};
use crate::types::{Space, Type};

impl Machine<'_> {
    pub(super) fn atomic(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        (op, ty, access): (AtomicOp, Type, Access),
        mask: u32,
    ) -> Result<(), Stop> {
        let size = usize::from(access.bytes);
        for lane in lanes(mask) {
            let touch = Touch {
                line: inst.line,
                thread: warp.thread(lane),
                kind: AccessKind::StrongWrite,
                bytes: size,
            };
            let place = self.place(warp, inst, access, lane, touch)?;
            if let Place::Param(_) | Place::Local(_) = place {
                let kind = FaultKind::ReadOnly {
                    space: Space::Local,
                };
                return self.fatal(inst.line, touch.thread, kind);
            }
            self.check(place, touch)?;
            let rows = &warp.rows;
            let row = |row: u32| rows[row as usize][lane];
            let second = if inst.c == NONE { 0 } else { row(inst.c) };
            let operand = row(inst.b);
            let address = row(inst.a).wrapping_add_signed(access.offset);
            let old = self.value(warp, place, 0, size);
            let new = combine(op, ty, old, operand, second);
            self.set_value(warp, place, 0, (new, size));
            if let Place::Global { .. } = place {
                self.stats.global_bytes_read += size as u64;
                self.stats.global_bytes_written += size as u64;
                self.signals.strong(address, true);
            }
            if inst.d != NONE {
                warp.rows[inst.d as usize][lane] = old;
            }
        }
        Ok(())
    }
}

/// What an atomic leaves behind.
pub(super) fn combine(op: AtomicOp, ty: Type, old: u64, value: u64, second: u64) -> u64 {
    let int = Int {
        bits: ty.bits(),
        signed: ty.signed(),
    };
    let new = match op {
        AtomicOp::Add if ty.float() => return add_float(ty, old, value),
        AtomicOp::Add => old.wrapping_add(value),
        AtomicOp::Min if int::less(value, old, int) => value,
        AtomicOp::Max if int::less(old, value, int) => value,
        AtomicOp::Min | AtomicOp::Max => old,
        AtomicOp::And => old & value,
        AtomicOp::Or => old | value,
        AtomicOp::Xor => old ^ value,
        AtomicOp::Exchange => value,
        AtomicOp::CompareExchange if old == value => second,
        AtomicOp::CompareExchange => old,
        AtomicOp::Increment if old >= value => 0,
        AtomicOp::Increment => old + 1,
        AtomicOp::Decrement if old == 0 || old > value => value,
        AtomicOp::Decrement => old - 1,
    };
    extend(new, int.bits, false)
}

fn add_float(ty: Type, old: u64, value: u64) -> u64 {
    let mode = FloatMode::PLAIN;
    let half = |half: Half, shift: u32| {
        let sources = [old >> shift, value >> shift, 0];
        u64::from(half.operate(FloatOp::Add, mode, sources)) << shift
    };
    match ty {
        Type::F64 => float::operate_double(FloatOp::Add, [old, value, 0]),
        Type::F16 => half(Half::F16, 0),
        Type::Bf16 => half(Half::Bf16, 0),
        Type::F16x2 => half(Half::F16, 16) | half(Half::F16, 0),
        Type::Bf16x2 => half(Half::Bf16, 16) | half(Half::Bf16, 0),
        _ => float::operate(FloatOp::Add, mode, [old, value, 0]),
    }
}
