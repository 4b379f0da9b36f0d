//! Blocks, one after another, and the turns of their warps.

use super::LANES;
use super::barrier::Arrivals;
use super::compute::compute;
use super::machine::{Machine, Stop};
use super::schedule::Dice;
use super::warp::{Group, Wait, Warp, lanes};
use crate::error::FaultKind;
use crate::memory::Address;
use crate::op::{BarrierKind, Inst, NONE, Op};

/// Instructions of a warp before the next one has its turn.
const TURN: u32 = 1 << 16;

/// Runs all blocks.
pub(super) fn run_grid(machine: &mut Machine<'_>, variables: &[Address]) -> Result<(), Stop> {
    let warps = machine.threads().div_ceil(LANES);
    let mut warps: Vec<Warp> = (0..warps)
        .map(|index| Warp::new(machine, index, variables))
        .collect();
    let mut dice = Dice::new(machine.options.order);
    let [width, height, depth] = machine.grid.map(u64::from);
    let blocks = width * height * depth;
    let order = dice.order(usize::try_from(blocks).unwrap_or(usize::MAX));
    for place in 0..blocks {
        let number = order.number(place, blocks);
        machine.current = [
            (number % width) as u32,
            (number / width % height) as u32,
            (number / (width * height)) as u32,
        ];
        machine.clock.start_block();
        let start = machine.clock.block_start();
        machine.signals.start_block(start, number);
        warps.iter_mut().for_each(|warp| warp.restart(machine));
        dice.shuffle(&mut warps);
        run_block(machine, &mut warps)?;
    }
    Ok(())
}

fn run_block(machine: &mut Machine<'_>, warps: &mut [Warp]) -> Result<(), Stop> {
    let mut arrivals = Arrivals::default();
    loop {
        let mut progress = false;
        for warp in warps.iter_mut() {
            progress |= machine.run_warp(warp, &mut arrivals)?;
        }
        progress |= machine.open_barriers(warps, &mut arrivals)?;
        if warps.iter().all(|warp| warp.live == 0) {
            return Ok(());
        }
        if !progress {
            return machine.stuck(warps);
        }
        let limit = machine.options.max_instructions;
        if machine.stats.instructions > limit {
            let kind = FaultKind::InstructionLimit { limit };
            let warp = warps.iter().find(|warp| !warp.groups.is_empty());
            let group = warp.and_then(|warp| warp.groups.first().map(|group| (warp, group)));
            let (line, thread) = group.map_or((0, 0), |(warp, group)| {
                let lane = group.mask.trailing_zeros() as usize;
                let code = &machine.program.code[group.pc as usize];
                (code.line, warp.thread(lane))
            });
            return machine.fatal(line, thread, kind);
        }
    }
}

/// What the next instruction does to the lanes that execute it.
enum Next {
    /// All go on.
    On,
    /// All go there.
    Jump(u32),
    /// They have been put among the warp's groups.
    Parted,
}

