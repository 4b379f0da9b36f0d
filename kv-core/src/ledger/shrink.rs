//! Plans of what a layer holds already: asked when a later layer has reported, or when a head is full.
use std::borrow::Cow;

use super::{Address, Ledger, class_of};
use crate::{
    CacheError, Cadence, Geometry, HeadTable, KeepPlan, Kept, LayerView, Needs, Observation,
    PageId, Policy, Position, SeqId,
};

/// A token that has moved to another slot, or whose page has been copied because others hold it, too: its key and value are copied from
/// where they lie. Moves are carried out in their order, before anything else is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The page and the place in it where it lies.
    pub from: (PageId, u32),
    /// Where it belongs.
    pub to: Address,
}

impl Ledger {
    /// Whether the token at `position` would take a layer beyond its room, so that a policy under
    /// [`Cadence::Full`](crate::Cadence::Full) is asked first. Pins come on top of a room, and so does what is
    /// generated where the policy appends it.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`].
    ///
    /// # Panics
    ///
    /// If the model has no such layer.
    pub fn is_full(
        &self,
        seq: SeqId,
        layer: usize,
        position: Position,
    ) -> Result<bool, CacheError> {
        let sequence = self.sequence(seq)?;
        if sequence.demand.appends || sequence.pins.contains(position) {
            return Ok(false);
        }
        let tables = self.heads(seq, layer)?.iter();
        let lens = tables.map(|table| table.unpinned() + 1);
        Ok(!sequence.demand.rooms[layer].holds_each(lens))
    }

    /// What a policy keeps of what a layer holds. Its view has the slots' scores whether it
    /// observes or not, for earlier plans may have brought them, and under [`Cadence::Cascade`] the `reports` so far.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`], [`CacheError::Blind`].
    ///
    /// # Panics
    ///
    /// If the model has no such layer, or as [`KeepPlan::resolve`].
    pub fn plan_again(
        &self,
        seq: SeqId,
        layer: usize,
        policy: &(impl Policy + ?Sized),
        budget: usize,
        reports: Option<&[f64]>,
    ) -> Result<Kept, CacheError> {
        let sequence = self.sequence(seq)?;
        let tables = self.seeing(seq, layer)?;
        let positions: Vec<&[Position]> = tables.iter().map(HeadTable::positions).collect();
        let scores = tables.iter().map(HeadTable::scores_or_zeros);
        let scores: Vec<Cow<'_, [f32]>> = scores.collect();
        let scores: Vec<&[f32]> = scores.iter().map(AsRef::as_ref).collect();
        let Needs {
            observation,
            cadence,
            ..
        } = policy.needs();
        let mut view = LayerView::decode(layer, &positions, sequence.prompt, budget);
        // Observed by the host, or brought by an earlier plan: both stay with the slots.
        if observation != Observation::None || cadence != Cadence::LayerPrefill {
            view = view.with_scores(observation, &scores);
        }
        if let Some(reports) = reports {
            view = view.with_reports(reports);
        }
        let mut keep = KeepPlan::all(tables.len());
        policy.plan(&view, &mut keep);
        Ok(keep.resolve(&view, &sequence.pins))
    }

    /// Drops what a plan no longer keeps of what a layer holds. Tokens of the last pages move into the holes, and whole
    /// pages go back to what the sequence was promised. Returns what the host copies, head by head.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`], [`CacheError::UnknownLayer`], [`CacheError::Blind`]; [`CacheError::Full`] only if pages that others
    /// hold, too, have to be copied and nothing was promised for that. Nothing has changed then.
    ///
    /// # Panics
    ///
    /// If the plan has another number of heads than the model, or of scores than slots; or if a head's slots do not
    /// ascend, or name one that does not exist.
    pub fn shrink(
        &mut self,
        seq: SeqId,
        layer: usize,
        kept: &Kept,
    ) -> Result<Vec<Move>, CacheError> {
        let Geometry {
            layers, kv_heads, ..
        } = self.geometry;
        if layer >= layers {
            return Err(CacheError::UnknownLayer { layer, layers });
        }
        self.seeing(seq, layer)?;
        assert_eq!(
            (kept.slots.len(), kept.growth.len()),
            (kv_heads, kv_heads),
            "slots and a growth for each head"
        );
        let sequence = self
            .sequences
            .get_mut(&seq)
            .ok_or(CacheError::UnknownSequence(seq))?;
        let heads = layer * kv_heads..(layer + 1) * kv_heads;
        let copies = sequence.copies_to_shrink(heads.clone(), &kept.slots);
        sequence.reservation.ensure(copies)?;
        let tables = &mut sequence.heads[heads];
        let mut moves = Vec::new();
        for (head, table) in tables.iter_mut().enumerate() {
            let (slots, held, pages) = (&kept.slots[head], table.len(), table.page_ids().len());
            let scores = kept.scores.as_ref().map(|scores| scores[head].as_slice());
            if let Some(scores) = scores {
                assert_eq!(scores.len(), slots.len(), "a score for each slot kept");
            }
            let class = |position| class_of(&sequence.classes, position);
            let growth = (kept.growth[head], class);
            moves.extend(table.shrink(slots, growth, scores, &mut sequence.reservation)?);
            self.evicted += (held - slots.len()) as u64;
            sequence.pages_held -= pages - table.page_ids().len();
        }
        sequence.settle();
        Ok(moves)
    }

    /// The heads of a layer, if it is known what they hold.
    fn seeing(&self, seq: SeqId, layer: usize) -> Result<&[HeadTable], CacheError> {
        let tables = self.heads(seq, layer)?;
        if tables.iter().any(|table| table.is_blind) {
            return Err(CacheError::Blind { seq, layer });
        }
        Ok(tables)
    }
}
