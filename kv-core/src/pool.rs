//! Physical pages: a free list, promises, and guards that give pages back when they are dropped.
//!
//! A page is in the free list or in a guard, or in several that share it. What a head holds is one guard, [`Pages`]: a list of numbers,
//! taken and given back under one lock; the pool counts the holders of those that are shared, and the last one gives the page back. Pages
//! of the free list may be *promised* to a [`Reservation`]; `free - promised` is what can still be promised, so a reservation with credit
//! can always take a page.
mod pages;

use std::{fmt, sync::Arc};

use parking_lot::Mutex;

use crate::PageId;

pub(crate) use pages::Own;
pub use pages::Pages;

/// The pool has no room now: a value for the scheduler, not a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} pages wanted, {free} free and not promised")]
pub struct Full {
    /// Pages asked for.
    pub wanted: usize,
    /// Pages that are free and not promised.
    pub free: usize,
}

/// How full a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUsage {
    /// All pages.
    pub total: usize,
    /// Pages in a guard.
    pub held: usize,
    /// Pages promised and not taken yet.
    pub promised: usize,
    /// Most pages ever held at once.
    pub peak: usize,
}

struct State {
    free: Vec<PageId>,
    promised: usize,
    /// Fewest free pages there ever were.
    fewest_free: usize,
    /// How many guards hold each page besides the first, `[total]`; none at all while no page was ever shared.
    sharers: Vec<u32>,
}

impl State {
    /// A guard lets go of a page: it is free if nobody else holds it.
    fn let_go(&mut self, page: PageId) {
        match self.sharers.get_mut(page.index()) {
            Some(others) if *others > 0 => *others -= 1,
            _ => self.free.push(page),
        }
    }

    fn is_shared(&self, page: u32) -> bool {
        let others = self.sharers.get(page as usize);
        others.is_some_and(|&others| others > 0)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Thousands of numbers say less than how many they are.
        f.debug_struct("State")
            .field("free", &self.free.len())
            .field("promised", &self.promised)
            .field("fewest_free", &self.fewest_free)
            .finish()
    }
}

#[derive(Debug)]
struct Shared {
    total: usize,
    state: Mutex<State>,
}

impl Shared {
    fn give_back(&self, pages: impl IntoIterator<Item = PageId>) {
        let mut state = self.state.lock();
        pages.into_iter().for_each(|page| state.let_go(page));
    }
}

/// Pages of one device; any page can serve any head of any sequence.
#[derive(Debug, Clone)]
pub struct PagePool {
    shared: Arc<Shared>,
}

impl PagePool {
    /// A pool of `pages` free pages.
    ///
    /// # Panics
    ///
    /// If a page number would not fit 32 bits.
    #[must_use]
    pub fn new(pages: usize) -> Self {
        // Reversed, so that the lowest pages are taken first and memory is touched from its start.
        let free: Vec<PageId> = (0..pages).rev().map(PageId::new).collect();
        let state = State {
            free,
            promised: 0,
            fewest_free: pages,
            sharers: Vec::new(),
        };
        Self {
            shared: Arc::new(Shared {
                total: pages,
                state: Mutex::new(state),
            }),
        }
    }

    /// How full the pool is.
    #[must_use]
    pub fn usage(&self) -> PoolUsage {
        let state = self.shared.state.lock();
        let total = self.shared.total;
        PoolUsage {
            total,
            held: total - state.free.len(),
            promised: state.promised,
            peak: total - state.fewest_free,
        }
    }

    /// An empty reservation.
    #[must_use]
    pub fn reservation(&self) -> Reservation {
        Reservation {
            shared: self.shared.clone(),
            credit: 0,
        }
    }

    /// Whether several guards hold a page.
    #[must_use]
    pub fn is_shared(&self, page: PageId) -> bool {
        self.shared.state.lock().is_shared(page.0)
    }

    /// The free pages, in no particular order, for a checker.
    #[must_use]
    pub fn free_pages(&self) -> Vec<PageId> {
        self.shared.state.lock().free.clone()
    }

    /// Gives the pages of many guards back under one lock.
    ///
    /// # Panics
    ///
    /// If a page comes from another pool.
    pub fn give_back(&self, guards: impl IntoIterator<Item = Pages>) {
        let mut guards: Vec<Pages> = guards.into_iter().filter(|g| !g.is_empty()).collect();
        // Before any page moves, and before the lock: on a panic every guard still returns its own.
        guards.iter().for_each(|g| g.check_home(&self.shared));
        let mut state = self.shared.state.lock();
        for pages in &mut guards {
            pages.move_into(&mut state, 0);
        }
    }
}

/// A promise of pages. What is left of it goes back when it is dropped.
pub struct Reservation {
    shared: Arc<Shared>,
    credit: usize,
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("credit", &self.credit)
            .finish()
    }
}

