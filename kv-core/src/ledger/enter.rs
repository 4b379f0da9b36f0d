//! A decode step: one token into every head of a layer.
use super::{Address, Ledger, Move, class_of};
use crate::{CacheError, Geometry, HeadTable, Place, Position, SeqId, Target, table::Hold};

/// What becomes of a newcomer in one head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    hold: Hold,
    to: To,
}

#[derive(Debug, Clone, Copy)]
enum To {
    Place(Place),
    /// The device chooses the slot, outside so many newest tokens.
    Device(usize),
}

impl Choice {
    /// Pages that a head takes for it: one that it begins, or copies of pages that others hold, too.
    fn pages(&self, table: &HeadTable) -> usize {
        match self.to {
            To::Place(place) => usize::from(self.begins_page(table) || table.copies_for(place)),
            To::Device(_) => table.shared_pages(),
        }
    }

    fn begins_page(&self, table: &HeadTable) -> bool {
        matches!(self.to, To::Place(Place::Append)) && table.is_packed()
    }
}

/// Where a step's token goes in each head. What moves is copied first, for pages that others hold, too, are not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered<T> {
    /// What is copied, in this order, before anything is written.
    pub moves: Vec<Move>,
    /// Where the token goes, head by head.
    pub heads: Vec<T>,
}

impl<T> Default for Entered<T> {
    fn default() -> Self {
        Self {
            moves: Vec::new(),
            heads: Vec::new(),
        }
    }
}

impl<T> Entered<T> {
    /// Forgets everything, to be used for the next step.
    pub fn clear(&mut self) {
        self.moves.clear();
        self.heads.clear();
    }
}

impl Ledger {
    /// Enters the token at `position` into every head of a layer, and says where each head's copy is written, `[H]`.
    ///
    /// # Errors
    ///
    /// [`CacheError`], and nothing has changed then, so that the layer's token can be entered later;
    /// [`CacheError::Full`] only if nothing was reserved for the token.
    pub fn append(
        &mut self,
        seq: SeqId,
        layer: usize,
        position: Position,
    ) -> Result<Entered<Address>, CacheError> {
        let mut entered = Entered::default();
        self.append_into(seq, layer, position, &mut entered)?;
        Ok(entered)
    }

    /// As [`Ledger::append`]; what it says is put behind what is in `entered`. A step allocates nothing but where a head begins a page or
    /// copies one, if `entered` has room for `H` more.
    ///
    /// # Errors
    ///
    /// As [`Ledger::append`]; `entered` is as it was then.
    pub fn append_into(
        &mut self,
        seq: SeqId,
        layer: usize,
        position: Position,
        entered: &mut Entered<Address>,
    ) -> Result<(), CacheError> {
        let Entered { moves, heads } = entered;
        self.enter((seq, layer, position), false, moves, |_, address| {
            heads.extend(address);
        })
    }

    /// As [`Ledger::append`], for a host whose pages lie on a device. Where that device holds the scores (`has_scores`) and the
    /// lowest one goes, the device says which one that is, and it alone knows the positions of that head from then on.
    ///
    /// # Errors
    ///
    /// As [`Ledger::append`].
    pub fn append_on_device(
        &mut self,
        seq: SeqId,
        layer: usize,
        position: Position,
        has_scores: bool,
    ) -> Result<Entered<Target>, CacheError> {
        let mut entered = Entered::default();
        self.append_on_device_into(seq, layer, position, has_scores, &mut entered)?;
        Ok(entered)
    }

    /// As [`Ledger::append_on_device`]; what it says is put behind what is in `entered`.
    ///
    /// # Errors
    ///
    /// As [`Ledger::append`]; `entered` is as it was then.
    pub fn append_on_device_into(
        &mut self,
        seq: SeqId,
        layer: usize,
        position: Position,
        has_scores: bool,
        entered: &mut Entered<Target>,
    ) -> Result<(), CacheError> {
        let Entered { moves, heads } = entered;
        self.enter((seq, layer, position), has_scores, moves, |target, _| {
            heads.push(target);
        })
    }

    /// Enters one token into every head of a layer, and says of each head, when the token is in, where, and its address if that is
    /// known. A device that holds the scores chooses the slot where the lowest one goes.
    fn enter(
        &mut self,
        (seq, layer, position): (SeqId, usize, Position),
        has_scores: bool,
        moves: &mut Vec<Move>,
        mut say: impl FnMut(Target, Option<Address>),
    ) -> Result<(), CacheError> {
        let Geometry {
            layers, kv_heads, ..
        } = self.geometry;
        if layer >= layers {
            return Err(CacheError::UnknownLayer { layer, layers });
        }
        let sequence = self
            .sequences
            .get_mut(&seq)
            .ok_or(CacheError::UnknownSequence(seq))?;
        let tables = &mut sequence.heads[layer * kv_heads..(layer + 1) * kv_heads];
        let class = class_of(&sequence.classes, position);
        let is_pinned = sequence.pins.contains(position);
        // Chosen first, so that nothing has changed if a page is not to be had.
        let choices = &mut self.scratch.choices;
        choices.clear();
        choices.extend(tables.iter().map(|table| {
            let hold = table.hold_of(is_pinned, class);
            let device = table.evicts(hold).filter(|_| has_scores);
            let place = || To::Place(table.place_of(hold));
            let to = device.map_or_else(place, To::Device);
            Choice { hold, to }
        }));
        let of_each = || tables.iter().zip(choices.iter());
        let taken = of_each().map(|(table, choice)| choice.pages(table)).sum();
        let begun = of_each().filter(|(table, choice)| choice.begins_page(table));
        let begun = begun.count();
        let room = &mut sequence.reservation;
        room.ensure(taken)?;
        sequence.pages_held += begun;
        for (table, &Choice { hold, to }) in tables.iter_mut().zip(choices.iter()) {
            let overwrites = !matches!(to, To::Place(Place::Append));
            sequence.overwrites += u64::from(overwrites);
            self.evicted += u64::from(overwrites);
            match to {
                To::Place(place) => {
                    let (slot, address) = table.insert(position, place, hold, room, moves)?;
                    say(Target::Slot(slot), Some(address));
                }
                To::Device(recent) => {
                    table.overwrite_blindly(hold, room, moves)?;
                    say(Target::Lowest { recent }, None);
                }
            }
        }
        sequence.note(position.index() + 1);
        Ok(())
    }
}
