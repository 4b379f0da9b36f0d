//! A decode step: one token into every head of a layer.
use super::{Address, Ledger, class_of};
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
    ) -> Result<Vec<Address>, CacheError> {
        let mut addresses = Vec::with_capacity(self.geometry.kv_heads);
        self.append_into(seq, layer, position, &mut addresses)?;
        Ok(addresses)
    }

    /// As [`Ledger::append`]; the addresses are put behind those that are in `addresses`. A step allocates nothing but
    /// where a head begins a page, if `addresses` has room for `H` more.
    ///
    /// # Errors
    ///
    /// As [`Ledger::append`]; `addresses` is as it was then.
    pub fn append_into(
        &mut self,
        seq: SeqId,
        layer: usize,
        position: Position,
        addresses: &mut Vec<Address>,
    ) -> Result<(), CacheError> {
        self.enter(seq, layer, position, false, |table, target| {
            if let Target::Slot(slot) = target {
                let (page, offset) = table.address(slot);
                addresses.push(Address { page, offset });
            }
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
    ) -> Result<Vec<Target>, CacheError> {
        let mut targets = Vec::with_capacity(self.geometry.kv_heads);
        self.append_on_device_into(seq, layer, position, has_scores, &mut targets)?;
        Ok(targets)
    }

    /// As [`Ledger::append_on_device`]; the targets are put behind those that are in `targets`.
    ///
    /// # Errors
    ///
    /// As [`Ledger::append`]; `targets` is as it was then.
    pub fn append_on_device_into(
        &mut self,
        seq: SeqId,
        layer: usize,
        position: Position,
        has_scores: bool,
        targets: &mut Vec<Target>,
    ) -> Result<(), CacheError> {
        self.enter(seq, layer, position, has_scores, |_, target| {
            targets.push(target);
        })
    }

    /// Enters one token into every head of a layer, and says of each head, when the token is in, where. A device that holds the
    /// scores chooses the slot where the lowest one goes.
    fn enter(
        &mut self,
        seq: SeqId,
        layer: usize,
        position: Position,
        has_scores: bool,
        mut say: impl FnMut(&HeadTable, Target),
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
        let begins = |(table, choice): &(&HeadTable, &Choice)| {
            matches!(choice.to, To::Place(Place::Append)) && table.is_packed()
        };
        let begun = tables.iter().zip(choices.iter()).filter(begins).count();
        sequence.reservation.ensure(begun)?;
        sequence.pages_held += begun;
        for (table, &Choice { hold, to }) in tables.iter_mut().zip(choices.iter()) {
            let overwrites = !matches!(to, To::Place(Place::Append));
            sequence.overwrites += u64::from(overwrites);
            self.evicted += u64::from(overwrites);
            let target = match to {
                To::Place(place) => {
                    let room = &mut sequence.reservation;
                    Target::Slot(table.insert(position, place, hold, room)?)
                }
                To::Device(recent) => {
                    table.overwrite_blindly(hold);
                    Target::Lowest { recent }
                }
            };
            say(table, target);
        }
        sequence.note(position.index() + 1);
        Ok(())
    }
}
