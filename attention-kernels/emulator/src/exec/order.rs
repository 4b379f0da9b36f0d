//! What orders blocks: a fence and an atomic in one, an atomic on the same address and a fence in another.

use std::collections::HashMap;

/// Set of blocks, by their place in the order of running.
type Blocks = Vec<u64>;

/// Signals between blocks.
#[derive(Debug)]
pub(super) struct Signals {
    /// The kernel has fences at all.
    used: bool,
    /// Start and number of each block that ran, in order.
    blocks: Vec<(u32, u64)>,
    /// Blocks whose writes a strong access to the address brings along.
    released: HashMap<u64, Blocks>,
    /// Blocks whose signal was read, but with no fence since.
    pending: Blocks,
    /// Blocks whose writes the block that runs may read.
    acquired: Blocks,
    /// A fence was executed in this block.
    fenced: bool,
}

fn join(into: &mut Blocks, from: &Blocks) {
    if into.len() < from.len() {
        into.resize(from.len(), 0);
    }
    for (into, from) in into.iter_mut().zip(from) {
        *into |= from;
    }
}

fn insert(blocks: &mut Blocks, block: usize) {
    if blocks.len() <= block / 64 {
        blocks.resize(block / 64 + 1, 0);
    }
    blocks[block / 64] |= 1 << (block % 64);
}

impl Signals {
    pub(super) fn new(used: bool) -> Self {
        Self {
            used,
            blocks: Vec::new(),
            released: HashMap::new(),
            pending: Vec::new(),
            acquired: Vec::new(),
            fenced: false,
        }
    }

    pub(super) fn start_block(&mut self, time: u32, number: u64) {
        self.blocks.push((time, number));
        self.pending.clear();
        self.acquired.clear();
        self.fenced = false;
    }

    fn place_at(&self, time: u32) -> usize {
        let after = self.blocks.partition_point(|(start, _)| *start <= time);
        after.saturating_sub(1)
    }

    /// Number of the block that ran at `time`.
    pub(super) fn block_at(&self, time: u32) -> u64 {
        self.blocks[self.place_at(time)].1
    }

    pub(super) fn fence(&mut self) {
        self.fenced = true;
        let pending = std::mem::take(&mut self.pending);
        join(&mut self.acquired, &pending);
    }

    /// A strong access to global memory.
    pub(super) fn strong(&mut self, address: u64, writes: bool) {
        if !self.used {
            return;
        }
        if let Some(released) = self.released.get(&address) {
            join(&mut self.pending, released);
        }
        if writes && self.fenced {
            let current = self.blocks.len() - 1;
            let released = self.released.entry(address).or_default();
            join(released, &self.acquired);
            insert(released, current);
        }
    }

    /// Whether nothing orders an access at `time`, of an earlier block, before this block.
    #[inline]
    pub(super) fn unordered(&self, time: u32) -> bool {
        if !self.used || self.acquired.is_empty() {
            return true;
        }
        let place = self.place_at(time);
        let word = self.acquired.get(place / 64).copied().unwrap_or(0);
        word >> (place % 64) & 1 == 0
    }
}
