//! What a decode step needs to know of all its heads, in one buffer.

use super::entries::{LOWEST, NO_TARGET, PINNED, narrow};
use super::{Arg, CudaError, Device, PageStore};
use crate::KernelError;

/// One head of one sequence in a decode step.
#[derive(Clone, Copy, Debug)]
pub struct HeadStep<'a> {
    /// Pages in table order, at least as many as `len` tokens fill.
    pub pages: &'a [u32],
    /// `T`, tokens held once the new one is in.
    pub len: usize,
    /// Where the new token goes.
    pub target: StepTarget,
}

/// Where a head's new token goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepTarget {
    /// There is none.
    Nothing,
    /// Into this slot.
    Slot(u32),
    /// Into the slot with the lowest score that is neither pinned nor among the `recent` newest tokens; of equal scores the later
    /// position goes. One such slot must exist.
    Lowest {
        /// Newest tokens, never overwritten.
        recent: u32,
    },
}

/// The tables, lengths and targets of all heads of all layers of a step, on the device.
#[derive(Debug)]
pub struct Step<D: Device> {
    /// `[layers * S]` positions, `[layers * S * H]` heads of four numbers, and the page numbers.
    buffer: D::Buffer,
    sequences: usize,
    /// `S * H`.
    heads: usize,
    /// Longest head of each layer.
    longest: Vec<usize>,
    /// Where heads and page numbers begin, in bytes.
    heads_at: usize,
    pages_at: usize,
}

impl<D: Device> Step<D> {
    /// Uploads a step. `heads` is `[layers, S, H]`, and `positions` `[S]`: where the new tokens stand in the text, and whether they
    /// are pinned.
    ///
    /// # Errors
    ///
    /// [`KernelError::PagesTooFew`], [`KernelError::PageOutOfRange`], [`CudaError::SlotOutOfRange`], [`CudaError::NoSlotState`],
    /// [`CudaError::TooMany`], [`CudaError::Device`].
    ///
    /// # Panics
    ///
    /// Where `heads` does not divide into layers and sequences.
    pub fn upload(
        store: &PageStore<D>,
        layers: usize,
        heads: &[HeadStep<'_>],
        positions: &[(u32, bool)],
    ) -> Result<Self, CudaError> {
        let sequences = positions.len();
        assert!(
            heads.len().is_multiple_of((layers * sequences).max(1)),
            "{} heads in {layers} layers of {sequences} sequences",
            heads.len()
        );
        let mut words: Vec<u32> = Vec::with_capacity(sequences + 4 * heads.len());
        for &(position, is_pinned) in positions {
            if position >= PINNED {
                return Err(CudaError::TooMany {
                    what: "positions",
                    number: position as usize,
                    most: PINNED as usize - 1,
                });
            }
            words.push(position | if is_pinned { PINNED } else { 0 });
        }
        let mut pages = Vec::new();
        for (index, head) in heads.iter().enumerate() {
            let table = check(store, index, head)?;
            words.extend([
                narrow(pages.len()),
                narrow(head.len),
                head.target.word(),
                head.target.recent(),
            ]);
            pages.extend_from_slice(table);
        }
        super::store::number("pages of a step", pages.len())?;
        let (heads_at, pages_at) = (4 * sequences, 4 * words.len());
        words.append(&mut pages);
        // A buffer must hold something.
        words.push(0);
        let per_layer = heads.len() / layers.max(1);
        // Of every layer, also where it has no heads.
        let longest = (0..layers).map(|layer| {
            let heads = &heads[layer * per_layer..][..per_layer];
            heads.iter().map(|head| head.len).max().unwrap_or(0)
        });
        Ok(Self {
            buffer: store.device().upload(&bytes(&words))?,
            sequences,
            heads: per_layer,
            longest: longest.collect(),
            heads_at,
            pages_at,
        })
    }

    /// Heads of a layer, `S * H`.
    #[must_use]
    pub const fn heads(&self) -> usize {
        self.heads
    }

    /// Sequences, `S`.
    #[must_use]
    pub const fn sequences(&self) -> usize {
        self.sequences
    }

    /// Longest head of a layer.
    ///
    /// # Panics
    ///
    /// If the step has no such layer.
    #[must_use]
    pub fn longest(&self, layer: usize) -> usize {
        self.longest[layer]
    }

    pub(super) fn heads_arg(&self, layer: usize) -> Arg<'_, D::Buffer> {
        Arg::Memory(&self.buffer, self.heads_at + 16 * layer * self.heads)
    }

    pub(super) const fn pages_arg(&self) -> Arg<'_, D::Buffer> {
        Arg::Memory(&self.buffer, self.pages_at)
    }

    pub(super) const fn positions_arg(&self) -> Arg<'_, D::Buffer> {
        Arg::Memory(&self.buffer, 0)
    }
}

/// The pages in use.
fn check<'a, D: Device>(
    store: &PageStore<D>,
    index: usize,
    head: &HeadStep<'a>,
) -> Result<&'a [u32], CudaError> {
    let layout = store.layout();
    let expected = layout.pages_for(head.len);
    let Some(table) = head.pages.get(..expected) else {
        return Err(CudaError::Kernel(KernelError::PagesTooFew {
            head: index,
            len: head.len,
            pages: head.pages.len(),
            expected,
            block: layout.block(),
        }));
    };
    for &page in table {
        store.check_page(index, page)?;
    }
    super::store::number("tokens of a head", head.len)?;
    match head.target {
        StepTarget::Slot(slot) if slot as usize >= head.len => Err(CudaError::SlotOutOfRange {
            head: index,
            slot,
            len: head.len,
        }),
        StepTarget::Lowest { .. } if !store.has_slot_state() => Err(CudaError::NoSlotState {
            what: "a step that overwrites the lowest score",
        }),
        _ => Ok(table),
    }
}

impl StepTarget {
    const fn word(self) -> u32 {
        match self {
            Self::Nothing => NO_TARGET,
            Self::Slot(slot) => slot,
            Self::Lowest { .. } => LOWEST,
        }
    }

    const fn recent(self) -> u32 {
        match self {
            Self::Lowest { recent } => recent,
            _ => 0,
        }
    }
}

/// As a device reads them: GPUs are little-endian.
pub(super) fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