impl Machine<'_> {
    /// Runs a warp until all its lanes wait or its turn is over. Says whether it did anything.
    fn run_warp(&mut self, warp: &mut Warp, arrivals: &mut Arrivals) -> Result<bool, Stop> {
        let mut steps = 0;
        loop {
            let Some(mut group) = warp.take_next() else {
                if !self.complete_collectives(warp)? {
                    return Ok(steps > 0);
                }
                continue;
            };
            let alone = warp.groups.is_empty();
            let meeting = warp.next_meeting();
            let lanes = u64::from(group.mask.count_ones());
            let before = steps;
            let over = loop {
                let inst = self.program.code[group.pc as usize];
                steps += 1;
                match self.step(warp, &inst, group, arrivals)? {
                    Next::On => group.pc += 1,
                    Next::Jump(pc) => {
                        group.pc = pc;
                        if !alone {
                            warp.groups.push(group);
                            break steps >= TURN;
                        }
                    }
                    Next::Parted => break steps >= TURN,
                }
                if group.pc == meeting || steps >= TURN {
                    warp.groups.push(group);
                    break steps >= TURN;
                }
            };
            self.stats.warp_instructions += u64::from(steps - before);
            self.stats.instructions += u64::from(steps - before) * lanes;
            if over {
                return Ok(true);
            }
        }
    }

    /// One instruction for the lanes of a group that has been taken from the warp.
    #[inline]
    fn step(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        group: Group,
        arrivals: &mut Arrivals,
    ) -> Result<Next, Stop> {
        let mask = group.mask & warp.predicate(inst.guard);
        match inst.op {
            Op::Load(access) => self.load(warp, inst, access, mask)?,
            Op::Store(access) => self.store(warp, inst, access, mask)?,
            Op::Branch(target) => return Ok(self.branch(warp, group, mask, target)),
            _ if compute(self.program, warp, inst, mask) => {}
            _ if mask == 0 => {}
            Op::Atomic(op, ty, access) => self.atomic(warp, inst, (op, ty, access), mask)?,
            _ => return self.rare_step(warp, inst, group, mask, arrivals),
        }
        Ok(Next::On)
    }

    fn branch(&mut self, warp: &mut Warp, group: Group, mask: u32, target: u32) -> Next {
        if mask == group.mask {
            return Next::Jump(target);
        }
        if mask == 0 {
            return Next::On;
        }
        self.stats.divergent_jumps += 1;
        self.part(warp, group, mask, target, Wait::Ready)
    }

    /// Puts the lanes of `mask` at `pc`, the others of the group behind its instruction.
    fn part(&self, warp: &mut Warp, group: Group, mask: u32, pc: u32, wait: Wait) -> Next {
        let rest = group.mask & !mask;
        warp.groups.push(Group { pc, mask, wait });
        if rest != 0 {
            warp.groups.push(Group {
                pc: group.pc + 1,
                mask: rest,
                wait: Wait::Ready,
            });
        }
        Next::Parted
    }

    #[inline(never)]
    fn rare_step(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        group: Group,
        mask: u32,
        arrivals: &mut Arrivals,
    ) -> Result<Next, Stop> {
        let thread = warp.thread(mask.trailing_zeros() as usize);
        match inst.op {
            Op::Copy { from, to, bytes } => {
                let frame = warp.local.len() / LANES;
                for lane in lanes(mask) {
                    let [from, to] = [from, to].map(|at| lane * frame + at as usize);
                    warp.local.copy_within(from..from + bytes as usize, to);
                }
                Ok(Next::On)
            }
            Op::Call { target, link } => {
                for lane in lanes(mask) {
                    warp.rows[link as usize][lane] = u64::from(group.pc) + 1;
                }
                Ok(self.branch(warp, group, mask, target))
            }
            Op::Return { link } if link != NONE => {
                let targets = warp.rows[link as usize];
                Ok(self.scatter(warp, group, mask, |lane| Some(targets[lane] as u32)))
            }
            Op::BranchIndex { list, count } => {
                let index = warp.rows[inst.a as usize];
                let known = &self.program.lists[list as usize..][..count as usize];
                if let Some(lane) = lanes(mask).find(|lane| index[*lane] >= u64::from(count)) {
                    let what = format!("index {} of {count} jump targets", index[lane]);
                    return self.fatal(inst.line, warp.thread(lane), FaultKind::Trap { what });
                }
                let targets: Vec<u32> = known.to_vec();
                Ok(self.scatter(warp, group, mask, |lane| {
                    targets.get(index[lane] as usize).copied()
                }))
            }
            Op::Exit | Op::Return { .. } => {
                warp.live &= !mask;
                let rest = group.mask & !mask;
                if rest != 0 {
                    let pc = group.pc + 1;
                    let wait = Wait::Ready;
                    warp.groups.push(Group {
                        pc,
                        mask: rest,
                        wait,
                    });
                }
                Ok(Next::Parted)
            }
            Op::Fence => {
                self.signals.fence();
                Ok(Next::On)
            }
            Op::Barrier { kind, .. } => self.come(warp, inst, group, (mask, kind), arrivals),
            Op::Warp(_) => self.gather(warp, inst, group, mask),
            Op::AssertFail => {
                let what = "an assertion failed".to_owned();
                self.fatal(inst.line, thread, FaultKind::Trap { what })
            }
            _ => {
                let what = "trap".to_owned();
                self.fatal(inst.line, thread, FaultKind::Trap { what })
            }
        }
    }

    /// Puts each lane of `mask` where `target` says.
    fn scatter(
        &mut self,
        warp: &mut Warp,
        group: Group,
        mask: u32,
        target: impl Fn(usize) -> Option<u32>,
    ) -> Next {
        let wait = Wait::Ready;
        for lane in lanes(mask) {
            let pc = target(lane).unwrap_or(group.pc + 1);
            let mask = 1 << lane;
            warp.groups.push(Group { pc, mask, wait });
        }
        let (pc, mask) = (group.pc + 1, group.mask & !mask);
        if mask != 0 {
            warp.groups.push(Group { pc, mask, wait });
        }
        Next::Parted
    }

    /// Lanes come to a barrier of the block.
    fn come(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        group: Group,
        (mask, kind): (u32, BarrierKind),
        arrivals: &mut Arrivals,
    ) -> Result<Next, Stop> {
        let lane = mask.trailing_zeros() as usize;
        let id = warp.rows[inst.a as usize][lane] as u32;
        let count = if inst.b == NONE {
            0
        } else {
            warp.rows[inst.b as usize][lane] as u32
        };
        if id > 15 || !count.is_multiple_of(LANES as u32) {
            let what = format!("barrier {id} for {count} threads; numbers go to 15, counts by 32");
            return self.fatal(inst.line, warp.thread(lane), FaultKind::Trap { what });
        }
        if kind == BarrierKind::Arrive {
            arrivals.arrive(id, warp.index, mask.count_ones());
            return Ok(Next::On);
        }
        let wait = Wait::Barrier { id, count };
        Ok(self.part(warp, group, mask, group.pc, wait))
    }

    /// Lanes come to a warp-wide instruction.
    fn gather(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        group: Group,
        mask: u32,
    ) -> Result<Next, Stop> {
        let named = warp.rows[inst.m as usize];
        for lane in lanes(mask) {
            let members = named[lane] as u32;
            if members >> lane & 1 == 0 {
                let kind = FaultKind::NotInMask {
                    lane: lane as u32,
                    mask: members,
                };
                return self.fatal(inst.line, warp.thread(lane), kind);
            }
        }
        let mut rest = mask;
        while rest != 0 {
            let members = named[rest.trailing_zeros() as usize] as u32;
            let same = lanes(rest).filter(|lane| named[*lane] as u32 == members);
            let same = same.fold(0, |same, lane| same | 1 << lane);
            let wait = Wait::Warp(members);
            warp.groups.push(Group {
                pc: group.pc,
                mask: same,
                wait,
            });
            rest &= !same;
        }
        let (pc, mask, wait) = (group.pc + 1, group.mask & !mask, Wait::Ready);
        if mask != 0 {
            warp.groups.push(Group { pc, mask, wait });
        }
        self.complete_collectives(warp)?;
        Ok(Next::Parted)
    }

    /// Nobody can go on.
    fn stuck(&mut self, warps: &[Warp]) -> Result<(), Stop> {
        let mut waits = Vec::new();
        let mut first = None;
        let mut barrier = false;
        for warp in warps {
            for group in &warp.groups {
                let line = self.program.code[group.pc as usize].line;
                let (index, mask) = (warp.index, group.mask);
                waits.push(match group.wait {
                    Wait::Barrier { id, .. } => {
                        barrier = true;
                        format!("warp {index} lanes {mask:#x} at barrier {id} of line {line}")
                    }
                    Wait::Warp(members) => {
                        format!("warp {index} lanes {mask:#x} at line {line} for {members:#x}")
                    }
                    Wait::Ready => format!("warp {index} lanes {mask:#x} at line {line}"),
                });
                let lane = mask.trailing_zeros() as usize;
                first = first.or(Some((line, warp.thread(lane))));
            }
        }
        let total = waits.len();
        waits.truncate(4);
        let what = format!("{} places where threads wait: {}", total, waits.join(", "));
        let (line, thread) = first.unwrap_or((0, 0));
        let kind = if barrier {
            FaultKind::DivergentBarrier { what }
        } else {
            FaultKind::Deadlock { what }
        };
        self.fatal(line, thread, kind)
    }
}
