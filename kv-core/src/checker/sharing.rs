//! A replayed ledger whose sequences share pages.
use std::collections::BTreeSet;

use super::{Replay, model::HeadModel, replay::Shadow};
use crate::{CacheError, Geometry, Growth, HeadTable, Kept, Position, Room, SeqId, Sequence};

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
        let missing = wanted.map_or(0, |wanted| {
            let original = self.sequences.get(&from).and_then(|shadow| shadow.wanted);
            let of_original = original.map_or(0, |wanted| self.due_when_shared(from, wanted));
            self.missing(from, of_original) + self.due_when_shared(from, wanted)
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

    /// Pages that a sequence may have to take to come to hold `wanted`.
    pub(super) fn due(&self, seq: SeqId, wanted: usize) -> usize {
        self.due_where(seq, wanted, |page| self.is_shared(page))
    }

    /// The same if another held all of its pages, too.
    fn due_when_shared(&self, seq: SeqId, wanted: usize) -> usize {
        self.due_where(seq, wanted, |_| true)
    }

    fn due_where(&self, seq: SeqId, wanted: usize, is_shared: impl Fn(u32) -> bool) -> usize {
        let Some(shadow) = self.sequences.get(&seq) else {
            return 0;
        };
        let block = self.ledger.geometry().block;
        let mut due = wanted.saturating_sub(shadow.pages(block));
        for layer in 0..self.ledger.geometry().layers {
            for (head, (model, table)) in self.heads_of(seq, layer).enumerate() {
                let mut pages = table.page_ids().iter().filter(|&&page| is_shared(page));
                due += if only_appends(shadow, model, layer, head) {
                    let is_partial = !model.tokens().len().is_multiple_of(block);
                    usize::from(is_partial && pages.next_back() == table.page_ids().last())
                } else {
                    pages.count()
                };
            }
        }
        due
    }

    /// The heads of a layer, each as the model and as the ledger has it; none where there is no such sequence or layer.
    fn heads_of(&self, seq: SeqId, layer: usize) -> impl Iterator<Item = (&HeadModel, &HeadTable)> {
        let kv_heads = self.ledger.geometry().kv_heads;
        let models = self
            .sequences
            .get(&seq)
            .map_or(&[][..], |shadow| &shadow.heads);
        let tables = self.ledger.sequence(seq).map_or(&[][..], Sequence::heads);
        let heads = models.iter().zip(tables);
        heads.skip(layer * kv_heads).take(kv_heads)
    }

    /// Pages that a token takes: begun, or copied because others hold them.
    pub(super) fn taken_by(&self, seq: SeqId, layer: usize, position: Position) -> usize {
        let Some(shadow) = self.sequences.get(&seq) else {
            return 0;
        };
        let block = self.ledger.geometry().block;
        let newcomer = shadow.token(position);
        let pages = self.heads_of(seq, layer).map(|(model, table)| {
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
        let Some(shadow) = self.sequences.get(&seq) else {
            return 0;
        };
        let block = self.ledger.geometry().block;
        let (mut copies, mut unreckoned) = (0, 0);
        let heads = self.heads_of(seq, layer).zip(&kept.slots);
        for (head, ((model, table), slots)) in heads.enumerate() {
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
