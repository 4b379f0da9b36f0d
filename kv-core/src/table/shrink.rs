//! A head that lets go of tokens in mid-sequence.
use super::{HeadTable, grow::SPARE};
use crate::{Growth, Move, Position, Reservation, Slot, TokenClass, pool::Full};

impl HeadTable {
    /// How many pages a shrink to `kept` copies, for others hold them and a survivor moves in.
    ///
    /// # Panics
    ///
    /// If the slots do not ascend, or one does not exist.
    pub(crate) fn copies_to_shrink(&self, kept: &[u32]) -> usize {
        let mut pages: Vec<usize> = self
            .refills(kept)
            .map(|(hole, _)| hole / self.block)
            .collect();
        pages.dedup();
        pages.retain(|&page| self.pages.is_shared(page));
        pages.len()
    }

    /// The holes that survivors of the last slots move into, which ascend, and each one's survivor.
    fn refills<'a>(&self, kept: &'a [u32]) -> impl Iterator<Item = (usize, u32)> + 'a {
        assert!(kept.is_sorted_by(|a, b| a < b), "slots ascend: {kept:?}");
        let last = kept.last().map_or(0, |&slot| slot as usize + 1);
        assert!(last <= self.len(), "slot {last} of {}", self.len());
        let stays = kept.partition_point(|&slot| (slot as usize) < kept.len());
        let mut is_held = vec![false; kept.len()];
        for &slot in &kept[..stays] {
            is_held[slot as usize] = true;
        }
        let holes = (0..kept.len()).filter(move |&slot| !is_held[slot]);
        holes.zip(kept[stays..].iter().copied())
    }

    /// Drops every slot but `kept`, which ascend, and grows by `growth` from here, with the class of each position. Survivors of the last slots move into
    /// the holes of the first; pages that come free go back into the reservation.
    ///
    /// # Errors
    ///
    /// [`Full`] if [`HeadTable::copies_to_shrink`] pages are not to be had.
    ///
    /// # Panics
    ///
    /// If the slots do not ascend, or one does not exist.
    pub(crate) fn shrink(
        &mut self,
        kept: &[u32],
        growth: (Growth, impl Fn(Position) -> TokenClass),
        scores: Option<&[f32]>,
        reservation: &mut Reservation,
    ) -> Result<Vec<Move>, Full> {
        let refills: Vec<(usize, u32)> = self.refills(kept).collect();
        let has_new = |scores: &&[f32]| {
            !self.scores.is_empty() || scores.iter().any(|score| score.to_bits() != 0)
        };
        if let Some(new) = scores.filter(has_new) {
            let scores = self.scores_mut();
            for (&slot, &score) in kept.iter().zip(new) {
                scores[slot as usize] = score;
            }
        }
        let mut moves = Vec::with_capacity(refills.len());
        for (hole, slot) in refills {
            self.refill(hole, slot as usize, reservation, &mut moves)?;
        }
        self.cut(kept.len(), reservation);
        self.is_shuffled = !self.positions.is_sorted();
        self.set_growth(growth.0, growth.1);
        Ok(moves)
    }

    /// Copies what is known of a slot into a hole.
    fn refill(
        &mut self,
        hole: usize,
        slot: usize,
        reservation: &mut Reservation,
        moves: &mut Vec<Move>,
    ) -> Result<(), Full> {
        let to = self.own(Slot::new(hole), reservation, moves)?;
        let (page, offset) = self.address(Slot::new(slot));
        let from = (page, Position::new(offset).0);
        moves.push(Move { from, to });
        self.positions[hole] = self.positions[slot];
        if !self.scores.is_empty() {
            self.scores[hole] = self.scores[slot];
        }
        self.holds.set(hole, self.holds.get(slot));
        Ok(())
    }

    /// Forgets the slots from `len` on and the pages that only they were in.
    fn cut(&mut self, len: usize, reservation: &mut Reservation) {
        self.positions.truncate(len);
        self.scores.truncate(len);
        self.holds.truncate(len);
        let pages = len.div_ceil(self.block);
        reservation.put_back(&mut self.pages, pages);
        let room = (pages + pages / SPARE + 1) * self.block;
        if self.positions.capacity() > room {
            self.positions.shrink_to(pages * self.block);
            self.scores.shrink_to(pages * self.block);
            self.pages.make_tight();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PagePool, Pins, Place, table::Hold};

    fn plain(_: Position) -> TokenClass {
        TokenClass::Plain
    }

    /// A head of `tokens` tokens that append, with pages of 4, whose scores are ten times their positions.
    fn head(tokens: u32, pins: &Pins, room: &mut Reservation) -> HeadTable {
        let mut head = HeadTable::new(4);
        for position in 0..tokens {
            let hold = head.hold_of(pins.contains(Position(position)), TokenClass::Plain);
            let pushed = head.push(Position(position), hold, room, &mut Vec::new());
            pushed.expect("room");
        }
        for (score, position) in head.scores_mut().iter_mut().zip(0_u8..) {
            *score = 10.0 * f32::from(position);
        }
        head
    }

    /// Page and offset that a token moves from, and to.
    fn numbers(step: &Move) -> ((u32, u32), (u32, u32)) {
        let (page, offset) = step.from;
        ((page.0, offset), (step.to.page().0, step.to.offset()))
    }

    #[test]
    fn survivors_of_the_last_slots_fill_the_first_holes() {
        let pool = PagePool::new(9);
        let mut room = pool.reservation();
        let mut head = head(10, &Pins::new(std::iter::once(8..9)), &mut room);
        let moves = head
            .shrink(&[1, 2, 6, 8, 9], (Growth::Append, plain), None, &mut room)
            .expect("room");
        // Slots 0, 3 and 4 are holes; 6, 8 and 9 fill them.
        let expected = [((1, 2), (0, 0)), ((2, 0), (0, 3)), ((2, 1), (1, 0))];
        assert_eq!(moves.iter().map(numbers).collect::<Vec<_>>(), expected);
        assert_eq!(head.positions(), [6, 1, 2, 8, 9].map(Position));
        assert_eq!(head.scores(), [60.0, 10.0, 20.0, 80.0, 90.0]);
        let pinned: Vec<bool> = (0..5).map(|slot| head.is_pinned(Slot(slot))).collect();
        assert_eq!(pinned, [false, false, false, true, false]);
        assert_eq!(head.page_ids().len(), 2);
        assert_eq!((pool.usage().held, room.credit()), (2, 1));
    }

    #[test]
    fn new_scores_go_with_their_tokens() {
        let pool = PagePool::new(9);
        let mut room = pool.reservation();
        let mut head = head(6, &Pins::default(), &mut room);
        let moves = head
            .shrink(
                &[1, 5],
                (Growth::Append, plain),
                Some(&[0.5, 0.25]),
                &mut room,
            )
            .expect("room");
        assert_eq!(moves.len(), 1);
        assert_eq!(head.positions(), [5, 1].map(Position));
        assert_eq!(head.scores(), [0.25, 0.5]);
    }

    #[test]
    fn all_may_stay_and_all_may_go() {
        let pool = PagePool::new(9);
        let mut room = pool.reservation();
        let mut head = head(5, &Pins::default(), &mut room);
        let none = head
            .shrink(&[0, 1, 2, 3, 4], (Growth::Append, plain), None, &mut room)
            .expect("room");
        assert_eq!((none, head.len(), head.page_ids().len()), (vec![], 5, 2));
        let none = head
            .shrink(&[], (Growth::Append, plain), None, &mut room)
            .expect("room");
        assert_eq!((none, head.len(), pool.usage().held), (vec![], 0, 0));
    }

    #[test]
    fn a_ring_goes_on_by_age_where_the_slots_are_shuffled() {
        let pool = PagePool::new(9);
        let mut room = pool.reservation();
        let pins = Pins::new(std::iter::once(4..5));
        let mut head = head(9, &pins, &mut room);
        let ring = Growth::Ring {
            sinks: 1,
            recent: 3,
        };
        // Left are 0, 4, 5, 7, 8 in the slots of 0, 5, 7, 8 and 4: one sink, one pin, a full ring of three.
        let moves = head.shrink(&[0, 4, 5, 7, 8], (ring, plain), None, &mut room);
        moves.expect("room");
        for (position, left) in [(9, 5), (10, 7), (11, 8), (12, 9)] {
            let Place::Overwrite(slot) = head.place_of(Hold::Free) else {
                panic!("the ring is full at {position}");
            };
            assert_eq!(head.positions()[slot.index()], Position(left));
            let place = Place::Overwrite(slot);
            head.insert(
                Position(position),
                place,
                Hold::Free,
                &mut room,
                &mut Vec::new(),
            )
            .expect("no page needed");
        }
    }

    #[test]
    #[should_panic(expected = "slots ascend")]
    fn a_slot_named_twice_is_a_panic() {
        let pool = PagePool::new(9);
        let mut room = pool.reservation();
        let _ = head(3, &Pins::default(), &mut room).shrink(
            &[1, 1],
            (Growth::Append, plain),
            None,
            &mut room,
        );
    }
}
