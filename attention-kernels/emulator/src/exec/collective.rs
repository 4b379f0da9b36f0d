//! What the lanes of a warp do together.

use super::LANES;
use super::atomic::combine;
use super::machine::{Machine, Stop};
use super::warp::{Lanes, Wait, Warp, lanes};
use crate::error::FaultKind;
use crate::number::convert::extend;
use crate::op::{Inst, NONE, Op, Shuffle, Vote, WarpOp};
use crate::types::Type;

/// The lanes that take part, and what each brings.
struct Round {
    op: WarpOp,
    mask: u32,
    /// Lanes that are there: those of the mask that have not exited.
    present: u32,
    inst: [Option<Inst>; LANES],
    a: Lanes,
    b: Lanes,
    c: Lanes,
    p: u32,
}

impl Machine<'_> {
    /// Runs every warp-wide instruction of a warp for which all lanes have come. Says whether there was one.
    pub(super) fn complete_collectives(&mut self, warp: &mut Warp) -> Result<bool, Stop> {
        let mut any = false;
        while let Some(round) = self.complete_round(warp) {
            any = true;
            let names_all = round.mask & warp.live == warp.live;
            if round.op == WarpOp::Sync || self.options.collectives_order_memory {
                if names_all {
                    self.clock.whole_warp(warp.index);
                } else {
                    self.clock.some_lanes(warp.index, round.present);
                }
            }
            self.perform(warp, &round)?;
        }
        Ok(any)
    }

    /// The first round that can start; its lanes are set free.
    fn complete_round(&self, warp: &mut Warp) -> Option<Round> {
        let waiting = |wait: Wait| match wait {
            Wait::Warp(mask) => Some(mask),
            _ => None,
        };
        let code = &self.program.code;
        let op_at = |pc: u32| match code[pc as usize].op {
            Op::Warp(op) => Some(op),
            _ => None,
        };
        let complete = warp.groups.iter().find_map(|group| {
            let mask = waiting(group.wait)?;
            let op = op_at(group.pc)?;
            let same =
                |other: u32, wait: Wait| wait == Wait::Warp(mask) && op_at(other) == Some(op);
            let come = warp
                .groups
                .iter()
                .filter(|other| same(other.pc, other.wait));
            let come = come.fold(0, |come, other| come | other.mask);
            let needed = mask & warp.live;
            (come & needed == needed).then_some((op, mask, come))
        });
        let (op, mask, present) = complete?;
        let mut round = Round {
            op,
            mask,
            present,
            inst: [None; LANES],
            a: [0; LANES],
            b: [0; LANES],
            c: [0; LANES],
            p: 0,
        };
        let same = |pc: u32, wait: Wait| wait == Wait::Warp(mask) && op_at(pc) == Some(op);
        for at in 0..warp.groups.len() {
            let group = warp.groups[at];
            if !same(group.pc, group.wait) {
                continue;
            }
            let inst = code[group.pc as usize];
            for lane in lanes(group.mask) {
                let row = |row: u32| {
                    if row == NONE {
                        0
                    } else {
                        warp.rows[row as usize][lane]
                    }
                };
                round.inst[lane] = Some(inst);
                round.a[lane] = row(inst.a);
                round.b[lane] = row(inst.b);
                round.c[lane] = row(inst.c);
            }
            round.p |= warp.predicate(inst.p) & group.mask;
            let group = &mut warp.groups[at];
            group.pc += 1;
            group.wait = Wait::Ready;
        }
        Some(round)
    }

    fn perform(&mut self, warp: &mut Warp, round: &Round) -> Result<(), Stop> {
        match round.op {
            WarpOp::Sync => {}
            WarpOp::Shuffle(mode) => self.shuffle(warp, round, mode)?,
            WarpOp::Vote(vote) => {
                let yes = round.p & round.present;
                let result = match vote {
                    Vote::Ballot => {
                        write_all(warp, round, |_| u64::from(yes));
                        return Ok(());
                    }
                    Vote::All => yes == round.present,
                    Vote::Any => yes != 0,
                    Vote::Uniform => yes == round.present || yes == 0,
                };
                predicate_all(warp, round, |inst| inst.d, result);
            }
            WarpOp::MatchAny { bits } => {
                let key = |lane: usize| extend(round.a[lane], bits, false);
                write_all(warp, round, |lane| {
                    let same = lanes(round.present).filter(|other| key(*other) == key(lane));
                    same.fold(0, |mask, other| mask | 1 << other)
                });
            }
            WarpOp::MatchAll { bits } => {
                let mut keys = lanes(round.present).map(|lane| extend(round.a[lane], bits, false));
                let first = keys.next();
                let all = keys.all(|key| Some(key) == first);
                write_all(
                    warp,
                    round,
                    |_| if all { u64::from(round.present) } else { 0 },
                );
                predicate_all(warp, round, |inst| inst.e, all);
            }
            WarpOp::Reduce(op, signed) => {
                let ty = if signed { Type::S32 } else { Type::U32 };
                let values = lanes(round.present).map(|lane| round.a[lane]);
                let total = values.reduce(|total, value| combine(op, ty, total, value, 0));
                write_all(warp, round, |_| total.unwrap_or(0));
            }
        }
        Ok(())
    }

    fn shuffle(&mut self, warp: &mut Warp, round: &Round, mode: Shuffle) -> Result<(), Stop> {
        for lane in lanes(round.present) {
            let Some(inst) = round.inst[lane] else {
                continue;
            };
            let (source, inside) = source_lane(mode, lane as u32, round.b[lane], round.c[lane]);
            let source = if inside { source } else { lane as u32 };
            if round.present >> source & 1 == 0 {
                let kind = FaultKind::ShuffleSource { lane: source };
                self.fault(inst.line, warp.thread(lane), kind)?;
            }
            if inst.d != NONE {
                let present = round.present >> source & 1 == 1;
                let value = if present {
                    round.a[source as usize]
                } else {
                    0xFFFF_FFFF
                };
                warp.rows[inst.d as usize][lane] = extend(value, 32, false);
            }
            if inst.e != NONE {
                let bits = if inside { u32::MAX } else { 0 };
                warp.set_predicate(inst.e, 1 << lane, bits);
            }
        }
        Ok(())
    }
}

