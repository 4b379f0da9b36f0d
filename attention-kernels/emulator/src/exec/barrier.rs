//! Barriers of a block.

use super::LANES;
use super::machine::{Machine, Stop};
use super::warp::{Wait, Warp, lanes};
use crate::error::FaultKind;
use crate::op::{BarrierKind, Op};

/// Threads that have told a barrier that they came, and gone on.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    list: Vec<Arrival>,
}

#[derive(Debug)]
struct Arrival {
    /// Number of the barrier.
    id: u32,
    warp: usize,
    threads: u32,
}

impl Arrivals {
    pub(super) fn arrive(&mut self, id: u32, warp: usize, threads: u32) {
        self.list.push(Arrival { id, warp, threads });
    }

    fn threads(&self, id: u32) -> u32 {
        let at = self.list.iter().filter(|arrival| arrival.id == id);
        at.map(|arrival| arrival.threads).sum()
    }

    /// The warps that came, which starts the barrier's count again.
    fn take(&mut self, id: u32) -> Vec<usize> {
        let taken = self.list.extract_if(.., |arrival| arrival.id == id);
        taken.map(|arrival| arrival.warp).collect()
    }
}

impl Machine<'_> {
    /// Opens every barrier for which enough threads have come. Says whether there was one.
    pub(super) fn open_barriers(
        &mut self,
        warps: &mut [Warp],
        arrivals: &mut Arrivals,
    ) -> Result<bool, Stop> {
        let mut any = false;
        for id in 0..16 {
            let waiting = |group: &super::warp::Group| match group.wait {
                Wait::Barrier { id: at, count } if at == id => Some((count, group.mask)),
                _ => None,
            };
            let groups = warps.iter().flat_map(|warp| &warp.groups);
            let groups: Vec<(u32, u32)> = groups.filter_map(waiting).collect();
            let Some((count, _)) = groups.first().copied() else {
                continue;
            };
            let waiting: u32 = groups.iter().map(|(_, mask)| mask.count_ones()).sum();
            let threads = waiting + arrivals.threads(id);
            let live: u32 = warps.iter().map(|warp| warp.live.count_ones()).sum();
            let needed = if count == 0 { live } else { count };
            if threads < needed {
                continue;
            }
            let came = arrivals.take(id);
            self.open(warps, id, count, live, &came)?;
            any = true;
        }
        Ok(any)
    }

    fn open(
        &mut self,
        warps: &mut [Warp],
        id: u32,
        count: u32,
        live: u32,
        gone: &[usize],
    ) -> Result<(), Stop> {
        self.stats.barriers += 1;
        self.check_meeting(warps, id, count, live)?;
        let mut waited = Vec::new();
        let mut yes = 0;
        let mut total = 0;
        for warp in warps.iter() {
            for group in &warp.groups {
                if !matches!(group.wait, Wait::Barrier { id: at, .. } if at == id) {
                    continue;
                }
                waited.push(warp.index);
                let inst = &self.program.code[group.pc as usize];
                total += group.mask.count_ones();
                yes += (warp.predicate(inst.p) & group.mask).count_ones();
            }
        }
        for warp in warps.iter_mut() {
            self.release(warp, id, yes, total);
        }
        if total == live && gone.is_empty() {
            self.clock.whole_block();
        } else {
            let came: Vec<usize> = waited.iter().chain(gone).copied().collect();
            self.clock.some_warps(&came, &waited);
        }
        Ok(())
    }

    /// Lets the lanes of a warp go on, with what the barrier has counted.
    fn release(&self, warp: &mut Warp, id: u32, yes: u32, total: u32) {
        for at in 0..warp.groups.len() {
            let group = warp.groups[at];
            if !matches!(group.wait, Wait::Barrier { id: at, .. } if at == id) {
                continue;
            }
            let inst = self.program.code[group.pc as usize];
            let all = |yes: bool| if yes { u32::MAX } else { 0 };
            match inst.op {
                Op::Barrier { kind, .. } => match kind {
                    BarrierKind::Count => {
                        for lane in lanes(group.mask) {
                            warp.rows[inst.d as usize][lane] = u64::from(yes);
                        }
                    }
                    BarrierKind::All => warp.set_predicate(inst.d, group.mask, all(yes == total)),
                    BarrierKind::Any => warp.set_predicate(inst.d, group.mask, all(yes != 0)),
                    BarrierKind::Sync | BarrierKind::Arrive => {}
                },
                _ => continue,
            }
            let group = &mut warp.groups[at];
            group.pc += 1;
            group.wait = Wait::Ready;
        }
    }

    /// What CUDA leaves undefined: threads that exited before a barrier of the whole block, and lanes of a warp at different
    /// barriers that all lanes must reach together.
    fn check_meeting(
        &mut self,
        warps: &[Warp],
        id: u32,
        count: u32,
        live: u32,
    ) -> Result<(), Stop> {
        let exited = self.threads() as u32 - live;
        for warp in warps {
            let here = |wait: Wait| matches!(wait, Wait::Barrier { id: at, .. } if at == id);
            let groups = warp.groups.iter().filter(|group| here(group.wait));
            let groups: Vec<_> = groups.copied().collect();
            let Some(first) = groups.first() else {
                continue;
            };
            let inst = self.program.code[first.pc as usize];
            let thread = warp.index * LANES + first.mask.trailing_zeros() as usize;
            let apart = groups.iter().find(|group| group.pc != first.pc);
            let aligned = matches!(inst.op, Op::Barrier { aligned: true, .. });
            if aligned && let Some(apart) = apart {
                let other = self.program.code[apart.pc as usize].line;
                let what = format!("other lanes of the warp are at the barrier of line {other}");
                let kind = FaultKind::DivergentBarrier { what };
                self.fault(inst.line, thread, kind)?;
            }
            if count == 0 && exited > 0 {
                let what = format!("{exited} threads of the block have exited");
                let kind = FaultKind::DivergentBarrier { what };
                self.fault(inst.line, thread, kind)?;
            }
        }
        Ok(())
    }
}
