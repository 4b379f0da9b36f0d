//! The memory of the pages of one device and one element type.
//!
//! A store owns bytes and nothing else: which page belongs to whom, which are free and which are shared is the ledger's. Pages are
//! zeroed by the system when they are first touched, so pages that were never written cost address space and no memory.

use std::fmt;
use std::ops::Range;

use bytemuck::{cast_slice, cast_slice_mut};
use half::slice::HalfBitsSliceExt;
use half::{bf16, f16};
use memmap2::MmapMut;

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
    dtype: KvDtype,
    pages: usize,
    memory: MmapMut,
}

/// The elements of a store, `pages * 2 * B * D`, in the order that [`PageLayout`] defines.
pub(crate) enum Memory<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

/// As [`Memory`], to write.
pub(crate) enum MemoryMut<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [f16]),
    Bf16(&'a mut [bf16]),
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
        // Nothing of no length can be mapped.
        let memory = MmapMut::map_anon(bytes.max(1)).map_err(|_| KernelError::OutOfMemory {
            bytes,
            pages,
            dtype,
        })?;
        ask_for_huge_pages(&memory);
        Ok(Self {
            layout,
            dtype,
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
        self.dtype
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

    /// What is in a page, `2 * B * D` elements of the store's type as they lie: for a host that keeps it elsewhere for a while.
    ///
    /// # Panics
    ///
    /// Where the store has no such page.
    #[must_use]
    pub fn page(&self, page: u32) -> &[u8] {
        self.assert_page(page);
        let bytes = self.layout.bytes_per_page(self.dtype);
        &self.memory[page as usize * bytes..][..bytes]
    }

    /// Puts into a page what was in another one.
    ///
    /// # Panics
    ///
    /// Where the store has no such page, or `bytes` is of another length.
    pub fn put_page(&mut self, page: u32, bytes: &[u8]) {
        self.assert_page(page);
        let size = self.layout.bytes_per_page(self.dtype);
        self.memory[page as usize * size..][..size].copy_from_slice(bytes);
    }

    /// A copy of the key at `offset` of `page`: `D` numbers. `attend` never copies a row out.
    ///
    /// # Panics
    ///
    /// Where the store has no such page or a page no such offset.
    #[must_use]
    pub fn read_key(&self, page: u32, offset: u32) -> Vec<f32> {
        self.assert_page(page);
        self.read(self.layout.key_row(page, offset))
    }

    /// A copy of the value at `offset` of `page`: `D` numbers.
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
    pub(crate) fn memory(&self) -> Memory<'_> {
        let bytes = &self.memory[..self.bytes()];
        match self.dtype {
            KvDtype::F32 => Memory::F32(cast_slice(bytes)),
            KvDtype::F16 => Memory::F16(cast_slice::<u8, u16>(bytes).reinterpret_cast()),
            KvDtype::Bf16 => Memory::Bf16(cast_slice::<u8, u16>(bytes).reinterpret_cast()),
        }
    }

    /// As [`Self::memory`], for ops that write.
    pub(crate) fn memory_mut(&mut self) -> MemoryMut<'_> {
        let used = self.bytes();
        let bytes = &mut self.memory[..used];
        match self.dtype {
            KvDtype::F32 => MemoryMut::F32(cast_slice_mut(bytes)),
            KvDtype::F16 => MemoryMut::F16(cast_slice_mut::<u8, u16>(bytes).reinterpret_cast_mut()),
            KvDtype::Bf16 => {
                MemoryMut::Bf16(cast_slice_mut::<u8, u16>(bytes).reinterpret_cast_mut())
            }
        }
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
        match self.memory() {
            Memory::F32(memory) => f32::widen(&memory[row], &mut values),
            Memory::F16(memory) => f16::widen(&memory[row], &mut values),
            Memory::Bf16(memory) => bf16::widen(&memory[row], &mut values),
        }
        values
    }
}

/// Asks the system for pages of 2 MiB instead of 4 KiB: a head's pages are scattered, and each would take an entry of the
/// address tables for itself. It may say no.
fn ask_for_huge_pages(memory: &MmapMut) {
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
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
