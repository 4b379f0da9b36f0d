//! A second opinion on a [`Ledger`]: slow, and sharing no code with it.
//!
//! [`check`] looks at a ledger as it stands. [`Replay`] drives one beside a naive model that remembers every token, and
//! so can also say whether the right tokens are kept and whether their bytes are where the ledger says.
//!
//! Both take the ledger to be the only user of its pool: a guard held elsewhere counts as a lost page.
mod compare;
mod model;
mod parking;
mod replay;
mod sharing;
mod violation;

use std::collections::HashSet;

pub use replay::Replay;
pub use violation::{HeadId, Holder, Violation};

use crate::{HeadTable, Ledger, PageId, PagePool, PoolUsage, Position, SeqId, Slot};

/// Checks every rule that can be seen in a ledger as it stands.
///
/// Every page is free or in one table, or in several that share it; what is promised is free, and is what the sequences
/// have in credit; every head holds `ceil(T / B)` pages, lists them in their order, finds each slot where it must be,
/// and holds no position twice or ahead of its sequence.
///
/// ```
/// use kv_core::{Geometry, Ledger, checker};
/// # let geometry = Geometry {
/// #     layers: 1, kv_heads: 1, group: 1, head_dim: 8, block: 16, element_bytes: 4, max_positions: 64,
/// # };
/// assert_eq!(checker::check(&Ledger::new(geometry, 10)), Ok(()));
/// ```
///
/// # Errors
///
/// The first [`Violation`] found.
pub fn check(ledger: &Ledger) -> Result<(), Violation> {
    Snapshot::of(ledger).check()
}

/// A ledger copied into plain data.
#[derive(Debug, Clone)]
struct Snapshot {
    layers: usize,
    kv_heads: usize,
    block: usize,
    free: Vec<PageId>,
    usage: PoolUsage,
    sequences: Vec<SequenceFacts>,
}

#[derive(Debug, Clone)]
struct SequenceFacts {
    seq: SeqId,
    seen: usize,
    credit: usize,
    heads: Vec<HeadFacts>,
}

#[derive(Debug, Clone)]
struct HeadFacts {
    /// The pages, and whether each is shared.
    pages: Vec<(PageId, bool)>,
    positions: Vec<Position>,
    scores: usize,
    addresses: Vec<(PageId, usize)>,
}

impl HeadFacts {
    fn of(table: &HeadTable, pool: &PagePool) -> Self {
        let pages = table.page_ids().iter().map(|&page| PageId(page));
        Self {
            pages: pages.map(|page| (page, pool.is_shared(page))).collect(),
            positions: table.positions().to_vec(),
            scores: table.scores().len(),
            addresses: (0..table.len())
                .map(|slot| table.address(Slot::new(slot)))
                .collect(),
        }
    }

    fn check(&self, head: HeadId, block: usize, seen: usize) -> Result<(), Violation> {
        let tokens = self.positions.len();
        // None at all where none was given.
        if self.scores != tokens && self.scores != 0 {
            return Err(Violation::Columns {
                head,
                positions: tokens,
                scores: self.scores,
            });
        }
        // As many pages as cover the tokens, and none to spare.
        let pages = self.pages.len();
        if pages * block < tokens || (pages > 0 && (pages - 1) * block >= tokens) {
            return Err(Violation::PageCount {
                head,
                pages,
                tokens,
                block,
            });
        }
        for (slot, &(page, offset)) in self.addresses.iter().enumerate() {
            let (expected_page, expected_offset) = (self.pages[slot / block].0, slot % block);
            if (page, offset) != (expected_page, expected_offset) {
                let slot = Slot::new(slot);
                return Err(Violation::Address {
                    head,
                    slot,
                    page,
                    offset,
                    expected_page,
                    expected_offset,
                });
            }
        }
        let mut met = HashSet::new();
        for &position in &self.positions {
            if !met.insert(position) {
                return Err(Violation::PositionTwice { head, position });
            }
            if position.index() >= seen {
                return Err(Violation::PositionUnseen {
                    head,
                    position,
                    seen,
                });
            }
        }
        Ok(())
    }
}

