//! The pages of one head under one guard.
use std::{fmt, mem, sync::Arc};

use super::{OwnedPage, Shared};
use crate::PageId;

/// Pages of one pool that only their owner holds, in an order: they may be written. Dropping them returns them under one lock.
///
/// ```
/// use kv_core::{OwnedPages, PagePool};
/// let pool = PagePool::new(8);
/// let mut pages = OwnedPages::default();
/// pool.reservation().take_many(3, &mut pages)?;
/// assert_eq!((pages.ids(), pool.usage().held), (&[0, 1, 2][..], 3));
/// drop(pages);
/// assert_eq!(pool.usage().held, 0);
/// # Ok::<(), kv_core::Full>(())
/// ```
#[derive(Default)]
pub struct OwnedPages {
    ids: Vec<u32>,
    /// Where they come from; known from the first page on.
    home: Option<Arc<Shared>>,
}

impl OwnedPages {
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

    /// Adds a page behind the others.
    ///
    /// # Panics
    ///
    /// If it comes from another pool.
    pub fn push(&mut self, mut page: OwnedPage) {
        self.settle(&page.shared);
        page.given_back = true;
        self.ids.push(page.id.0);
    }

    /// The last page as a guard of its own, for example to share it.
    pub fn pop(&mut self) -> Option<OwnedPage> {
        let shared = self.home.as_ref()?.clone();
        let id = PageId(self.ids.pop()?);
        let given_back = false;
        Some(OwnedPage {
            id,
            shared,
            given_back,
        })
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

    /// Moves all but the first `keep` into a free list.
    pub(super) fn move_into(&mut self, free: &mut Vec<PageId>, keep: usize) {
        free.extend(self.ids.drain(keep..).map(PageId));
    }
}

impl From<OwnedPage> for OwnedPages {
    fn from(page: OwnedPage) -> Self {
        let mut pages = Self::default();
        pages.push(page);
        pages
    }
}

impl Drop for OwnedPages {
    fn drop(&mut self) {
        let ids = mem::take(&mut self.ids);
        if let Some(home) = self.home.take().filter(|_| !ids.is_empty()) {
            home.give_back(ids.into_iter().map(PageId));
        }
    }
}

impl fmt::Debug for OwnedPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnedPages({:?})", self.ids)
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
        let mut pages = OwnedPages::default();
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
        let last = pages.pop().expect("four");
        assert_eq!((last.id(), pages.len()), (PageId(3), 3));
        drop(last);
        assert_eq!(pool.usage().held, 3);
        pool.give_back([pages, OwnedPages::default()]);
        assert_eq!(pool.usage().held, 0);
    }

    #[test]
    fn a_list_takes_no_page_of_another_pool() {
        let (ours, other) = (PagePool::new(2), PagePool::new(2));
        let mut pages = OwnedPages::from(ours.reservation().take().expect("free"));
        let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            other.reservation().take_many(1, &mut pages)
        }));
        assert!(refused.is_err());
        drop(pages);
        assert_eq!((ours.usage().held, other.usage().held), (0, 0));
    }
}
