//! One head's cache: which page and offset hold which token.
mod shrink;

use crate::{
    Growth, OwnedPage, PageId, Pins, Position, Reservation, SharedPage, Slot, TokenClass,
    pool::Full,
};

/// A page in a table.
#[derive(Debug)]
pub enum Page {
    /// Ours alone: may be written.
    Owned(OwnedPage),
    /// Held by others too: may be read.
    Shared(SharedPage),
}

impl Page {
    /// Which page.
    #[must_use]
    pub fn id(&self) -> PageId {
        match self {
            Self::Owned(page) => page.id(),
            Self::Shared(page) => page.id(),
        }
    }
}

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

/// Why a token stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It need not.
    Free,
    /// It is of a class that the head protects.
    Protected,
    /// The request pins it.
    Pinned,
}

/// One head's slots, `T` of them, in `ceil(T / B)` pages.
///
/// Slot `s` lies in page `s / B` at offset `s % B`. Keys are stored after `RoPE`, so the order of the slots means
/// nothing to attention; each slot carries its position and, for policies that asked, its score.
#[derive(Debug)]
pub struct HeadTable {
    block: usize,
    pages: Vec<Page>,
    /// The pages' numbers once more, as kernels want them.
    page_ids: Vec<u32>,
    positions: Vec<Position>,
    scores: Vec<f32>,
    holds: Vec<Hold>,
    growth: Growth,
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
            pages: Vec::new(),
            page_ids: Vec::new(),
            positions: Vec::new(),
            scores: Vec::new(),
            holds: Vec::new(),
            growth: Growth::Append,
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

    /// Pages held, in the order of the slots.
    #[must_use]
    pub fn pages(&self) -> &[Page] {
        &self.pages
    }

