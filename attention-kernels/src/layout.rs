//! The one definition of how a head page lies in CPU memory.
//!
//! A page is `B` tokens of K and of V of one KV head of one layer:
//!
//! ```text
//! page p:  K of token 0 (D) | K of token 1 (D) | .. | K of token B-1 (D) | V of token 0 (D) | .. | V of token B-1 (D)
//! store:   page 0 | page 1 | page 2 | ..
//! ```
//!
//! Everything that reads or writes a page gets its element ranges from [`PageLayout`]; nothing else multiplies offsets.
//!
//! # Why this one
//!
//! * *A row is contiguous.* A token is written, or moved to another slot, by two block copies. With slot reuse every decode step
//!   writes one row per head, and compaction moves single rows, so this is the common write.
//! * *Decode reads a row once.* Attention over a page is a dot product per K row and a scaled add per V row. Both run along `D`,
//!   which is a multiple of the SIMD width for every usual model, and both serve all `G` queries of the group while the row is in
//!   the first-level cache.
//! * *An unfinished page costs nothing.* Slots beyond a head's length are rows that are never touched, whatever they hold.
//! * *K and V are neighbours*, so that one page is one range: one number names it, one copy moves it, and a head's page costs one
//!   TLB entry instead of two.
//!
//! The engine's CUDA kernels want `[D/x, B, x]` for K and `[D, B]` for V, with `x` elements making 16 bytes. That shape serves
//! threads that each own one token: neighbours in `B` are neighbours in memory. On a CPU it makes a token a scatter of `D/x` pieces
//! for K and of `D` single elements for V, the V side a sum over `B` that must be cut short, element by element, in the last
//! page, and a chunk of `x` elements is a quarter to a half of a SIMD register. `[D, B]` for both (SIMD over tokens) needs no
//! horizontal sums, but shares the scatter and multiplies garbage in unfinished pages.

use std::ops::Range;

use crate::{KernelError, KvDtype};

/// Shape of every page of a store: `B` tokens of `D` elements, K then V.
///
/// ```
/// use attention_kernels::PageLayout;
///
/// let layout = PageLayout::new(16, 64)?;
/// assert_eq!(layout.elements_per_page(), 2 * 16 * 64);
/// assert_eq!(layout.key_row(0, 1), 64..128);
/// assert_eq!(layout.value_row(0, 0), 1024..1088);
/// # Ok::<(), attention_kernels::KernelError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageLayout {
    block: usize,
    head_dim: usize,
}

impl PageLayout {
    /// A layout of pages of `block` tokens (`B`) of `head_dim` elements (`D`) for each of K and V.
    ///
    /// # Errors
    ///
    /// [`KernelError::LayoutOutOfRange`] where a dimension is 0, or where a page of `f32` would not fit the address space.
    pub fn new(block: usize, head_dim: usize) -> Result<Self, KernelError> {
        let out_of_range = KernelError::LayoutOutOfRange { block, head_dim };
        let bytes = block
            .checked_mul(head_dim)
            .and_then(|elements| elements.checked_mul(2 * size_of::<f32>()));
        match bytes {
            Some(bytes) if bytes > 0 && isize::try_from(bytes).is_ok() => {
                Ok(Self { block, head_dim })
            }
            _ => Err(out_of_range),
        }
    }

    /// `B`, tokens per page.
    #[must_use]
    pub const fn block(&self) -> usize {
        self.block
    }

    /// `D`, elements per row.
    #[must_use]
    pub const fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Elements of one page: `2 * B * D`.
    #[must_use]
    pub const fn elements_per_page(&self) -> usize {
        2 * self.block * self.head_dim
    }

    /// Bytes of one page of `dtype`.
    #[must_use]
    pub const fn bytes_per_page(&self, dtype: KvDtype) -> usize {
        self.elements_per_page() * dtype.size_in_bytes()
    }

