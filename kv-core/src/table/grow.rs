//! Slots for tokens that come, and memory for what the slots carry.
use super::{HeadTable, Hold};
use crate::{Address, Move, Pins, Position, Reservation, Slot, pool::Full};

/// A head that grows makes room for this part of its slots at once: few copies, little to spare.
pub(super) const SPARE: usize = 32;

impl HeadTable {
    /// Whether one more slot needs one more page.
    pub(crate) fn is_packed(&self) -> bool {
        self.len() == self.pages.len() * self.block
    }

    /// Enters a prompt's tokens into an empty table, with the pages that they need, and says where each is written. To be followed
    /// by [`HeadTable::set_growth`].
    pub(crate) fn fill(
        &mut self,
        positions: &[u32],
        pins: &Pins,
        reservation: &mut Reservation,
    ) -> Result<Vec<Address>, Full> {
        let pages = positions.len().div_ceil(self.block);
        self.pages.make_room(pages);
        reservation.take_many(pages, &mut self.pages)?;
        self.positions.reserve_exact(pages * self.block);
        self.positions
            .extend(positions.iter().copied().map(Position));
        for (slot, &position) in self.positions.iter().enumerate() {
            if pins.contains(position) {
                self.holds.set(slot, Hold::Pinned);
            }
        }
        let mut addresses = Vec::with_capacity(positions.len());
        for page in 0..pages {
            let own = self.pages.own(page, reservation)?;
            let used = (positions.len() - page * self.block).min(self.block);
            addresses.extend((0..used).map(|offset| Address::of(&own, offset)));
        }
        Ok(addresses)
    }

    /// Appends a slot.
    pub(super) fn push(
        &mut self,
        position: Position,
        hold: Hold,
        reservation: &mut Reservation,
        moves: &mut Vec<Move>,
    ) -> Result<(Slot, Address), Full> {
        let slot = Slot::new(self.len());
        if self.is_packed() {
            self.begin_page(reservation)?;
        }
        let address = self.own(slot, reservation, moves)?;
        self.positions.push(position);
        if !self.scores.is_empty() {
            self.scores.push(0.0);
        }
        self.holds.set(slot.index(), hold);
        self.note_arrival(position, None);
        Ok((slot, address))
    }

    /// Takes a page, and memory for what its slots carry: nothing else here allocates while a head grows.
    fn begin_page(&mut self, reservation: &mut Reservation) -> Result<(), Full> {
        let spare = (self.pages.len() / SPARE).max(1);
        if self.pages.is_tight() {
            self.pages.make_room(spare);
        }
        reservation.take_many(1, &mut self.pages)?;
        if self.positions.capacity() < self.pages.len() * self.block {
            self.positions.reserve_exact(spare * self.block);
        }
        if !self.scores.is_empty() {
            let more = self.positions.capacity() - self.scores.len();
            self.scores.reserve_exact(more);
        }
        Ok(())
    }
}
