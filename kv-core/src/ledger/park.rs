//! Caches whose pages are needed by others: their keys and values are kept elsewhere, by the host.
use super::{Ledger, Sequence};
use crate::{CacheError, HeadTable, SeqId};

/// A sequence without its pages: what its heads hold, and in which order the pages' contents belong to it
/// ([`Ledger::pages_in_order`]).
#[derive(Debug)]
pub struct Parked {
    sequence: Sequence,
}

impl Parked {
    /// Pages that it takes to bring it back.
    #[must_use]
    pub const fn pages(&self) -> usize {
        self.sequence.pages_held
    }

    /// Tokens that went through its cache.
    #[must_use]
    pub const fn seen(&self) -> usize {
        self.sequence.seen
    }
}

impl Ledger {
    /// The pages of a sequence, head by head.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`].
    pub fn pages_in_order(&self, seq: SeqId) -> Result<Vec<u32>, CacheError> {
        let heads = self.sequence(seq)?.heads.iter();
        Ok(heads.flat_map(HeadTable::page_ids).copied().collect())
    }

    /// Closes a sequence, whose pages and promises go back at once, and keeps what is needed to open it again. The host copies what
    /// is in the pages before.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`]; [`CacheError::Blind`] if it is not known what a head holds. Nothing has changed then.
    pub fn park(&mut self, seq: SeqId) -> Result<Box<Parked>, CacheError> {
        let kv_heads = self.geometry.kv_heads;
        let sequence = self.sequence(seq)?;
        if let Some(head) = sequence.heads.iter().position(|table| table.is_blind) {
            let layer = head / kv_heads;
            return Err(CacheError::Blind { seq, layer });
        }
        let Some(mut sequence) = self.sequences.remove(&seq) else {
            return Err(CacheError::UnknownSequence(seq));
        };
        let pages = sequence.heads.iter_mut().map(HeadTable::take_pages);
        self.pool.give_back(pages);
        sequence.reservation = self.pool.reservation();
        sequence.wanted = None;
        if std::mem::take(&mut sequence.has_shared) {
            self.sequences.values_mut().for_each(Sequence::settle);
        }
        Ok(Box::new(Parked { sequence }))
    }

    /// Opens a parked sequence that will be `tokens` long: it holds as many pages as before, others, into which the host copies what was
    /// in those ([`Ledger::pages_in_order`]).
    ///
    /// # Errors
    ///
    /// [`CacheError::Full`] if the pool cannot promise that much, [`CacheError::AlreadyOpen`]; nothing has changed then, and the parked
    /// sequence comes back.
    pub fn unpark(
        &mut self,
        seq: SeqId,
        tokens: usize,
        parked: Box<Parked>,
    ) -> Result<(), (Box<Parked>, CacheError)> {
        if self.sequences.contains_key(&seq) {
            return Err((parked, CacheError::AlreadyOpen(seq)));
        }
        let Parked { mut sequence } = *parked;
        let back = |sequence| Box::new(Parked { sequence });
        let Sequence { demand, pins, .. } = &sequence;
        let wanted = demand.pages_with(&self.geometry, tokens, pins);
        let wanted = wanted.max(sequence.pages_held);
        if let Err(full) = sequence.reservation.grow(wanted) {
            return Err((back(sequence), full.into()));
        }
        for table in &mut sequence.heads {
            if let Err(full) = table.put_pages(&mut sequence.reservation) {
                return Err((back(sequence), full.into())); // cannot be: they were just promised
            }
        }
        sequence.wanted = Some(wanted);
        self.sequences.insert(seq, sequence);
        Ok(())
    }
}
