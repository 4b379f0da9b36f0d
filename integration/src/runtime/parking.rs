//! Sequences that lost their pages to others: what was in the pages is kept outside the pool, and put back when there is room.
//!
//! A compressed cache cannot be computed again: read anew, prompt and answer would be compressed together, and the answer go on otherwise
//! than it began. All that is kept so is at most as large as the pool; a sequence for which that is too little is read anew.
use std::collections::HashMap;

use kv_core::{CacheError, Parked, SeqId, SequenceReport};

use super::{Open, State};

/// What is kept outside the pool.
#[derive(Debug)]
pub(super) struct Parking {
    most_pages: usize,
    pages: usize,
    sequences: HashMap<SeqId, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    parked: Box<Parked>,
    /// What was in its pages, one after the other.
    bytes: Vec<u8>,
    open: Open,
    /// What it held when it lost its pages.
    report: SequenceReport,
    /// Whether the engine was told that it need not read this.
    is_claimed: bool,
}

impl Parking {
    /// Room for the contents of `most_pages` pages.
    pub(super) fn new(most_pages: usize) -> Self {
        Self {
            most_pages,
            pages: 0,
            sequences: HashMap::new(),
        }
    }

    /// Pages whose contents are kept here.
    pub(super) const fn pages(&self) -> usize {
        self.pages
    }

    /// How many of the first of `tokens` tokens a sequence need not read, because its cache is here.
    pub(super) fn claim(&mut self, seq: SeqId, tokens: usize) -> Option<usize> {
        let waiting = self.sequences.get_mut(&seq)?;
        let seen = waiting.parked.seen();
        waiting.is_claimed = seen < tokens;
        waiting.is_claimed.then_some(seen)
    }

    /// Whether the engine goes on from what is kept of a sequence.
    pub(super) fn is_claimed(&self, seq: SeqId) -> bool {
        let waiting = self.sequences.get(&seq);
        waiting.is_some_and(|waiting| waiting.is_claimed)
    }

    pub(super) fn has(&self, seq: SeqId) -> bool {
        self.sequences.contains_key(&seq)
    }

    /// Forgets a sequence, and says what it held.
    pub(super) fn forget(&mut self, seq: SeqId) -> Option<(SequenceReport, Open)> {
        let waiting = self.take(seq)?;
        Some((waiting.report, waiting.open))
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.most_pages);
    }

    fn take(&mut self, seq: SeqId) -> Option<Waiting> {
        let waiting = self.sequences.remove(&seq)?;
        self.pages -= waiting.parked.pages();
        Some(waiting)
    }

    fn put(&mut self, seq: SeqId, waiting: Waiting) {
        self.pages += waiting.parked.pages();
        self.sequences.insert(seq, waiting);
    }
}

impl State {
    /// Takes a sequence's pages from it and keeps what is in them; `false` if it has read nothing, or there is no room for that, or the
    /// pages are on a device. Nothing has changed then.
    pub(super) fn park(&mut self, seq: SeqId) -> bool {
        let has_read = self.ledger.sequence(seq).is_ok_and(|one| one.seen() > 0);
        let (Ok(pages), Ok(report)) = (self.ledger.pages_in_order(seq), self.ledger.report(seq))
        else {
            return false;
        };
        if !has_read || self.parking.pages + pages.len() > self.parking.most_pages {
            return false;
        }
        let report = self.with_tail(report);
        let Some(bytes) = self.cache.save(&pages) else {
            return false;
        };
        let Ok(parked) = self.ledger.park(seq) else {
            return false;
        };
        if let Some(open) = self.open.remove(&seq) {
            let waiting = Waiting {
                parked,
                bytes,
                open,
                report,
                is_claimed: false,
            };
            self.parking.put(seq, waiting);
        }
        self.counts.preemptions += 1;
        true
    }

    /// Opens a parked sequence again, which will be `tokens` long. Where nobody else runs and there is no room all the same, what it held
    /// is forgotten: it is read anew, and compressed.
    pub(super) fn resume(&mut self, seq: SeqId, tokens: usize) -> Result<(), CacheError> {
        let resumed = self.making_room(Some(seq), |state| {
            let Some(mut waiting) = state.parking.take(seq) else {
                return Err(CacheError::UnknownSequence(seq));
            };
            match state.ledger.unpark(seq, tokens, waiting.parked) {
                Ok(()) => Ok((waiting.bytes, waiting.open)),
                Err((parked, error)) => {
                    waiting.parked = parked;
                    state.parking.put(seq, waiting);
                    Err(error)
                }
            }
        });
        if resumed.is_err() && self.running().next().is_none() {
            self.parking.take(seq);
        }
        let (bytes, mut open) = resumed?;
        let pages = self.ledger.pages_in_order(seq)?;
        self.cache.restore(&pages, &bytes);
        open.is_resumed = true;
        self.open.insert(seq, open);
        self.queue.remove(&seq);
        self.counts.resumed += 1;
        Ok(())
    }
}
