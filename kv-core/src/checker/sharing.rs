//! A replayed ledger whose sequences share pages.
use std::collections::BTreeSet;

use super::{Replay, model::HeadModel, replay::Shadow};
use crate::{CacheError, Geometry, Growth, HeadTable, Kept, Position, Room, SeqId};

impl Replay {
    /// [`Ledger::fork`](crate::Ledger::fork).
    ///
    /// # Errors
    ///
    /// What the ledger answers.
    pub fn fork(&mut self, from: SeqId, to: SeqId, tokens: usize) -> Result<(), CacheError> {
        let wanted = self
            .sequences
            .get(&from)
            .map(|shadow| self.demanded_of(shadow, tokens));
        let layers = 0..self.ledger.geometry().layers;
        let missing = wanted.map_or(0, |wanted| {
            self.missing(from, self.due_of_original(from, layers))
                + self.due_when_shared(from, wanted)
        });
        let free = self.unpromised();
        let result = self.ledger.fork(from, to, tokens);
        if matches!(result, Ok(()) | Err(CacheError::Full(_))) {
            self.expect(to, (missing, free), result.is_ok());
        }
        self.note_sharing(from, &result);
        result?;
        if let Some(original) = self.sequences.get(&from) {
            let mut copy = original.clone();
            copy.wanted = wanted;
            copy.pages_peak = copy.pages(self.ledger.geometry().block);
            self.sequences.insert(to, copy);
        }
        Ok(())
    }

    /// [`Ledger::share_layer`](crate::Ledger::share_layer), of a sequence that has seen nothing but its prompt.
    ///
    /// # Errors
    ///
    /// What the ledger answers.
    pub fn share_layer(&mut self, from: SeqId, to: SeqId, layer: usize) -> Result<(), CacheError> {
        let Geometry {
            kv_heads, block, ..
        } = *self.ledger.geometry();
        let result = self.ledger.share_layer(from, to, layer);
        self.note_sharing(from, &result);
        self.note_sharing(to, &result);
        result?;
        let Some(original) = self.sequences.get(&from) else {
            return Ok(());
        };
        let heads = layer * kv_heads..(layer + 1) * kv_heads;
        let (shared, prompt, seen) = (
            original.heads[heads.clone()].to_vec(),
            original.prompt,
            original.seen,
        );
        if let Some(copy) = self.sequences.get_mut(&to) {
            copy.heads[heads].clone_from_slice(&shared);
            copy.prompt = prompt;
            copy.seen = copy.seen.max(seen);
            copy.pages_peak = copy.pages_peak.max(copy.pages(block));
        }
        Ok(())
    }

    /// From here on a sequence may hold pages together with another, or did while it was tried.
    fn note_sharing(&mut self, seq: SeqId, result: &Result<(), CacheError>) {
        if matches!(result, Ok(()) | Err(CacheError::Full(_)))
            && let Some(shadow) = self.sequences.get_mut(&seq)
        {
            shadow.was_shared = true;
        }
    }

    /// How many heads hold a page.
    pub(super) fn holders(&self, page: u32) -> usize {
        let heads = self.ledger.sequences().flat_map(|(_, one)| one.heads());
        heads
            .filter(|table| table.page_ids().contains(&page))
            .count()
    }

    fn is_shared(&self, page: u32) -> bool {
        self.holders(page) > 1
    }

    fn tables(&self, seq: SeqId) -> &[HeadTable] {
        let sequence = self.ledger.sequence(seq);
        sequence.map_or(&[], |sequence| sequence.heads())
    }

    /// Pages that a sequence may have to take to come to hold `wanted`.
    pub(super) fn due(&self, seq: SeqId, wanted: usize) -> usize {
        self.due_where(seq, wanted, |_, page| self.is_shared(page))
    }

    /// The same if another held all of its pages, too.
    fn due_when_shared(&self, seq: SeqId, wanted: usize) -> usize {
        self.due_where(seq, wanted, |_, _| true)
    }

