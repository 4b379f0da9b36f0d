//! The memory of the pages of one device and one element type.
//!
//! A store owns bytes and nothing else: which page belongs to whom, which are free and which are shared is the ledger's. Pages are
//! zeroed by the system when they are first touched, so pages that were never written cost address space and no memory.

use std::fmt;
use std::hint::black_box;
use std::ops::Range;

use half::vec::HalfBitsVecExt;
use half::{bf16, f16};

use crate::layout::check_page;
use crate::{Element, KernelError, KvDtype, PageLayout};

/// The pages of one pool on the CPU, all of one [`PageLayout`] and one [`KvDtype`].
///
/// ```
/// use attention_kernels::{KvDtype, PageLayout, PageStore};
///
/// let store = PageStore::new(PageLayout::new(16, 64)?, KvDtype::F16, 10)?;
/// assert_eq!(store.bytes(), 10 * 2 * 16 * 64 * 2);
/// assert_eq!(store.read_key(9, 15), vec![0.0; 64]);
/// # Ok::<(), attention_kernels::KernelError>(())
/// ```
pub struct PageStore {
    layout: PageLayout,
    pages: usize,
    memory: Memory,
}

/// The elements of a store, `pages * 2 * B * D`, in the order that [`PageLayout`] defines.
pub(crate) enum Memory {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl PageStore {
    /// A store of `pages` pages, all zero.
    ///
    /// # Errors
    ///
    /// [`KernelError::StoreTooLarge`] where page numbers or sizes do not fit; [`KernelError::OutOfMemory`] where the system refuses
    /// the address space. A system that overcommits may accept more than it has.
    pub fn new(layout: PageLayout, dtype: KvDtype, pages: usize) -> Result<Self, KernelError> {
        let bytes_per_page = layout.bytes_per_page(dtype);
        let too_large = KernelError::StoreTooLarge {
            pages,
            bytes_per_page,
        };
        // A page number is a u32, and so is the number of pages.
        let bytes = match (u32::try_from(pages), pages.checked_mul(bytes_per_page)) {
            (Ok(_), Some(bytes)) if isize::try_from(bytes).is_ok() => bytes,
            _ => return Err(too_large),
        };
        // `vec!` of zeros is the safe way to memory that is committed on first touch, but it aborts where there is none. So ask
        // first, in a way that can be refused, and give the untouched memory straight back.
        let mut probe = Vec::<u8>::new();
        let refused = probe.try_reserve_exact(bytes).is_err();
        // An allocation that nobody looks at may be optimised away, and then it cannot be refused.
        black_box(&probe);
        drop(probe);
        if refused {
            return Err(KernelError::OutOfMemory {
                bytes,
                pages,
                dtype,
            });
        }
        let elements = bytes / dtype.size_in_bytes();
        let memory = match dtype {
            KvDtype::F32 => Memory::F32(vec![0.0; elements]),
            // `vec![f16::ZERO; n]` would write every element: only for the language's own numbers does `vec!` know that zero
            // can be left to the allocator.
            KvDtype::F16 => Memory::F16(vec![0_u16; elements].reinterpret_into()),
            KvDtype::Bf16 => Memory::Bf16(vec![0_u16; elements].reinterpret_into()),
        };
        Ok(Self {
            layout,
            pages,
            memory,
        })
    }

    /// Shape of every page.
    #[must_use]
    pub const fn layout(&self) -> PageLayout {
        self.layout
    }

    /// Element type of every page.
    #[must_use]
    pub const fn dtype(&self) -> KvDtype {
        match self.memory {
            Memory::F32(_) => KvDtype::F32,
            Memory::F16(_) => KvDtype::F16,
            Memory::Bf16(_) => KvDtype::Bf16,
        }
    }

    /// Pages in the store. Valid page numbers are below it.
    #[must_use]
    pub const fn pages(&self) -> usize {
        self.pages
    }

    /// Elements in the store: `pages * 2 * B * D`.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.pages * self.layout.elements_per_page()
    }

    /// Whether the store has no page.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// Bytes of all pages, whether touched or not.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.pages * self.layout.bytes_per_page(self.dtype())
    }

    /// The key at `offset` of `page`: `D` numbers. For tests and checkers; `attend` never copies a row out.
    ///
    /// # Panics
    ///
    /// Where the store has no such page or a page no such offset.
    #[must_use]
    pub fn read_key(&self, page: u32, offset: u32) -> Vec<f32> {
        self.assert_page(page);
        self.read(self.layout.key_row(page, offset))
    }

    /// The value at `offset` of `page`: `D` numbers. For tests and checkers.
    ///
    /// # Panics
    ///
    /// Where the store has no such page or a page no such offset.
    #[must_use]
    pub fn read_value(&self, page: u32, offset: u32) -> Vec<f32> {
        self.assert_page(page);
        self.read(self.layout.value_row(page, offset))
    }

    /// The elements, for an op to choose its instance by.
    pub(crate) const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// As [`Self::memory`], for ops that write.
    pub(crate) const fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Refuses a (page, offset) pair of entry `index` that the store does not have.
    pub(crate) fn check_slot(
        &self,
        index: usize,
        page: u32,
        offset: u32,
    ) -> Result<(), KernelError> {
        self.layout.check_slot(self.pages, index, page, offset)
    }

    /// Refuses a page of entry `index` that the store does not have.
    pub(crate) fn check_page(&self, index: usize, page: u32) -> Result<(), KernelError> {
        check_page(self.pages, index, page)
    }

    fn assert_page(&self, page: u32) {
        assert!(
            (page as usize) < self.pages,
            "page {page} of a store of {} pages",
            self.pages
        );
    }

    fn read(&self, row: Range<usize>) -> Vec<f32> {
        let mut values = vec![0.0; row.len()];
        match &self.memory {
            Memory::F32(memory) => f32::widen(&memory[row], &mut values),
            Memory::F16(memory) => f16::widen(&memory[row], &mut values),
            Memory::Bf16(memory) => bf16::widen(&memory[row], &mut values),
        }
        values
    }
}

/// Says what the store is, not what it holds.
impl fmt::Debug for PageStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageStore")
            .field("layout", &self.layout)
            .field("dtype", &self.dtype())
            .field("pages", &self.pages)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}
