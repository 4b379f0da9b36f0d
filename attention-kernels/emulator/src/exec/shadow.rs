//! Who touched what, and whether something orders it.

use super::LANES;
use crate::error::AccessKind;

/// A warp's lanes: for each, the time up to which it has seen the others' accesses.
type Seen = [[u32; LANES]; LANES];

/// What orders the threads of a block.
///
/// Time is one counter that goes up with every barrier of whatever kind. An access carries the time at which it happened; it is
/// ordered before all that a thread does from now on if the thread has taken part, together with the access's thread, in a barrier
/// since.
#[derive(Debug)]
pub(super) struct Clock {
    now: u32,
    /// When the block that runs began.
    block_start: u32,
    /// Barrier of the whole block.
    block: u32,
    /// Barrier of the whole warp, per warp.
    warps: Vec<u32>,
    /// Barriers of some lanes of a warp.
    lanes: Vec<Option<Box<Seen>>>,
    /// Barriers of some warps: what `[reader][writer]` has seen. Empty before the first one.
    named: Vec<u32>,
}

/// One access. Time 0 is none.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    time: u32,
    thread: u16,
    /// Bits of [`READ`], [`STRONG_READ`] and [`STRONG_WRITE`].
    kinds: u16,
}

const READ: u16 = 1;
const STRONG_READ: u16 = 2;
const STRONG_WRITE: u16 = 4;
const ALL: u16 = READ | STRONG_READ | STRONG_WRITE;

/// What is remembered of a few bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cell {
    /// Last plain write.
    write: Record,
    /// Reads and atomics by two threads, of different warps where there was a choice.
    others: [Record; 2],
    /// Time of the last write of any kind.
    written: u32,
}

/// An earlier access that is not ordered before this one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conflict {
    pub(super) earlier: AccessKind,
    pub(super) thread: u16,
    pub(super) time: u32,
}

impl Clock {
    pub(super) fn new(warps: usize) -> Self {
        Self {
            now: 0,
            block_start: 0,
            block: 0,
            warps: vec![0; warps],
            lanes: vec![None; warps],
            named: Vec::new(),
        }
    }

    pub(super) fn start_block(&mut self) {
        self.now += 1;
        self.block_start = self.now;
        self.block = 0;
        self.warps.fill(0);
        self.lanes.fill(None);
        self.named.clear();
    }

    pub(super) fn block_start(&self) -> u32 {
        self.block_start
    }

    /// All threads of the block met.
    pub(super) fn whole_block(&mut self) {
        self.now += 1;
        self.block = self.now;
        self.warps.fill(self.now);
        self.lanes.fill(None);
        self.named.clear();
    }

    /// All lanes of a warp met.
    pub(super) fn whole_warp(&mut self, warp: usize) {
        self.now += 1;
        self.warps[warp] = self.now;
        self.lanes[warp] = None;
    }

    /// The lanes of `mask` met.
    pub(super) fn some_lanes(&mut self, warp: usize, mask: u32) {
        self.now += 1;
        let seen = self.lanes[warp].get_or_insert_with(|| Box::new([[0; LANES]; LANES]));
        let members = || (0..LANES).filter(|lane| mask >> lane & 1 == 1);
        let mut joined = [0; LANES];
        for lane in members() {
            for (joined, time) in joined.iter_mut().zip(seen[lane]) {
                *joined = time.max(*joined);
            }
        }
        for lane in members() {
            joined[lane] = self.now;
        }
        for lane in members() {
            seen[lane] = joined;
        }
    }

    /// Warps met at a barrier. Those in `waited` have seen what those in `came` did.
    pub(super) fn some_warps(&mut self, came: &[usize], waited: &[usize]) {
        self.now += 1;
        let count = self.warps.len();
        if self.named.is_empty() {
            self.named = vec![0; count * count];
        }
        let mut joined = vec![0; count];
        for warp in came {
            let row = &self.named[warp * count..(warp + 1) * count];
            for (joined, time) in joined.iter_mut().zip(row) {
                *joined = (*time).max(*joined);
            }
        }
        for warp in came {
            joined[*warp] = self.now;
        }
        for warp in waited {
            let row = &mut self.named[warp * count..(warp + 1) * count];
            for (time, joined) in row.iter_mut().zip(&joined) {
                *time = (*time).max(*joined);
            }
            self.warps[*warp] = self.now;
        }
    }

    /// Whether an access of this block is ordered before what `thread` does now.
    #[inline]
    fn ordered(&self, record: Record, thread: u16) -> bool {
        if record.thread == thread || record.time < self.block {
            return true;
        }
        let warps = [record.thread, thread].map(|thread| usize::from(thread) / LANES);
        if warps[0] == warps[1] {
            if record.time < self.warps[warps[0]] {
                return true;
            }
            let lanes = [record.thread, thread].map(|thread| usize::from(thread) % LANES);
            return self.lanes[warps[0]]
                .as_ref()
                .is_some_and(|seen| record.time < seen[lanes[1]][lanes[0]]);
        }
        let place = warps[1] * self.warps.len() + warps[0];
        self.named
            .get(place)
            .is_some_and(|time| record.time < *time)
    }