impl Reservation {
    /// Pages promised and not taken yet.
    #[must_use]
    pub const fn credit(&self) -> usize {
        self.credit
    }

    /// Adds `pages` to the promise, all of them or none.
    ///
    /// # Errors
    ///
    /// [`Full`] if fewer pages are free and not promised.
    pub fn grow(&mut self, pages: usize) -> Result<(), Full> {
        let mut state = self.shared.state.lock();
        let free = state.free.len() - state.promised;
        if pages > free {
            return Err(Full {
                wanted: pages,
                free,
            });
        }
        state.promised += pages;
        drop(state);
        self.credit += pages;
        Ok(())
    }

    /// Sees to it that `pages` more can be taken without fail.
    ///
    /// # Errors
    ///
    /// [`Full`] if fewer pages than are missing are free and not promised; nothing has changed then.
    pub fn ensure(&mut self, pages: usize) -> Result<(), Full> {
        match pages.saturating_sub(self.credit) {
            0 => Ok(()),
            missing => self.grow(missing),
        }
    }

    /// Takes `count` pages under one lock and appends them to `pages`, from the promise as far as it goes, else from what is free
    /// and not promised.
    ///
    /// # Errors
    ///
    /// [`Full`] if the promise is used up and too few other pages are to be had; nothing has changed then.
    ///
    /// # Panics
    ///
    /// If `pages` holds pages of another pool.
    pub fn take_many(&mut self, count: usize, pages: &mut Pages) -> Result<(), Full> {
        pages.settle(&self.shared);
        let missing = count.saturating_sub(self.credit);
        let mut state = self.shared.state.lock();
        let free = state.free.len() - state.promised;
        if missing > free {
            let wanted = missing;
            return Err(Full { wanted, free });
        }
        state.promised -= count - missing;
        let left = state.free.len() - count;
        pages.extend(state.free.drain(left..).rev());
        state.fewest_free = state.fewest_free.min(left);
        drop(state);
        self.credit -= count - missing;
        Ok(())
    }

    /// Puts all pages but the first `keep` back, to be taken again: they are free, and promised. Those that others hold, too, stay theirs.
    ///
    /// # Panics
    ///
    /// If they come from another pool.
    pub fn put_back(&mut self, pages: &mut Pages, keep: usize) {
        if pages.len() <= keep {
            return;
        }
        pages.check_home(&self.shared);
        let mut state = self.shared.state.lock();
        let free = state.free.len();
        pages.move_into(&mut state, keep);
        let returned = state.free.len() - free;
        state.promised += returned;
        drop(state);
        self.credit += returned;
    }

    /// Gives all but `keep` promised pages up.
    pub(crate) fn keep(&mut self, keep: usize) {
        let extra = self.credit.saturating_sub(keep);
        if extra > 0 {
            self.shared.state.lock().promised -= extra;
            self.credit -= extra;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.state.lock().promised -= self.credit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `count` pages.
    fn take(room: &mut Reservation, count: usize) -> Pages {
        let mut pages = Pages::default();
        room.take_many(count, &mut pages).expect("room");
        pages
    }

    #[test]
    fn a_promise_is_kept_and_the_rest_of_it_comes_back() {
        let pool = PagePool::new(4);
        let mut mine = pool.reservation();
        mine.grow(3).expect("three of four");
        let mut other = pool.reservation();
        assert_eq!(other.grow(2), Err(Full { wanted: 2, free: 1 }));
        let page = take(&mut other, 1); // the one that is not promised
        let refused = other.take_many(1, &mut Pages::default());
        assert_eq!(refused, Err(Full { wanted: 1, free: 0 }));
        let taken = take(&mut mine, 1);
        assert_ne!(page.ids(), taken.ids());
        let usage = |held, promised| PoolUsage {
            total: 4,
            held,
            promised,
            peak: 2,
        };
        assert_eq!(pool.usage(), usage(2, 2));
        mine.keep(1);
        assert_eq!((pool.usage(), mine.credit()), (usage(2, 1), 1));
        drop((mine, page));
        assert_eq!(pool.usage(), usage(1, 0));
        pool.give_back([taken]);
        assert_eq!(pool.usage().held, 0);
    }

    #[test]
    fn what_is_put_back_stays_promised() {
        let pool = PagePool::new(3);
        let mut mine = pool.reservation();
        let mut pages = take(&mut mine, 2);
        mine.put_back(&mut pages, 0);
        let usage = pool.usage();
        assert_eq!((usage.held, usage.promised, mine.credit()), (0, 2, 2));
        let mut other = pool.reservation();
        assert_eq!(other.grow(2), Err(Full { wanted: 2, free: 1 }));
        assert_eq!(take(&mut mine, 2).len(), 2);
    }
}
