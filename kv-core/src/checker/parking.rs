//! A replayed ledger whose sequences lose their pages and have others in their place.
use super::{Replay, replay::Shadow};
use crate::{CacheError, Parked, SeqId};

/// A parked sequence, and what lay in its pages.
#[derive(Debug)]
pub(super) struct Elsewhere {
    parked: Box<Parked>,
    bytes: Vec<u64>,
    shadow: Shadow,
}

impl Replay {
    /// [`Ledger::park`](crate::Ledger::park); what lies in the pages is kept.
    ///
    /// # Errors
    ///
    /// What the ledger answers.
    pub fn park(&mut self, seq: SeqId) -> Result<(), CacheError> {
        let bytes = self.cells(seq)?.map(|cell| self.memory[cell]);
        let bytes = bytes.collect();
        let parked = self.ledger.park(seq)?;
        if let Some(shadow) = self.sequences.remove(&seq) {
            let elsewhere = Elsewhere {
                parked,
                bytes,
                shadow,
            };
            self.parked.insert(seq, elsewhere);
        }
        Ok(())
    }

    /// [`Ledger::unpark`](crate::Ledger::unpark); what lay in its pages is put into those that it has now.
    ///
    /// # Errors
    ///
    /// What the ledger answers; [`CacheError::UnknownSequence`] if it is not parked.
    pub fn unpark(&mut self, seq: SeqId, tokens: usize) -> Result<(), CacheError> {
        let Some(Elsewhere {
            parked,
            bytes,
            mut shadow,
        }) = self.parked.remove(&seq)
        else {
            return Err(CacheError::UnknownSequence(seq));
        };
        let held = shadow.pages(self.ledger.geometry().block);
        let wanted = self.demanded_of(&shadow, tokens).max(held);
        let free = self.unpromised();
        let result = self.ledger.unpark(seq, tokens, parked);
        if !matches!(result, Err((_, CacheError::AlreadyOpen(_)))) {
            self.expect(seq, (wanted, free), result.is_ok());
        }
        if let Err((parked, error)) = result {
            let elsewhere = Elsewhere {
                parked,
                bytes,
                shadow,
            };
            self.parked.insert(seq, elsewhere);
            return Err(error);
        }
        let cells: Vec<usize> = self.cells(seq)?.collect();
        for (cell, bytes) in cells.into_iter().zip(bytes) {
            self.memory[cell] = bytes;
        }
        shadow.wanted = Some(wanted);
        shadow.promise = wanted;
        shadow.was_shared = false;
        self.sequences.insert(seq, shadow);
        Ok(())
    }

    /// Whether a sequence is parked.
    #[must_use]
    pub fn is_parked(&self, seq: SeqId) -> bool {
        self.parked.contains_key(&seq)
    }

    /// Where the bytes of a sequence's pages lie, in their order.
    fn cells(&self, seq: SeqId) -> Result<impl Iterator<Item = usize> + use<>, CacheError> {
        let block = self.ledger.geometry().block;
        let pages = self.ledger.pages_in_order(seq)?;
        Ok(pages
            .into_iter()
            .flat_map(move |page| page as usize * block..(page as usize + 1) * block))
    }
}
