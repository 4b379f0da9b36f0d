//! One head's cache: which page and offset hold which token.
mod grow;
mod holds;
mod shrink;
mod victim;

use std::borrow::Cow;

use crate::{
    Address, Growth, Move, PageId, Pages, Position, Reservation, Slot, TokenClass, pool::Full,
};

pub(crate) use holds::Hold;
use holds::Holds;
use victim::{Run, Sinks};

/// Where a newcomer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Into a slot of its own, behind the last.
    Append,
    /// Into the slot of the token that it drives out.
    Overwrite(Slot),
}

/// Where a newcomer goes whose victim may have to be named by the device that holds the scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Into this slot.
    Slot(Slot),
    /// Into the slot with the lowest score that is neither pinned nor among the `recent` newest tokens; of equal scores
    /// the later position goes.
    Lowest {
        /// Newest tokens, never evicted.
        recent: usize,
    },
}

/// One head's slots, `T` of them, in `ceil(T / B)` pages.
///
/// Slot `s` lies in page `s / B` at offset `s % B`. Keys are stored after `RoPE`, so the order of the slots means
/// nothing to attention; each slot carries its position and, once one was given, its score: 4 bytes each.
#[derive(Debug)]
pub struct HeadTable {
    block: usize,
    pages: Pages,
    /// As [`HeadTable::positions`], and past ones once a device has overwritten slots.
    pub(crate) positions: Vec<Position>,
    /// None at all while every score is zero.
    scores: Vec<f32>,
    holds: Holds,
    growth: Growth,
    run: Run,
    sinks: Option<Sinks>,
    /// Where a ring looks for its next victim.
    cursor: usize,
    /// Whether a device has overwritten slots that it did not name.
    pub(crate) is_blind: bool,
    /// Whether the slots of a ring stand in no order, for some have moved.
    is_shuffled: bool,
}

impl HeadTable {
    /// An empty table with pages of `block` tokens.
    #[must_use]
    pub fn new(block: usize) -> Self {
        Self {
            block,
            pages: Pages::default(),
            positions: Vec::new(),
            scores: Vec::new(),
            holds: Holds::default(),
            growth: Growth::Append,
            run: Run::default(),
            sinks: None,
            cursor: 0,
            is_blind: false,
            is_shuffled: false,
        }
    }

    /// Tokens held, `T`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether no token is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Numbers of the pages held, in the order of the slots.
    #[must_use]
    pub fn page_ids(&self) -> &[u32] {
        self.pages.ids()
    }

    /// Positions held, by slot. None at all once a device has overwritten slots that it did not name
    /// ([`Ledger::append_on_device`](crate::Ledger::append_on_device)): then only the device knows them.
    #[must_use]
    pub fn positions(&self) -> &[Position] {
        if self.is_blind {
            return &[];
        }
        &self.positions
    }

    /// How many of its first slots hold the first tokens of the text, one after the other: all until one is evicted, and then those
    /// that were never to go.
    #[must_use]
    pub fn front(&self) -> usize {
        let slots = self.positions.iter().enumerate();
        slots
            .take_while(|(slot, position)| position.index() == *slot)
            .count()
    }

    /// Scores by slot; none at all if none was ever given: all are zero then, as [`HeadTable::score`] says.
    #[must_use]
    pub fn scores(&self) -> &[f32] {
        &self.scores
    }

