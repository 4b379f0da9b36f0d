//! Physical pages: a free list, promises, and guards that give pages back when they are dropped.
//!
//! A page is in the free list or in exactly one guard. What a head holds is one guard, [`OwnedPages`]: a list of numbers, taken and
//! given back under one lock and without a count of references per page. Pages of the free list may be *promised* to a [`Reservation`];
//! `free - promised` is what can still be promised, so a reservation with credit can always take a page.
mod pages;

use std::{fmt, mem, sync::Arc};

use parking_lot::Mutex;

use crate::PageId;

pub use pages::OwnedPages;

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
        self.state.lock().free.extend(pages);
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
    pub fn give_back(&self, guards: impl IntoIterator<Item = OwnedPages>) {
        let mut guards: Vec<OwnedPages> = guards.into_iter().filter(|g| !g.is_empty()).collect();
        // Before any page moves, and before the lock: on a panic every guard still returns its own.
        guards.iter().for_each(|g| g.check_home(&self.shared));
        let mut state = self.shared.state.lock();
        for pages in &mut guards {
            pages.move_into(&mut state.free, 0);
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

    /// Takes a page, from the promise if there is credit, else from what is free and not promised.
    ///
    /// # Errors
    ///
    /// [`Full`] if the promise is used up and no other page is to be had.
    pub fn take(&mut self) -> Result<OwnedPage, Full> {
        if self.credit == 0 {
            self.grow(1)?;
        }
        let mut state = self.shared.state.lock();
        // A promised page is in the free list by construction; an empty list would be a bug in this file.
        let Some(id) = state.free.pop() else {
            return Err(Full { wanted: 1, free: 0 });
        };
        state.promised -= 1;
        state.fewest_free = state.fewest_free.min(state.free.len());
        drop(state);
        self.credit -= 1;
        Ok(OwnedPage {
            id,
            shared: self.shared.clone(),
            given_back: false,
        })
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
    pub fn take_many(&mut self, count: usize, pages: &mut OwnedPages) -> Result<(), Full> {
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

    /// Puts all pages but the first `keep` back, to be taken again: they are free, and promised.
    ///
    /// # Panics
    ///
    /// If they come from another pool.
    pub fn put_back(&mut self, pages: &mut OwnedPages, keep: usize) {
        let returned = pages.len().saturating_sub(keep);
        if returned == 0 {
            return;
        }
        pages.check_home(&self.shared);
        let mut state = self.shared.state.lock();
        state.promised += returned;
        pages.move_into(&mut state.free, keep);
        drop(state);
        self.credit += returned;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.state.lock().promised -= self.credit;
    }
}

/// A page that only its owner holds: it may be written. Dropping it returns the page. Many of them are [`OwnedPages`].
pub struct OwnedPage {
    id: PageId,
    shared: Arc<Shared>,
    given_back: bool,
}

impl OwnedPage {
    /// Which page.
    #[must_use]
    pub const fn id(&self) -> PageId {
        self.id
    }

    /// Gives up the right to write, so that others may hold the page too.
    #[must_use]
    pub fn share(self) -> SharedPage {
        SharedPage(Arc::new(self))
    }
}

impl Drop for OwnedPage {
    fn drop(&mut self) {
        if !mem::replace(&mut self.given_back, true) {
            self.shared.give_back([self.id]);
        }
    }
}

impl fmt::Debug for OwnedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnedPage({})", self.id)
    }
}

/// A page that several tables may hold: it may be read. The last holder's drop returns the page.
#[derive(Debug, Clone)]
pub struct SharedPage(Arc<OwnedPage>);

impl SharedPage {
    /// Which page.
    #[must_use]
    pub fn id(&self) -> PageId {
        self.0.id
    }

    /// The right to write, if nobody else holds the page.
    ///
    /// # Errors
    ///
    /// The page itself if others hold it: take a page of your own and copy.
    pub fn try_own(self) -> Result<OwnedPage, Self> {
        Arc::try_unwrap(self.0).map_err(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_kept_and_the_rest_of_it_comes_back() {
        let pool = PagePool::new(4);
        let mut mine = pool.reservation();
        mine.grow(3).expect("three of four");
        let mut other = pool.reservation();
        assert_eq!(other.grow(2), Err(Full { wanted: 2, free: 1 }));
        let page = other.take().expect("the one that is not promised");
        assert_eq!(
            other.take().expect_err("the rest is promised"),
            Full { wanted: 1, free: 0 }
        );
        let taken = mine.take().expect("promised");
        assert_ne!(page.id(), taken.id());
        assert_eq!(
            pool.usage(),
            PoolUsage {
                total: 4,
                held: 2,
                promised: 2,
                peak: 2
            }
        );
        drop((mine, page));
        assert_eq!(
            pool.usage(),
            PoolUsage {
                total: 4,
                held: 1,
                promised: 0,
                peak: 2
            }
        );
        pool.give_back([OwnedPages::from(taken)]);
        assert_eq!(pool.usage().held, 0);
    }

    #[test]
    fn what_is_put_back_stays_promised() {
        let pool = PagePool::new(3);
        let mut mine = pool.reservation();
        let mut pages = OwnedPages::default();
        mine.take_many(2, &mut pages).expect("free");
        mine.put_back(&mut pages, 0);
        let usage = pool.usage();
        assert_eq!((usage.held, usage.promised, mine.credit()), (0, 2, 2));
        let mut other = pool.reservation();
        assert_eq!(other.grow(2), Err(Full { wanted: 2, free: 1 }));
        assert!(mine.take().is_ok() && mine.take().is_ok());
    }

    #[test]
    fn a_shared_page_returns_with_its_last_holder_and_is_written_by_a_lone_one_only() {
        let pool = PagePool::new(1);
        let one = pool.reservation().take().expect("free").share();
        let two = one.clone();
        let one = one.try_own().expect_err("two hold it");
        drop(one);
        assert_eq!(pool.usage().held, 1);
        let owned = two.try_own().expect("alone now");
        drop(owned);
        assert_eq!(pool.usage().held, 0);
    }
}