    /// Numbers of the pages held, in the order of the slots.
    #[must_use]
    pub fn page_ids(&self) -> &[u32] {
        &self.page_ids
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

    /// Scores by slot; zeros where nothing was observed.
    #[must_use]
    pub fn scores(&self) -> &[f32] {
        &self.scores
    }

    /// The scores, to add what was observed.
    pub fn scores_mut(&mut self) -> &mut [f32] {
        &mut self.scores
    }

    /// Gives every slot a new score, of its number, its position and its score so far.
    pub(crate) fn note(&mut self, score: impl Fn(usize, Position, f32) -> f32) {
        for (slot, (old, &position)) in self.scores.iter_mut().zip(&self.positions).enumerate() {
            *old = score(slot, position, *old);
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
        let hold = self.holds.get(slot.index());
        hold.is_some_and(|&hold| hold != Hold::Free)
    }

    /// Page and offset of a slot.
    ///
    /// # Panics
    ///
    /// If there is no such slot.
    #[must_use]
    pub fn address(&self, slot: Slot) -> (PageId, usize) {
        assert!(
            slot.index() < self.len(),
            "slot {slot} of a head with {}",
            self.len()
        );
        (
            self.pages[slot.index() / self.block].id(),
            slot.index() % self.block,
        )
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
    }

    /// Marks what the growth protects of the tokens held, and nothing else.
    fn protect(&mut self, class: impl Fn(Position) -> TokenClass) {
        for hold in &mut self.holds {
            if *hold == Hold::Protected {
                *hold = Hold::Free;
            }
        }
        let Growth::Protect { classes, most, .. } = self.growth else {
            return;
        };
        let mut slots: Vec<usize> = (0..self.len())
            .filter(|&slot| {
                self.holds[slot] == Hold::Free && classes.names(class(self.positions[slot]))
            })
            .collect();
        slots.sort_unstable_by_key(|&slot| self.positions[slot]);
        for slot in slots.into_iter().take(most.saturating_sub(1)) {
            self.holds[slot] = Hold::Protected;
        }
    }

    /// Why a newcomer of this class will stay.
    pub(crate) fn hold_of(&self, is_pinned: bool, class: TokenClass) -> Hold {
        match self.growth {
            _ if is_pinned => Hold::Pinned,
            Growth::Protect { classes, most, .. }
                if classes.names(class) && self.count(0, Hold::Protected) + 1 < most =>
            {
                Hold::Protected
            }
            _ => Hold::Free,
        }
    }

    /// Puts the token at `position`, held as [`HeadTable::hold_of`] says, where [`HeadTable::place_of`] says, taking a page if
    /// the slot needs one.
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
    ) -> Result<Slot, Full> {
        let slot = match place {
            Place::Append => self.push_held(position, hold, reservation)?,
            Place::Overwrite(slot) => {
                self.positions[slot.index()] = position;
                self.scores[slot.index()] = 0.0;
                // Its victim was free, and a newcomer that overwrites is not pinned.
                self.holds[slot.index()] = hold;
                self.cursor = slot.index() + 1;
                slot
            }
        };
        Ok(slot)
    }

    /// Whether one more slot needs one more page.
    pub(crate) fn is_packed(&self) -> bool {
        self.len() == self.pages.len() * self.block
    }

    /// Appends a slot.
    pub(crate) fn push(
        &mut self,
        position: Position,
        pins: &Pins,
        reservation: &mut Reservation,
    ) -> Result<Slot, Full> {
        let hold = if pins.contains(position) {
            Hold::Pinned
        } else {
            Hold::Free
        };
        self.push_held(position, hold, reservation)
    }

    fn push_held(
        &mut self,
        position: Position,
        hold: Hold,
        reservation: &mut Reservation,
    ) -> Result<Slot, Full> {
        let slot = Slot::new(self.len());
        if self.is_packed() {
            let page = reservation.take()?;
            self.page_ids.push(page.id().0);
            self.pages.push(Page::Owned(page));
        }
        self.positions.push(position);
        self.scores.push(0.0);
        self.holds.push(hold);
        Ok(slot)
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
        let free = || self.count(0, Hold::Free);
        match self.growth {
            Growth::EvictLowest { limit, recent } => {
                (free() >= limit).then(|| protected(limit, recent))
            }
            Growth::Protect {
                limit,
                recent,
                most,
                ..
            } => {
                let (free, left) = (free(), most.max(1) - self.count(0, Hold::Protected));
                let is_full = free >= left || (hold == Hold::Free && free >= limit.max(1));
                is_full.then(|| protected(limit.min(left), recent))
            }
            Growth::Append | Growth::Ring { .. } => None,
        }
    }

    /// A device puts a token into a slot of its own choice. It drives out one token that is free. Which slot that was matters no
    /// more: from here on the table only counts.
    pub(crate) fn overwrite_blindly(&mut self, hold: Hold) {
        self.is_blind = true;
        if let Some(victim) = self.holds.iter_mut().find(|held| **held == Hold::Free) {
            *victim = hold;
        }
    }

    /// Slots from `first` on that are so held.
    fn count(&self, first: usize, hold: Hold) -> usize {
        let held = self.holds.iter().skip(first);
        held.filter(|&&held| held == hold).count()
    }

    /// Tokens that are not pinned.
    pub(crate) fn unpinned(&self) -> usize {
        self.len() - self.count(0, Hold::Pinned)
    }

    /// The oldest slot behind the sinks that is not pinned. Those slots are a ring: they are filled in the order of the
    /// text, and from then on the newcomer takes the oldest one's, which is the first from the cursor on.
    fn ring_victim(&self, sinks: usize) -> Option<usize> {
        if self.is_shuffled {
            return self.oldest_behind(sinks);
        }
        let start = self.cursor.max(sinks);
        (start..self.len())
            .chain(sinks..start.min(self.len()))
            .find(|&slot| self.holds[slot] == Hold::Free)
    }

    /// The lowest score outside the `recent` newest tokens; of equal scores the later position goes, as
    /// [`crate::rank`] orders them.
    fn lowest(&self, recent: usize) -> Option<usize> {
        let newest_allowed = self.nth_newest(recent);
        (0..self.len())
            .filter(|&slot| {
                self.holds[slot] == Hold::Free
                    && newest_allowed.is_none_or(|first| self.positions[slot] < first)
            })
            .max_by(|&a, &b| {
                let key = |slot: usize| (self.scores[slot], self.positions[slot].index());
                crate::rank(key(a), key(b))
            })
    }

    /// Position of the `recent`-th newest token, or `None` if nothing is protected.
    fn nth_newest(&self, recent: usize) -> Option<Position> {
        if recent == 0 || self.is_empty() {
            return None;
        }
        let mut positions = self.positions.clone();
        let index = positions.len().saturating_sub(recent);
        Some(*positions.select_nth_unstable(index).1)
    }

    /// Empties the table and hands its pages out, for a release under one lock.
    pub(crate) fn into_pages(self) -> Vec<Page> {
        self.pages
    }
}

/// The limit is a promise and the window is not: it gives way where both cannot be had.
fn protected(limit: usize, recent: usize) -> usize {
    recent.min(limit.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PagePool;

    fn table(growth: Growth, tokens: u32, pins: &Pins, room: &mut Reservation) -> HeadTable {
        let mut table = HeadTable::new(4);
        for position in 0..tokens {
            table.push(Position(position), pins, room).expect("room");
        }
        table.set_growth(growth, |_| TokenClass::Plain);
        table
    }

    fn insert(
        head: &mut HeadTable,
        position: u32,
        pins: &Pins,
        room: &mut Reservation,
    ) -> Result<Slot, Full> {
        let hold = head.hold_of(pins.contains(Position(position)), TokenClass::Plain);
        let place = head.place_of(hold);
        head.insert(Position(position), place, hold, room)
    }

    fn sorted(table: &HeadTable) -> Vec<u32> {
        let mut positions: Vec<u32> = table.positions().iter().map(|p| p.0).collect();
        positions.sort_unstable();
        positions
    }

    #[test]
    fn a_ring_keeps_the_sinks_and_the_newest_and_takes_no_page() {
        let pool = PagePool::new(9);
        let mut room = pool.reservation();
        let mut head = table(
            Growth::Ring {
                sinks: 2,
                recent: 4,
            },
            5,
            &Pins::default(),
            &mut room,
        );
        for position in 5..40 {
            insert(&mut head, position, &Pins::default(), &mut room).expect("room");
            let expected: Vec<u32> = if position < 6 {
                (0..6).collect()
            } else {
                [0, 1].into_iter().chain(position - 3..=position).collect()
            };
            assert_eq!(sorted(&head), expected);
        }
        assert_eq!(
            (head.len(), head.pages().len(), pool.usage().held),
            (6, 2, 2)
        );
    }

    #[test]
    fn pins_come_on_top_of_a_ring() {
        let pool = PagePool::new(9);
        let mut room = pool.reservation();
        let pins = Pins::new([3..5, 20..21]);
        let mut head = table(
            Growth::Ring {
                sinks: 1,
                recent: 5,
            },
            6,
            &pins,
            &mut room,
        );
        for position in 6..30 {
            insert(&mut head, position, &pins, &mut room).expect("room");
        }
        assert_eq!(sorted(&head), [0, 3, 4, 20, 25, 26, 27, 28, 29]);
    }

    #[test]
    fn a_head_full_of_pins_still_has_its_whole_window() {
        let pool = PagePool::new(9);
        let mut room = pool.reservation();
        let pins = Pins::new(std::iter::once(0..10));
        for growth in [
            Growth::Ring {
                sinks: 2,
                recent: 4,
            },
            Growth::EvictLowest {
                limit: 4,
                recent: 3,
            },
        ] {
            let mut head = table(growth, 10, &pins, &mut room);
            for position in 10..30 {
                insert(&mut head, position, &pins, &mut room).expect("room");
            }
            assert_eq!(
                (head.len(), head.positions().iter().max()),
                (14, Some(&Position(29))),
                "{growth:?}"
            );
        }
    }

    #[test]
    fn a_limit_holds_even_where_the_window_is_as_long() {
        let pool = PagePool::new(9);
        let mut room = pool.reservation();
        let mut head = table(
            Growth::EvictLowest {
                limit: 2,
                recent: 7,
            },
            2,
            &Pins::default(),
            &mut room,
        );
        for position in 2..9 {
            insert(&mut head, position, &Pins::default(), &mut room).expect("room");
            assert_eq!(sorted(&head), [position - 1, position]);
        }
    }

    #[test]
    fn the_lowest_score_outside_the_window_gives_way() {
        let pool = PagePool::new(9);
        let mut room = pool.reservation();
        let mut head = table(
            Growth::EvictLowest {
                limit: 5,
                recent: 2,
            },
            5,
            &Pins::default(),
            &mut room,
        );
        head.scores_mut()
            .copy_from_slice(&[3.0, 1.0, 1.0, 0.0, 0.0]);
        // Equal scores: the lower position ranks higher and stays.
        assert_eq!(head.place(), Place::Overwrite(Slot(2)));
        insert(&mut head, 5, &Pins::default(), &mut room).expect("no page needed");
        assert_eq!(sorted(&head), [0, 1, 3, 4, 5]);
        head.scores_mut()[0] = f32::NAN;
        assert_eq!(head.place(), Place::Overwrite(Slot(0)), "NaN ranks lowest");
    }

    #[test]
    fn a_full_pool_changes_nothing() {
        let pool = PagePool::new(1);
        let mut room = pool.reservation();
        let mut head = table(Growth::Append, 4, &Pins::default(), &mut room);
        let refused = insert(&mut head, 4, &Pins::default(), &mut room);
        assert_eq!(refused, Err(Full { wanted: 1, free: 0 }));
        assert_eq!((head.len(), head.pages().len()), (4, 1));
    }
}