    /// Pages that `tokens` tokens fill, the last one perhaps in part.
    #[must_use]
    pub const fn pages_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block)
    }

    /// Refuses a (page, offset) pair of entry `index` that a store of `pages` pages does not have.
    pub(crate) fn check_slot(
        &self,
        pages: usize,
        index: usize,
        page: u32,
        offset: u32,
    ) -> Result<(), KernelError> {
        check_page(pages, index, page)?;
        let block = self.block;
        if offset as usize >= block {
            return Err(KernelError::OffsetOutOfRange {
                index,
                offset,
                block,
            });
        }
        Ok(())
    }

    /// Where the key of the token at `offset` of `page` lies in the store: `D` elements.
    ///
    /// # Panics
    ///
    /// Where `offset >= B`.
    #[must_use]
    pub fn key_row(&self, page: u32, offset: u32) -> Range<usize> {
        self.key_rows(page, offset as usize, 1)
    }

    /// Where the value of the token at `offset` of `page` lies in the store: `D` elements.
    ///
    /// # Panics
    ///
    /// Where `offset >= B`.
    #[must_use]
    pub fn value_row(&self, page: u32, offset: u32) -> Range<usize> {
        self.value_rows(page, offset as usize, 1)
    }

    /// Where the keys of `rows` tokens from `offset` of `page` on lie: `rows * D` elements, row-major.
    #[inline(always)]
    pub(crate) fn key_rows(&self, page: u32, offset: usize, rows: usize) -> Range<usize> {
        assert!(
            offset + rows <= self.block,
            "rows {offset}..{} of a page of {} tokens",
            offset + rows,
            self.block
        );
        let start = page as usize * self.elements_per_page() + offset * self.head_dim;
        start..start + rows * self.head_dim
    }

    /// Where the values of `rows` tokens from `offset` of `page` on lie: `rows * D` elements, row-major.
    #[inline(always)]
    pub(crate) fn value_rows(&self, page: u32, offset: usize, rows: usize) -> Range<usize> {
        let keys = self.key_rows(page, offset, rows);
        let keys_per_page = self.block * self.head_dim;
        keys.start + keys_per_page..keys.end + keys_per_page
    }
}

/// Refuses a page of entry `index` that a store of `pages` pages does not have.
pub(crate) fn check_page(pages: usize, index: usize, page: u32) -> Result<(), KernelError> {
    if page as usize >= pages {
        return Err(KernelError::PageOutOfRange { index, page, pages });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(block: usize, head_dim: usize) -> PageLayout {
        PageLayout::new(block, head_dim).expect("a small layout")
    }

    /// Rows tile the store: every element belongs to exactly one row, in page order, keys before values.
    #[test]
    fn rows_tile_the_pages() {
        for (block, head_dim) in [(1, 1), (8, 64), (16, 80), (5, 7)] {
            let layout = layout(block, head_dim);
            let block = u32::try_from(block).expect("small");
            let mut next = 0;
            for page in 0..3 {
                let keys = (0..block).map(|offset| layout.key_row(page, offset));
                let values = (0..block).map(|offset| layout.value_row(page, offset));
                for row in keys.chain(values) {
                    assert_eq!(row, next..next + head_dim);
                    next = row.end;
                }
            }
            assert_eq!(next, 3 * layout.elements_per_page());
        }
    }

    #[test]
    fn sizes() {
        let layout = layout(16, 64);
        assert_eq!((layout.block(), layout.head_dim()), (16, 64));
        assert_eq!(layout.bytes_per_page(KvDtype::F32), 8192);
        assert_eq!(layout.bytes_per_page(KvDtype::F16), 4096);
        assert_eq!(
            [0, 1, 15, 16, 17].map(|tokens| layout.pages_for(tokens)),
            [0, 1, 1, 1, 2]
        );
    }

    #[test]
    fn impossible_layouts_are_refused() {
        for (block, head_dim) in [(0, 64), (16, 0), (usize::MAX, 2), (usize::MAX / 8, 1)] {
            assert_eq!(
                PageLayout::new(block, head_dim),
                Err(KernelError::LayoutOutOfRange { block, head_dim })
            );
        }
    }

    #[test]
    #[should_panic(expected = "rows 16..17 of a page of 16 tokens")]
    fn an_offset_beyond_the_page_panics() {
        let _ = layout(16, 64).key_row(0, 16);
    }
}