/// The lane that `lane` reads, and whether it lies in the lane's segment; a lane whose source does not reads its own value.
fn source_lane(mode: Shuffle, lane: u32, b: u64, c: u64) -> (u32, bool) {
    let b = b as u32 & 31;
    let clamp = c as u32 & 31;
    let segment = c as u32 >> 8 & 31;
    let last = (lane & segment) | (clamp & !segment);
    match mode {
        Shuffle::Up => {
            let source = lane.wrapping_sub(b);
            (source, source as i32 >= last as i32)
        }
        Shuffle::Down => (lane + b, lane + b <= last),
        Shuffle::Butterfly => (lane ^ b, lane ^ b <= last),
        Shuffle::Index => {
            let source = (lane & segment) | (b & !segment);
            (source, source <= last)
        }
    }
}

/// Sets each lane's destination.
fn write_all(warp: &mut Warp, round: &Round, value: impl Fn(usize) -> u64) {
    for lane in lanes(round.present) {
        if let Some(inst) = round.inst[lane].filter(|inst| inst.d != NONE) {
            warp.rows[inst.d as usize][lane] = value(lane);
        }
    }
}

/// Sets a predicate of each lane.
fn predicate_all(warp: &mut Warp, round: &Round, index: impl Fn(Inst) -> u32, value: bool) {
    for lane in lanes(round.present) {
        if let Some(index) = round.inst[lane].map(&index).filter(|index| *index != NONE) {
            warp.set_predicate(index, 1 << lane, if value { u32::MAX } else { 0 });
        }
    }
}