impl Snapshot {
    fn of(ledger: &Ledger) -> Self {
        let geometry = ledger.geometry();
        let sequences = ledger.sequences().map(|(seq, sequence)| SequenceFacts {
            seq,
            seen: ledger.report(seq).map_or(0, |report| report.cached_tokens),
            credit: sequence.credit(),
            heads: sequence
                .heads()
                .iter()
                .map(|table| HeadFacts::of(table, ledger.pool()))
                .collect(),
        });
        Self {
            layers: geometry.layers,
            kv_heads: geometry.kv_heads,
            block: geometry.block,
            free: ledger.pool().free_pages(),
            usage: ledger.pool().usage(),
            sequences: sequences.collect(),
        }
    }

    fn heads(&self) -> impl Iterator<Item = (HeadId, &SequenceFacts, &HeadFacts)> {
        self.sequences.iter().flat_map(|sequence| {
            let id = |index| HeadId {
                seq: sequence.seq,
                layer: index / self.kv_heads,
                head: index % self.kv_heads,
            };
            sequence
                .heads
                .iter()
                .enumerate()
                .map(move |(index, head)| (id(index), sequence, head))
        })
    }

    fn check(&self) -> Result<(), Violation> {
        for sequence in &self.sequences {
            let (found, expected) = (sequence.heads.len(), self.layers * self.kv_heads);
            if found != expected {
                return Err(Violation::HeadCount {
                    seq: sequence.seq,
                    found,
                    expected,
                });
            }
        }
        for (id, sequence, head) in self.heads() {
            head.check(id, self.block, sequence.seen)?;
        }
        self.check_pages()?;
        self.check_promises()
    }

    /// Everybody who holds each page.
    fn census(&self) -> Result<Vec<Vec<Holder>>, Violation> {
        let total = self.usage.total;
        let free = self.free.iter().map(|&page| (page, Holder::FreeList));
        let held = self.heads().flat_map(|(id, _, head)| {
            let holder = move |shared| {
                if shared {
                    Holder::Sharer(id)
                } else {
                    Holder::Owner(id)
                }
            };
            head.pages
                .iter()
                .map(move |&(page, shared)| (page, holder(shared)))
        });
        let mut census = vec![Vec::new(); total];
        for (page, holder) in free.chain(held) {
            match census.get_mut(page.index()) {
                Some(holders) => holders.push(holder),
                None => {
                    return Err(Violation::PageOutOfRange {
                        page,
                        holder,
                        total,
                    });
                }
            }
        }
        Ok(census)
    }

    fn check_pages(&self) -> Result<(), Violation> {
        let mut counted = 0;
        for (index, holders) in self.census()?.into_iter().enumerate() {
            let page = PageId::new(index);
            match holders.as_slice() {
                [] => {
                    return Err(Violation::PageLost {
                        page,
                        total: self.usage.total,
                    });
                }
                [Holder::FreeList] => {}
                [Holder::Sharer(_)] => return Err(Violation::SharedAlone { page }),
                [_] => counted += 1,
                [first, second, ..] => {
                    if let Some(alone) = holders
                        .iter()
                        .find(|holder| !matches!(holder, Holder::Sharer(_)))
                    {
                        let other = if alone == first { second } else { first };
                        return Err(Violation::PageHeldTwice {
                            page,
                            first: *alone,
                            second: *other,
                        });
                    }
                    counted += 1;
                }
            }
        }
        let PoolUsage {
            held: reported,
            peak,
            ..
        } = self.usage;
        if reported != counted || peak < reported {
            return Err(Violation::HeldCount {
                reported,
                peak,
                counted,
            });
        }
        Ok(())
    }

    fn check_promises(&self) -> Result<(), Violation> {
        let (promised, free) = (self.usage.promised, self.free.len());
        if promised > free {
            return Err(Violation::Overpromised { promised, free });
        }
        let credits = self.sequences.iter().map(|sequence| sequence.credit).sum();
        if promised != credits {
            return Err(Violation::PromiseSum { promised, credits });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
