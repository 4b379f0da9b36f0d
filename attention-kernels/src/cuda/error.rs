//! What the backend can refuse.

use super::DeviceError;
use crate::{KernelError, KvDtype};

/// Why an op refused its arguments, or what the device could not do.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// What the CPU's ops refuse, too.
    #[error(transparent)]
    Kernel(#[from] KernelError),

    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),

    /// Rows that the kernels cannot read in units of 16 bytes, or that are too long.
    #[error(
        "a head dim must be a multiple of {unit} for {dtype}, and at most {most}; got {head_dim}"
    )]
    HeadDim {
        /// `D`, elements per row.
        head_dim: usize,
        /// Element type.
        dtype: KvDtype,
        /// Elements of 16 bytes.
        unit: usize,
        /// Longest row.
        most: usize,
    },

    /// Pages that the kernels cannot read in units of 16 bytes.
    #[error("a page must hold a multiple of {unit} tokens for {dtype}, got {block}")]
    Block {
        /// `B`, tokens per page.
        block: usize,
        /// Element type.
        dtype: KvDtype,
        /// Elements of 16 bytes.
        unit: usize,
    },

    /// Too many query heads for one KV head.
    #[error("a group must hold 1 to {most} query heads per KV head, got {group}")]
    Group {
        /// `G`, query heads per KV head.
        group: usize,
        /// Largest group.
        most: usize,
    },

    /// A buffer that ends too early.
    #[error("{what} end at byte {bytes} of their buffer, {expected} are needed")]
    BufferTooSmall {
        /// Which of the arguments.
        what: &'static str,
        /// Bytes of the buffer.
        bytes: usize,
        /// Bytes needed.
        expected: usize,
    },

    /// An op that needs the slots' positions and scores, on a store without them.
    #[error("{what} needs a store that keeps the positions and scores of its slots")]
    NoSlotState {
        /// What needs them.
        what: &'static str,
    },

    /// A target that the head does not have.
    #[error("head {head} holds {len} tokens, its new one cannot take slot {slot}")]
    SlotOutOfRange {
        /// Place of the head in the list.
        head: usize,
        /// Slot named.
        slot: u32,
        /// Tokens held.
        len: usize,
    },

    /// More than a launch or a 32-bit number can hold.
    #[error("{what}: {number} is more than a kernel can take, {most}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        number: usize,
        /// Most.
        most: usize,
    },

    /// A plan that ranks, without scores.
    #[error("the plan ranks by scores, and none were observed")]
    NoScores,
}