    /// The scores, one for each slot whatever was given.
    pub(crate) fn scores_or_zeros(&self) -> Cow<'_, [f32]> {
        if self.scores.len() < self.len() {
            return vec![0.0; self.len()].into();
        }
        self.scores().into()
    }

    /// The score of a slot; zero where nothing was observed.
    ///
    /// # Panics
    ///
    /// If there is no such slot.
    #[must_use]
    pub fn score(&self, slot: Slot) -> f32 {
        self.check(slot);
        self.scores.get(slot.index()).copied().unwrap_or(0.0)
    }

    /// The scores of all slots, to add what was observed. From here on the head has a score for each slot.
    pub fn scores_mut(&mut self) -> &mut [f32] {
        if self.scores.len() < self.len() {
            self.scores.reserve_exact(self.positions.capacity());
            self.scores.resize(self.len(), 0.0);
        }
        &mut self.scores
    }

    /// Gives the slots these scores. Zeros are what slots have anyway.
    ///
    /// # Panics
    ///
    /// If there is not one for each slot.
    pub(crate) fn set_scores(&mut self, scores: &[f32]) {
        assert_eq!(scores.len(), self.len(), "a score for each slot kept");
        if !self.scores.is_empty() || scores.iter().any(|score| score.to_bits() != 0) {
            self.scores_mut().copy_from_slice(scores);
        }
    }

    /// How the head grows.
    #[must_use]
    pub const fn growth(&self) -> Growth {
        self.growth
    }

    /// Whether a slot's token never has to go for another: it is pinned, or of a class that the head protects. Of the latter only
    /// their number is known once a device has overwritten slots that it did not name.
    #[must_use]
    pub fn is_pinned(&self, slot: Slot) -> bool {
        self.holds.get(slot.index()) != Hold::Free
    }

    fn check(&self, slot: Slot) {
        assert!(
            slot.index() < self.len(),
            "slot {slot} of a head with {}",
            self.len()
        );
    }

    /// Page and offset of a slot.
    ///
    /// # Panics
    ///
    /// If there is no such slot.
    #[must_use]
    pub fn address(&self, slot: Slot) -> (PageId, usize) {
        self.check(slot);
        let page = self.page_ids()[slot.index() / self.block];
        (PageId(page), slot.index() % self.block)
    }

    /// Another table of the same tokens in the same pages; neither can write those from here on, but where it is alone with one.
    pub(crate) fn share(&mut self) -> Self {
        Self {
            pages: self.pages.share(),
            positions: self.positions.clone(),
            scores: self.scores.clone(),
            holds: self.holds.clone(),
            sinks: self.sinks,
            ..*self
        }
    }

    /// How many of its pages others hold, too.
    pub(crate) fn shared_pages(&self) -> usize {
        self.pages.shared_from(0)
    }

    /// Pages that it may yet have to copy: where it only appends (`never_cuts`) the last one, if a token still fits in.
    pub(crate) fn copies_due(&self, never_cuts: bool) -> usize {
        if !(never_cuts && self.growth == Growth::Append) {
            return self.shared_pages();
        }
        if self.is_packed() {
            return 0;
        }
        self.pages.shared_from(self.pages.len() - 1)
    }

    /// Whether writing the slot, or the one behind the last where it does not begin a page, takes a copy of its page.
    pub(crate) fn copies_for(&self, place: Place) -> bool {
        match place {
            Place::Append => !self.is_packed() && self.pages.is_shared(self.pages.len() - 1),
            Place::Overwrite(slot) => self.pages.is_shared(slot.index() / self.block),
        }
    }

    /// The right to write a slot of a page that is there. Where others hold that page, its tokens come along: `moves` says so.
    ///
    /// # Errors
    ///
    /// [`Full`] if no page is to be had for a copy; nothing has changed then.
    pub(crate) fn own(
        &mut self,
        slot: Slot,
        reservation: &mut Reservation,
        moves: &mut Vec<Move>,
    ) -> Result<Address, Full> {
        let (index, offset) = (slot.index() / self.block, slot.index() % self.block);
        let own = self.pages.own(index, reservation)?;
        if let Some(old) = own.instead_of {
            let used = (self.len() - index * self.block).min(self.block);
            let places = (0..used).map(|offset| Address::of(&own, offset));
            moves.extend(places.map(|to| Move {
                from: (old, to.offset()),
                to,
            }));
        }
        Ok(Address::of(&own, offset))
    }

    /// Says how the head grows from now on. A ring starts at its oldest token outside the sinks, so the slots must
    /// stand in the order of the text, or the head knows that they do not. Of the classes that it protects, by `class` of each
    /// position, the first tokens stay.
    pub(crate) fn set_growth(&mut self, growth: Growth, class: impl Fn(Position) -> TokenClass) {
        self.growth = growth;
        self.protect(class);
        self.cursor = match growth {
            Growth::Ring { sinks, .. } => sinks,
            Growth::Append | Growth::EvictLowest { .. } | Growth::Protect { .. } => 0,
        };
        self.find_run();
        self.find_sinks();
    }

    /// Marks what the growth protects of the tokens held, and nothing else.
    fn protect(&mut self, class: impl Fn(Position) -> TokenClass) {
        self.holds.unprotect();
        let Growth::Protect { classes, most, .. } = self.growth else {
            return;
        };
        let mut slots: Vec<usize> = (0..self.len())
            .filter(|&slot| {
                self.holds.get(slot) == Hold::Free && classes.names(class(self.positions[slot]))
            })
            .collect();
        let stay = most.saturating_sub(1);
        if stay < slots.len() {
            slots.select_nth_unstable_by_key(stay, |&slot| self.positions[slot]);
            slots.truncate(stay);
        }
        for slot in slots {
            self.holds.set(slot, Hold::Protected);
        }
    }

    /// Why a newcomer of this class will stay.
    pub(crate) fn hold_of(&self, is_pinned: bool, class: TokenClass) -> Hold {
        match self.growth {
            _ if is_pinned => Hold::Pinned,
            Growth::Protect { classes, most, .. }
                if classes.names(class) && self.holds.protected() + 1 < most =>
            {
                Hold::Protected
            }
            _ => Hold::Free,
        }
    }

    /// Puts the token at `position`, held as [`HeadTable::hold_of`] says, where [`HeadTable::place_of`] says, taking a page if
    /// the slot needs one or lies in one that others hold, too: then `moves` says what comes along.
    ///
    /// # Errors
    ///
    /// [`Full`] if a page is needed and none is to be had; nothing has changed then.
    pub(crate) fn insert(
        &mut self,
        position: Position,
        place: Place,
        hold: Hold,
        reservation: &mut Reservation,
        moves: &mut Vec<Move>,
    ) -> Result<(Slot, Address), Full> {
        match place {
            Place::Append => self.push(position, hold, reservation, moves),
            Place::Overwrite(slot) => {
                let address = self.own(slot, reservation, moves)?;
                let left = std::mem::replace(&mut self.positions[slot.index()], position);
                if let Some(score) = self.scores.get_mut(slot.index()) {
                    *score = 0.0;
                }
                // Its victim was free, and a newcomer that overwrites is not pinned.
                self.holds.set(slot.index(), hold);
                self.cursor = slot.index() + 1;
                self.note_arrival(position, Some(left));
                Ok((slot, address))
            }
        }
    }

    /// Where the next token goes, if it is neither pinned nor protected.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place_of(Hold::Free)
    }

    /// Where a newcomer goes. Pins come on top of what the policy keeps: a pinned token drives nobody out.
    pub(crate) fn place_of(&self, hold: Hold) -> Place {
        let victim = match self.growth {
            Growth::Ring { sinks, recent }
                if hold != Hold::Pinned && self.ringed(sinks) >= recent =>
            {
                self.ring_victim(sinks)
            }
            _ => self.evicts(hold).and_then(|recent| self.lowest(recent)),
        };
        victim.map_or(Place::Append, |slot| Place::Overwrite(Slot::new(slot)))
    }

    /// How many of the newest tokens are safe, if a newcomer drives out the lowest score of the others.
    pub(crate) fn evicts(&self, hold: Hold) -> Option<usize> {
        if hold == Hold::Pinned {
            return None;
        }
        match self.growth {
            Growth::EvictLowest { limit, recent } => {
                (self.free() >= limit).then(|| protected(limit, recent))
            }
            Growth::Protect {
                limit,
                recent,
                most,
                ..
            } => {
                let (free, left) = (self.free(), most.max(1) - self.holds.protected());
                let is_full = free >= left || (hold == Hold::Free && free >= limit.max(1));
                is_full.then(|| protected(limit.min(left), recent))
            }
            Growth::Append | Growth::Ring { .. } => None,
        }
    }

    /// A device puts a token into a slot of its own choice. It drives out one token that is free. Which slot that was matters no
    /// more: from here on the table only counts. Pages that others hold, too, are copied first.
    ///
    /// # Errors
    ///
    /// [`Full`] if there is no room for that.
    pub(crate) fn overwrite_blindly(
        &mut self,
        hold: Hold,
        reservation: &mut Reservation,
        moves: &mut Vec<Move>,
    ) -> Result<(), Full> {
        for page in 0..self.pages.len() {
            self.own(Slot::new(page * self.block), reservation, moves)?;
        }
        self.is_blind = true;
        let is_free = |&slot: &usize| self.holds.get(slot) == Hold::Free;
        if hold != Hold::Free
            && let Some(victim) = (0..self.len()).find(is_free)
        {
            self.holds.set(victim, hold);
        }
        Ok(())
    }

    /// Tokens that are not pinned.
    pub(crate) fn unpinned(&self) -> usize {
        self.len() - self.holds.pinned()
    }

    /// Hands the pages out, and keeps what they hold in mind.
    pub(crate) fn take_pages(&mut self) -> Pages {
        std::mem::take(&mut self.pages)
    }

    /// Takes as many pages as the tokens held fill, after [`HeadTable::take_pages`].
    pub(crate) fn put_pages(&mut self, room: &mut Reservation) -> Result<(), Full> {
        room.take_many(self.len().div_ceil(self.block), &mut self.pages)
    }

    /// Empties the table and hands its pages out, for a release under one lock.
    pub(crate) fn into_pages(self) -> Pages {
        self.pages
    }
}

/// The limit is a promise and the window is not: it gives way where both cannot be had.
fn protected(limit: usize, recent: usize) -> usize {
    recent.min(limit.saturating_sub(1))
}

#[cfg(test)]
mod tests;
