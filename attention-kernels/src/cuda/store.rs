//! The pages of one device, in the layout of the engine's own cache.

use std::fmt;

use super::entries::{MAX_HEAD_DIM, narrow};
use super::{Arg, CudaError, Device};
use crate::layout::check_page;
use crate::{KernelError, KvDtype, PageLayout};

/// The pages of one pool in the memory of a device.
///
/// Keys are `[P, 1, D/x, B, x]` and values `[P, 1, D, B]` with `x` elements of 16 bytes: the engine's paged cache with one KV head
/// per block, so that a cell of it is a head page. Beside them may lie a position and a score for every slot, `[P, B]` each.
pub struct PageStore<D: Device> {
    device: D,
    layout: PageLayout,
    dtype: KvDtype,
    pages: usize,
    keys: D::Buffer,
    values: D::Buffer,
    slots: Option<SlotState<D>>,
}

/// What lies beside the slots.
struct SlotState<D: Device> {
    /// `[P, B]`, 32 bits each.
    positions: D::Buffer,
    /// `[P, B]`, `f32`.
    scores: D::Buffer,
}

/// Part of a buffer.
#[derive(Debug)]
pub struct View<'a, B> {
    /// The buffer.
    pub buffer: &'a B,
    /// First element.
    pub first: usize,
}

// Not derived: a copy needs no copy of the memory.
impl<B> Clone for View<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for View<'_, B> {}

impl<'a, B> View<'a, B> {
    /// The whole buffer.
    #[must_use]
    pub const fn whole(buffer: &'a B) -> Self {
        Self { buffer, first: 0 }
    }
}

/// Elements of 16 bytes.
pub(super) const fn per_chunk(dtype: KvDtype) -> usize {
    16 / dtype.size_in_bytes()
}

/// An address in a buffer that holds `elements` elements of `bytes` bytes from the view's first on.
pub(super) fn memory<'a, D: Device>(
    device: &D,
    view: View<'a, D::Buffer>,
    elements: usize,
    bytes: usize,
    what: &'static str,
) -> Result<Arg<'a, D::Buffer>, CudaError> {
    let size = device.size(view.buffer);
    let expected = view.first.saturating_add(elements).saturating_mul(bytes);
    if size < expected {
        return Err(CudaError::BufferTooSmall {
            what,
            bytes: size,
            expected,
        });
    }
    Ok(Arg::Memory(view.buffer, view.first * bytes))
}

fn address_or_null<B>(buffer: Option<&B>) -> Arg<'_, B> {
    buffer.map_or(Arg::Null, |buffer| Arg::Memory(buffer, 0))
}

/// A number for a kernel.
pub(super) fn number(what: &'static str, number: usize) -> Result<u32, CudaError> {
    u32::try_from(number).map_err(|_| CudaError::TooMany {
        what,
        number,
        most: u32::MAX as usize,
    })
}

/// Refuses rows that the kernels do not serve.
pub(super) fn check_head_dim(head_dim: usize, dtype: KvDtype) -> Result<(), CudaError> {
    let unit = per_chunk(dtype);
    if head_dim == 0 || head_dim > MAX_HEAD_DIM || !head_dim.is_multiple_of(unit) {
        return Err(CudaError::HeadDim {
            head_dim,
            dtype,
            unit,
            most: MAX_HEAD_DIM,
        });
    }
    Ok(())
}

