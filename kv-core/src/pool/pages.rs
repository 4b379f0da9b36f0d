//! The pages of one head under one guard.
use std::{fmt, mem, sync::Arc};

use super::{Full, Reservation, Shared, State};
use crate::PageId;

/// Pages of one pool in an order, each held by this list alone or by others, too. Dropping it lets go of them under one lock.
///
/// A page that others hold may be read. To write one, its right has to be had first ([`Address`](crate::Address)): the ledger gives it for
/// a page that this list alone holds, and copies one that it does not.
///
/// ```
/// use kv_core::{PagePool, Pages};
/// let pool = PagePool::new(8);
/// let mut pages = Pages::default();
/// pool.reservation().take_many(3, &mut pages)?;
/// assert_eq!((pages.ids(), pool.usage().held), (&[0, 1, 2][..], 3));
/// let others = pages.share();
/// drop(pages);
/// assert_eq!((others.ids(), pool.usage().held), (&[0, 1, 2][..], 3));
/// drop(others);
/// assert_eq!(pool.usage().held, 0);
/// # Ok::<(), kv_core::Full>(())
/// ```
#[derive(Default)]
pub struct Pages {
    ids: Vec<u32>,
    /// Whether some were ever shared: else nobody needs to ask.
    may_be_shared: bool,
    /// Where they come from; known from the first page on.
    home: Option<Arc<Shared>>,
}

/// The right to write a page: nobody else holds it while the list that gave this is not shared again.
#[derive(Debug)]
pub(crate) struct Own {
    page: PageId,
    /// The page whose place it took in the list, for others hold that one; what it held is to be copied.
    pub(crate) instead_of: Option<PageId>,
}

impl Own {
    pub(crate) const fn page(&self) -> PageId {
        self.page
    }
}

impl Pages {
    /// Which pages, as kernels want them.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Another list of the same pages, in the same order.
    #[must_use]
    pub fn share(&mut self) -> Self {
        let Some(home) = self.home.as_ref().filter(|_| !self.ids.is_empty()) else {
            return Self::default();
        };
        self.may_be_shared = true;
        let mut state = home.state.lock();
        state.sharers.resize(home.total, 0);
        self.ids
            .iter()
            .for_each(|&page| state.sharers[page as usize] += 1);
        drop(state);
        Self {
            ids: self.ids.clone(),
            may_be_shared: true,
            home: Some(home.clone()),
        }
    }

    /// How many of the pages from `first` on others hold, too.
    #[must_use]
    pub fn shared_from(&self, first: usize) -> usize {
        let Some(home) = self.home.as_ref().filter(|_| self.may_be_shared) else {
            return 0;
        };
        let state = home.state.lock();
        let pages = self.ids.get(first..).unwrap_or_default();
        pages.iter().filter(|&&page| state.is_shared(page)).count()
    }

