//! Caches that several sequences hold together until they differ.
use super::{Ledger, Sequence};
use crate::{CacheError, HeadTable, SeqId};

impl Ledger {
    /// Opens `to` as a copy of `from` that will be `tokens` long: both hold the same pages, and whoever writes into one that the other
    /// holds, too, copies it first. Both are promised the pages for that; one that was set aside ([`Ledger::forgo`]) is promised nothing.
    ///
    /// # Errors
    ///
    /// [`CacheError::Full`] if the pool cannot promise that much, [`CacheError::UnknownSequence`], [`CacheError::AlreadyOpen`]; nothing has
    /// changed then.
    pub fn fork(&mut self, from: SeqId, to: SeqId, tokens: usize) -> Result<(), CacheError> {
        self.open_beside(from, to)?;
        let shared = (0..self.geometry.layers)
            .try_for_each(|layer| self.share_layer(from, to, layer))
            .and_then(|()| self.reserve(to, tokens));
        if shared.is_err() {
            self.release(to);
        }
        shared
    }

    /// Opens `to` with the demand, the pins and the text of `from`, without pages and without a promise: for
    /// [`Ledger::share_layer`].
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`], [`CacheError::AlreadyOpen`]; nothing has changed then.
    pub fn open_beside(&mut self, from: SeqId, to: SeqId) -> Result<(), CacheError> {
        if self.sequences.contains_key(&to) {
            return Err(CacheError::AlreadyOpen(to));
        }
        let original = self.sequence(from)?;
        let block = self.geometry.block;
        let copy = Sequence {
            heads: original
                .heads
                .iter()
                .map(|_| HeadTable::new(block))
                .collect(),
            reservation: self.pool.reservation(),
            wanted: None,
            has_shared: false,
            demand: original.demand.clone(),
            pins: original.pins.clone(),
            classes: original.classes.clone(),
            prompt: original.prompt,
            seen: 0,
            base: original.base,
            pages_held: 0,
            pages_peak: 0,
            overwrites: original.overwrites,
        };
        self.sequences.insert(to, copy);
        Ok(())
    }

    /// Has `to`, whose heads of this layer are empty, hold what those of `from` hold.
    ///
    /// # Errors
    ///
    /// [`CacheError::Full`] if the pool cannot promise the copies that may become due, [`CacheError::UnknownSequence`],
    /// [`CacheError::UnknownLayer`], [`CacheError::NotEmpty`]; nothing has changed then.
    pub fn share_layer(&mut self, from: SeqId, to: SeqId, layer: usize) -> Result<(), CacheError> {
        let (layers, kv_heads) = (self.geometry.layers, self.geometry.kv_heads);
        if layer >= layers {
            return Err(CacheError::UnknownLayer { layer, layers });
        }
        let heads = layer * kv_heads..(layer + 1) * kv_heads;
        if self.heads(to, layer)?.iter().any(|table| !table.is_empty()) {
            return Err(CacheError::NotEmpty { seq: to, layer });
        }
        let original = self.of(from)?;
        original.has_shared = true;
        let prompt = original.prompt;
        let shared: Vec<HeadTable> = original.heads[heads.clone()]
            .iter_mut()
            .map(HeadTable::share)
            .collect();
        // The newest token is always held; other layers may have read on.
        let held = shared.iter().flat_map(HeadTable::positions).max();
        let seen = held.map_or(0, |newest| newest.index() + 1);
        let copy = self.of(to)?;
        copy.has_shared = true;
        let before = (copy.prompt, copy.seen, copy.pages_peak);
        copy.pages_held += shared
            .iter()
            .map(|table| table.page_ids().len())
            .sum::<usize>();
        copy.heads[heads.clone()]
            .iter_mut()
            .zip(shared)
            .for_each(|(head, shared)| *head = shared);
        copy.prompt = prompt;
        copy.note(seen);
        // What the copy does not have to take, the original may be promised.
        copy.settle();
        let original = self.of(from)?;
        let Err(full) = original.promise(original.wanted) else {
            return Ok(());
        };
        let block = self.geometry.block;
        let copy = self.of(to)?;
        for head in &mut copy.heads[heads] {
            copy.pages_held -= head.page_ids().len();
            *head = HeadTable::new(block);
        }
        (copy.prompt, copy.seen, copy.pages_peak) = before;
        copy.promise(copy.wanted)?;
        Err(full)
    }
}