impl<D: Device> PageStore<D> {
    /// A store of `pages` pages, all zero; with `slot_state` it keeps the position and the score of every slot.
    ///
    /// # Errors
    ///
    /// [`CudaError::HeadDim`], [`CudaError::Block`], [`KernelError::StoreTooLarge`], and [`CudaError::Device`] where the memory is
    /// not to be had.
    pub fn new(
        device: D,
        layout: PageLayout,
        dtype: KvDtype,
        pages: usize,
        slot_state: bool,
    ) -> Result<Self, CudaError> {
        check_head_dim(layout.head_dim(), dtype)?;
        let (block, unit) = (layout.block(), per_chunk(dtype));
        if !block.is_multiple_of(unit) {
            return Err(CudaError::Block { block, dtype, unit });
        }
        let bytes_per_page = layout.bytes_per_page(dtype);
        let bytes = match (u32::try_from(pages), pages.checked_mul(bytes_per_page)) {
            (Ok(_), Some(bytes)) => bytes,
            _ => {
                return Err(CudaError::Kernel(KernelError::StoreTooLarge {
                    pages,
                    bytes_per_page,
                }));
            }
        };
        let keys = device.zeroed(bytes / 2)?;
        let values = device.zeroed(bytes / 2)?;
        let slots = if slot_state {
            let bytes = pages * block * size_of::<u32>();
            Some(SlotState {
                positions: device.zeroed(bytes)?,
                scores: device.zeroed(bytes)?,
            })
        } else {
            None
        };
        Ok(Self {
            device,
            layout,
            dtype,
            pages,
            keys,
            values,
            slots,
        })
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &D {
        &self.device
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

    /// Whether it keeps the position and the score of every slot.
    #[must_use]
    pub const fn has_slot_state(&self) -> bool {
        self.slots.is_some()
    }

    /// All keys, `[P, 1, D/x, B, x]`.
    #[must_use]
    pub const fn keys(&self) -> &D::Buffer {
        &self.keys
    }

    /// All values, `[P, 1, D, B]`.
    #[must_use]
    pub const fn values(&self) -> &D::Buffer {
        &self.values
    }

    /// The positions of all slots, `[P, B]`, with [`PINNED`](super::entries::PINNED) where a token is pinned.
    #[must_use]
    pub fn positions(&self) -> Option<&D::Buffer> {
        self.slots.as_ref().map(|slots| &slots.positions)
    }

    /// The scores of all slots, `[P, B]`.
    #[must_use]
    pub fn scores(&self) -> Option<&D::Buffer> {
        self.slots.as_ref().map(|slots| &slots.scores)
    }

    /// An entry's name for the store's element type.
    pub(super) fn entry(&self, name: &str) -> String {
        format!("{name}_{}", self.dtype)
    }

    pub(super) const fn keys_arg(&self) -> Arg<'_, D::Buffer> {
        Arg::Memory(&self.keys, 0)
    }

    pub(super) const fn values_arg(&self) -> Arg<'_, D::Buffer> {
        Arg::Memory(&self.values, 0)
    }

    /// Null where there are none.
    pub(super) fn scores_arg(&self) -> Arg<'_, D::Buffer> {
        address_or_null(self.scores())
    }

    /// Keys, values, and the positions and scores of the slots: null where there are none.
    pub(super) fn memory_args(&self) -> [Arg<'_, D::Buffer>; 4] {
        [
            self.keys_arg(),
            self.values_arg(),
            address_or_null(self.positions()),
            self.scores_arg(),
        ]
    }

    /// `D` and `B`.
    pub(super) fn shape_args(&self) -> [Arg<'static, D::Buffer>; 2] {
        [
            Arg::U32(narrow(self.layout.head_dim())),
            Arg::U32(narrow(self.layout.block())),
        ]
    }

    /// Refuses a (page, offset) pair of entry `index` that the store does not have.
    pub(super) fn check_slot(
        &self,
        index: usize,
        page: u32,
        offset: u32,
    ) -> Result<(), KernelError> {
        self.layout.check_slot(self.pages, index, page, offset)
    }

    /// Refuses a page of entry `index` that the store does not have.
    pub(super) fn check_page(&self, index: usize, page: u32) -> Result<(), KernelError> {
        check_page(self.pages, index, page)
    }
}

/// Says what the store is, not what it holds.
impl<D: Device> fmt::Debug for PageStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageStore")
            .field("device", &self.device)
            .field("layout", &self.layout)
            .field("dtype", &self.dtype)
            .field("pages", &self.pages)
            .field("slot_state", &self.has_slot_state())
            .finish_non_exhaustive()
    }
}