    /// What a sequence is due once another holds these layers, too; nothing if it was set aside.
    fn due_of_original(&self, seq: SeqId, layers: std::ops::Range<usize>) -> usize {
        let wanted = self.sequences.get(&seq).and_then(|shadow| shadow.wanted);
        wanted.map_or(0, |wanted| {
            self.due_where(seq, wanted, |layer, page| {
                layers.contains(&layer) || self.is_shared(page)
            })
        })
    }

    fn due_where(
        &self,
        seq: SeqId,
        wanted: usize,
        is_shared: impl Fn(usize, u32) -> bool,
    ) -> usize {
        let Some(shadow) = self.sequences.get(&seq) else {
            return 0;
        };
        let Geometry {
            kv_heads, block, ..
        } = *self.ledger.geometry();
        let mut due = wanted.saturating_sub(shadow.pages(block));
        for (index, (model, table)) in shadow.heads.iter().zip(self.tables(seq)).enumerate() {
            let layer = index / kv_heads;
            let shared = |page: &&u32| is_shared(layer, **page);
            due += if only_appends(shadow, model, layer, index % kv_heads) {
                let is_partial = !model.tokens().len().is_multiple_of(block);
                let last = table.page_ids().last().filter(shared);
                usize::from(is_partial && last.is_some())
            } else {
                table.page_ids().iter().filter(shared).count()
            };
        }
        due
    }

    /// Pages that a token takes: begun, or copied because others hold them.
    pub(super) fn taken_by(&self, seq: SeqId, layer: usize, position: Position) -> usize {
        let Geometry {
            layers,
            kv_heads,
            block,
            ..
        } = *self.ledger.geometry();
        let Some(shadow) = self.sequences.get(&seq).filter(|_| layer < layers) else {
            return 0;
        };
        let newcomer = shadow.token(position);
        let heads = layer * kv_heads..(layer + 1) * kv_heads;
        let pages = heads.map(|index| {
            let (model, table) = (&shadow.heads[index], &self.tables(seq)[index]);
            let slot = match model.leaver(&newcomer) {
                None => model.tokens().len(),
                Some(leaver) => {
                    let held = table.positions().iter();
                    held.take_while(|&&at| at != leaver).count()
                }
            };
            let page = table.page_ids().get(slot / block);
            usize::from(page.is_none_or(|&page| self.is_shared(page)))
        });
        pages.sum()
    }

    /// Pages that a shrink has to have in credit.
    pub(super) fn taken_by_shrink(&self, seq: SeqId, layer: usize, kept: &Kept) -> usize {
        let Geometry {
            layers,
            kv_heads,
            block,
            ..
        } = *self.ledger.geometry();
        let Some(shadow) = self.sequences.get(&seq).filter(|_| layer < layers) else {
            return 0;
        };
        let (mut copies, mut unreckoned) = (0, 0);
        for (head, slots) in kept.slots.iter().enumerate() {
            let index = layer * kv_heads + head;
            let (model, table) = (&shadow.heads[index], &self.tables(seq)[index]);
            let holes =
                (0..slots.len()).filter(|&hole| !slots.iter().any(|&slot| slot as usize == hole));
            let written: BTreeSet<u32> = holes.map(|hole| table.page_ids()[hole / block]).collect();
            copies += written.iter().filter(|&&page| self.is_shared(page)).count();
            if only_appends(shadow, model, layer, head) {
                let pages = table.page_ids().iter();
                unreckoned += pages.filter(|&&page| self.is_shared(page)).count();
            }
        }
        if unreckoned == 0 {
            return copies;
        }
        let due = shadow.wanted.map_or(0, |wanted| self.due(seq, wanted));
        copies.max(due + unreckoned)
    }
}

/// Whether nothing ever leaves a head.
fn only_appends(shadow: &Shadow, model: &HeadModel, layer: usize, head: usize) -> bool {
    let is_unbounded = match &shadow.demand.rooms[layer] {
        Room::Each(tokens) | Room::Together(tokens) => *tokens == usize::MAX,
        Room::Heads(tokens) => tokens[head] == usize::MAX,
    };
    model.growth() == Growth::Append && (shadow.demand.appends || is_unbounded)
}
