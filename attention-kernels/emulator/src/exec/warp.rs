//! A warp: its registers and where its lanes stand.

use super::LANES;
use super::machine::Machine;
use crate::memory::Address;
use crate::op::Predicate;
use crate::program::{Constant, Special};

/// One number per lane.
pub(super) type Lanes = [u64; LANES];

/// Why a group of lanes does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Ready,
    /// For the other lanes of this mask.
    Warp(u32),
    /// At the barrier of this number, with the threads that it wants, 0 for all.
    Barrier {
        id: u32,
        count: u32,
    },
}

/// Lanes that stand at the same instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) pc: u32,
    pub(super) mask: u32,
    pub(super) wait: Wait,
}

#[derive(Debug)]
pub(super) struct Warp {
    pub(super) index: usize,
    pub(super) rows: Vec<Lanes>,
    pub(super) predicates: Vec<u32>,
    /// Memory of the lanes, one after another.
    pub(super) local: Vec<u8>,
    pub(super) groups: Vec<Group>,
    /// Lanes that have a thread.
    pub(super) all: u32,
    /// Those of them that have not exited.
    pub(super) live: u32,
    turns: u32,
}

/// The numbers of the set bits, lowest first.
pub(super) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let lane = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        Some(lane)
    })
}

impl Warp {
    /// A warp with everything in its rows that stays the same in every block.
    pub(super) fn new(machine: &Machine<'_>, index: usize, variables: &[Address]) -> Self {
        let program = machine.program;
        let threads = machine.threads() - index * LANES;
        let mut warp = Self {
            index,
            rows: vec![[0xDEAD_BEEF; LANES]; program.rows as usize],
            predicates: vec![0; program.predicates as usize],
            local: vec![0xFF; program.local_bytes * LANES],
            groups: Vec::new(),
            all: if threads >= LANES {
                u32::MAX
            } else {
                (1 << threads) - 1
            },
            live: 0,
            turns: 0,
        };
        warp.predicates[0] = u32::MAX;
        let dynamic = super::dynamic_start(program) as u64;
        for (row, constant) in &program.constants {
            let value = match *constant {
                Constant::Value(value) => value,
                Constant::Variable { index, offset } => {
                    variables[index as usize].get().wrapping_add_signed(offset)
                }
                Constant::Dynamic { offset } => dynamic.wrapping_add_signed(offset),
                Constant::Special(special) => {
                    warp.rows[*row as usize] = warp.special(machine, special);
                    continue;
                }
            };
            warp.rows[*row as usize] = [value; LANES];
        }
        warp
    }

    fn special(&self, machine: &Machine<'_>, special: Special) -> Lanes {
        let mut row = [0; LANES];
        let [x, y, _] = machine.block;
        for (lane, value) in row.iter_mut().enumerate() {
            let thread = (self.index * LANES + lane) as u32;
            let below = (1_u32 << lane) - 1;
            *value = u64::from(match special {
                Special::Thread(0) => thread % x,
                Special::Thread(1) => thread / x % y,
                Special::Thread(_) => thread / (x * y),
                Special::BlockSize(axis) => machine.block[usize::from(axis)],
                Special::Block(axis) => machine.current[usize::from(axis)],
                Special::GridSize(axis) => machine.grid[usize::from(axis)],
                Special::Lane => lane as u32,
                Special::Warp => self.index as u32,
                Special::Warps => machine.threads().div_ceil(LANES) as u32,
                Special::MaskEq => 1 << lane,
                Special::MaskLt => below,
                Special::MaskLe => below << 1 | 1,
                Special::MaskGe => !below,
                Special::MaskGt => !(below << 1 | 1),
                Special::DynamicShared => {
                    (machine.shared.bytes.len() - super::dynamic_start(machine.program)) as u32
                }
                Special::TotalShared => machine.shared.bytes.len() as u32,
                Special::Clock => machine.stats.warp_instructions as u32,
                Special::Zero => 0,
            });
        }
        row
    }

    /// Puts all lanes at the start of a block.
    pub(super) fn restart(&mut self, machine: &Machine<'_>) {
        for (row, constant) in &machine.program.constants {
            if let Constant::Special(special @ (Special::Block(_) | Special::Clock)) = *constant {
                self.rows[*row as usize] = self.special(machine, special);
            }
        }
        self.live = self.all;
        self.groups.clear();
        self.groups.push(Group {
            pc: 0,
            mask: self.all,
            wait: Wait::Ready,
        });
    }

    pub(super) fn thread(&self, lane: usize) -> usize {
        self.index * LANES + lane
    }

    /// Takes the group that is to run next: the one furthest behind, now and then the one that came last, so that lanes that wait
    /// for others in a loop do not hold those up.
    pub(super) fn take_next(&mut self) -> Option<Group> {
        self.merge();
        self.turns = self.turns.wrapping_add(1);
        let ready = |group: &&(usize, Group)| group.1.wait == Wait::Ready;
        let groups: Vec<(usize, Group)> = self.groups.iter().copied().enumerate().collect();
        let groups = groups.iter().filter(ready);
        let found = if self.turns.is_multiple_of(64) {
            groups.max_by_key(|(_, group)| group.pc)
        } else {
            groups.min_by_key(|(_, group)| group.pc)
        };
        found.map(|(at, _)| self.groups.swap_remove(*at))
    }

    /// Joins groups that stand at the same place.
    fn merge(&mut self) {
        if self.groups.len() < 2 {
            return;
        }
        self.groups.sort_by_key(|group| group.pc);
        self.groups.dedup_by(|later, first| {
            let same = later.pc == first.pc && later.wait == first.wait;
            if same {
                first.mask |= later.mask;
            }
            same
        });
    }

    /// The lowest place at which other lanes can run, for a group that runs to join them there.
    pub(super) fn next_meeting(&self) -> u32 {
        let ready = self.groups.iter().filter(|group| group.wait == Wait::Ready);
        ready.map(|group| group.pc).min().unwrap_or(u32::MAX)
    }

    #[inline]
    pub(super) fn predicate(&self, predicate: Predicate) -> u32 {
        let bits = self.predicates[predicate.index as usize];
        if predicate.negated { !bits } else { bits }
    }

    #[inline]
    pub(super) fn set_predicate(&mut self, index: u32, mask: u32, bits: u32) {
        let old = &mut self.predicates[index as usize];
        *old = (*old & !mask) | (bits & mask);
    }
}