    /// Whether others hold the page at `index`, too.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn is_shared(&self, index: usize) -> bool {
        let page = self.ids[index];
        self.may_be_shared
            && self
                .home
                .as_ref()
                .is_some_and(|home| home.state.lock().is_shared(page))
    }

    /// The right to write the page at `index`: where others hold it, another page takes its place in this list.
    ///
    /// # Errors
    ///
    /// [`Full`] if that takes a page and none is to be had; nothing has changed then.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub(crate) fn own(&mut self, index: usize, room: &mut Reservation) -> Result<Own, Full> {
        let page = PageId(self.ids[index]);
        if !self.is_shared(index) {
            let instead_of = None;
            return Ok(Own { page, instead_of });
        }
        let mut fresh = Self::default();
        room.take_many(1, &mut fresh)?;
        mem::swap(&mut self.ids[index], &mut fresh.ids[0]);
        let own = Own {
            page: PageId(self.ids[index]),
            instead_of: Some(page),
        };
        drop(fresh); // now a list of the old page
        Ok(own)
    }

    /// Sees to it that `pages` more fit without another allocation.
    pub(crate) fn make_room(&mut self, pages: usize) {
        self.ids.reserve_exact(pages);
    }

    /// Gives memory for more pages than there are back.
    pub(crate) fn make_tight(&mut self) {
        self.ids.shrink_to_fit();
    }

    /// Whether another page takes an allocation.
    pub(crate) fn is_tight(&self) -> bool {
        self.ids.len() == self.ids.capacity()
    }

    /// Makes `home` the pool of these pages, if they have none.
    pub(super) fn settle(&mut self, home: &Arc<Shared>) {
        match &self.home {
            Some(_) => self.check_home(home),
            None => self.home = Some(home.clone()),
        }
    }

    pub(super) fn check_home(&self, home: &Arc<Shared>) {
        let ours = self.home.as_ref();
        assert!(
            ours.is_some_and(|ours| Arc::ptr_eq(ours, home)),
            "a page belongs to another pool"
        );
    }

    pub(super) fn extend(&mut self, pages: impl Iterator<Item = PageId>) {
        self.ids.extend(pages.map(|page| page.0));
    }

    /// Lets go of all but the first `keep`.
    pub(super) fn move_into(&mut self, state: &mut State, keep: usize) {
        let pages = self.ids.drain(keep..).map(PageId);
        if self.may_be_shared {
            pages.for_each(|page| state.let_go(page));
        } else {
            state.free.extend(pages);
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let ids = mem::take(&mut self.ids);
        if let Some(home) = self.home.take().filter(|_| !ids.is_empty()) {
            home.give_back(ids.into_iter().map(PageId));
        }
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pages({:?})", self.ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Full, PagePool};

    #[test]
    fn many_come_and_go_as_one_by_one() {
        let pool = PagePool::new(6);
        let mut mine = pool.reservation();
        mine.grow(3).expect("three of six");
        let mut pages = Pages::default();
        mine.take_many(2, &mut pages).expect("promised");
        // One more is promised, two more are free.
        mine.take_many(3, &mut pages).expect("free");
        assert_eq!(pages.ids(), [0, 1, 2, 3, 4]);
        assert_eq!(mine.credit(), 0);
        let usage = pool.usage();
        assert_eq!((usage.held, usage.promised, usage.peak), (5, 0, 5));
        let refused = mine.take_many(2, &mut pages);
        assert_eq!(refused, Err(Full { wanted: 2, free: 1 }));
        assert_eq!(pages.len(), 5);
        mine.put_back(&mut pages, 4);
        assert_eq!((pages.len(), mine.credit()), (4, 1));
        pool.give_back([pages, Pages::default()]);
        assert_eq!(pool.usage().held, 0);
    }

    #[test]
    fn a_list_takes_no_page_of_another_pool() {
        let (ours, other) = (PagePool::new(2), PagePool::new(2));
        let mut pages = Pages::default();
        let taken = ours.reservation().take_many(1, &mut pages);
        taken.expect("free");
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            other.reservation().take_many(1, &mut pages)
        }));
        assert!(refused.is_err());
        drop(pages);
        assert_eq!((ours.usage().held, other.usage().held), (0, 0));
    }

    #[test]
    fn a_shared_page_is_written_by_a_lone_holder_and_returns_with_the_last() {
        let pool = PagePool::new(4);
        let mut room = pool.reservation();
        let mut one = Pages::default();
        room.take_many(2, &mut one).expect("free");
        let mut two = one.share();
        assert_eq!((pool.usage().held, one.shared_from(0)), (2, 2));
        // One writes, so it takes a page of its own; then two is alone with the old one.
        let own = one.own(1, &mut room).expect("free");
        assert_eq!((own.page(), own.instead_of), (PageId(2), Some(PageId(1))));
        assert_eq!((one.ids(), two.ids()), (&[0, 2][..], &[0, 1][..]));
        let own = two.own(1, &mut room).expect("its own");
        assert_eq!((own.page(), own.instead_of), (PageId(1), None));
        assert_eq!((one.shared_from(0), one.shared_from(1)), (1, 0));
        // A shared page that is put back is not free, and not promised.
        room.put_back(&mut two, 0);
        assert_eq!((pool.usage().held, room.credit()), (2, 1));
        assert!(!one.is_shared(0));
        // No page is left to copy to.
        let mut others = one.share();
        room.grow(1).expect("one more");
        let mut rest = Pages::default();
        room.take_many(2, &mut rest).expect("promised");
        let refused = others.own(0, &mut room).expect_err("all are held");
        assert_eq!(refused, Full { wanted: 1, free: 0 });
        assert_eq!((others.ids(), others.shared_from(0)), (&[0, 2][..], 2));
        pool.give_back([one, others, rest]);
        assert_eq!((pool.usage().held, pool.is_shared(PageId(0))), (0, false));
    }
}