    /// Whether a record counts against an access by `thread` now. Records of earlier blocks do if `foreign` says so of their time.
    #[inline]
    fn conflicts(&self, record: Record, thread: u16, foreign: impl Fn(u32) -> bool) -> bool {
        if record.time >= self.block_start {
            !self.ordered(record, thread)
        } else {
            record.time != 0 && foreign(record.time)
        }
    }
}

impl Cell {
    /// Whether anything was written here since the block began.
    #[inline]
    pub(super) fn is_written(&self, clock: &Clock) -> bool {
        self.written >= clock.block_start
    }

    /// Counts as written from now on.
    pub(super) fn note_written(&mut self, clock: &Clock) {
        self.written = clock.now;
    }

    /// Remembers an access by `thread`, and returns an earlier one that races with it. `foreign` says of the time of an access of
    /// an earlier block whether it would race.
    #[inline]
    pub(super) fn touch(
        &mut self,
        clock: &Clock,
        thread: u16,
        kind: AccessKind,
        foreign: impl Fn(u32) -> bool + Copy,
    ) -> Option<Conflict> {
        let mut found = None;
        if clock.conflicts(self.write, thread, foreign) {
            found = Some((AccessKind::Write, self.write));
        }
        let against = match kind {
            AccessKind::Read => STRONG_WRITE,
            AccessKind::Write => ALL,
            AccessKind::StrongRead => 0,
            AccessKind::StrongWrite => READ,
        };
        for other in self.others {
            if other.kinds & against != 0 && clock.conflicts(other, thread, foreign) {
                found = Some((name(other.kinds & against), other));
            }
        }
        self.remember(clock, thread, kind, foreign);
        found.map(|(earlier, record)| Conflict {
            earlier,
            thread: record.thread,
            time: record.time,
        })
    }

    #[inline]
    fn remember(
        &mut self,
        clock: &Clock,
        thread: u16,
        kind: AccessKind,
        foreign: impl Fn(u32) -> bool + Copy,
    ) {
        let time = clock.now;
        let kinds = match kind {
            AccessKind::Write => {
                self.written = time;
                self.write = Record {
                    time,
                    thread,
                    kinds: 0,
                };
                return;
            }
            AccessKind::Read => READ,
            AccessKind::StrongRead => STRONG_READ,
            AccessKind::StrongWrite => {
                self.written = time;
                STRONG_WRITE
            }
        };
        let new = Record {
            time,
            thread,
            kinds,
        };
        for other in &mut self.others {
            if other.thread == thread && other.time >= clock.block_start {
                // What it did before counts on, unless a barrier came between.
                let kinds = if other.time == time {
                    kinds | other.kinds
                } else {
                    kinds
                };
                *other = Record { kinds, ..new };
                return;
            }
        }
        for other in &mut self.others {
            if !clock.conflicts(*other, thread, foreign) {
                *other = new;
                return;
            }
        }
        // Two that are not ordered before this one are held already. Different warps tell more.
        let [first, second] = self.others.map(|other| usize::from(other.thread) / LANES);
        if first == second && usize::from(thread) / LANES != first {
            self.others[1] = new;
        }
    }
}

fn name(kinds: u16) -> AccessKind {
    if kinds & STRONG_WRITE != 0 {
        AccessKind::StrongWrite
    } else if kinds & READ != 0 {
        AccessKind::Read
    } else {
        AccessKind::StrongRead
    }
}

/// The memory of one block.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) bytes: Vec<u8>,
    pub(super) cells: Vec<Cell>,
    /// Bytes of a cell, as a power of two.
    pub(super) shift: u32,
}

impl Shared {
    pub(super) fn new(bytes: usize, granule: u8) -> Self {
        let shift = granule.ilog2();
        Self {
            bytes: vec![0xFF; bytes],
            cells: vec![Cell::default(); (bytes >> shift) + 1],
            shift,
        }
    }
}

/// Cells of an allocation, in pages that are made when they are touched.
const PAGE: usize = 512;

/// Cells of all allocations, for one launch.
#[derive(Debug)]
pub(super) struct Shadow {
    allocations: Vec<Vec<Option<Box<[Cell; PAGE]>>>>,
    pub(super) shift: u32,
}

impl Shadow {
    pub(super) fn new(granule: u8) -> Self {
        Self {
            allocations: Vec::new(),
            shift: granule.ilog2(),
        }
    }

    #[inline]
    pub(super) fn cell(&mut self, allocation: usize, cell: usize) -> &mut Cell {
        if self.allocations.len() <= allocation {
            self.allocations.resize_with(allocation + 1, Vec::new);
        }
        let pages = &mut self.allocations[allocation];
        let page = cell / PAGE;
        if pages.len() <= page {
            pages.resize_with(page + 1, || None);
        }
        let page = pages[page].get_or_insert_with(|| Box::new([Cell::default(); PAGE]));
        &mut page[cell % PAGE]
    }
}
