//! The CUDA backend: the table of ops over pages in the memory of a GPU.
//!
//! Everything here is generic over a [`Device`], which has memory and launches kernels; the arguments of an op are buffers of that
//! device, so that nothing comes to the host that need not. With the feature `cuda`, `Gpu` is one, over cudarc. The kernels
//! are shipped as PTX text ([`PTX`]): the driver compiles it for the GPU at hand, and a user needs no compiler.
//!
//! | op | on the device |
//! |---|---|
//! | [`write()`] | rows into slots, with positions and scores |
//! | [`append`] | a decode step's tokens into slots; where the lowest score goes, the device chooses it |
//! | [`attend()`] | decode attention over the tables of a [`Step`], and the attention row as a second output |
//! | [`observe()`] | attention of a window or of all prompt queries, or key norms: `[H, n]` |
//! | [`keep`] | the slots that a plan keeps, by the rule of [`kv_core::KeepPlan::resolve`], the best of a head and across heads |
//! | [`copy_rows`] | compaction |
//! | [`shift()`] | keys to other positions |
//!
//! # What goes up and down
//!
//! A decode step uploads one buffer, [`Step`]: the tables, lengths and targets of all layers. It downloads nothing: a ring's slots follow
//! from the length of the text and go up as targets, and the lowest score is found on the device, beside which the positions
//! and scores of all slots lie. A prompt downloads what a plan kept, since the host's ledger takes its pages by it.
//!
//! # What the bits depend on
//!
//! No addition is atomic, and the order of every addition is fixed by lengths, so a head's result depends on its queries and rows, their
//! order, and the GPU's arithmetic, and not on the other heads of a call. What is selected is counted in integers and depends on the
//! scores alone. Results differ from the CPU's within the bounds of [`oracle`](crate::oracle).

mod attend;
mod device;
#[cfg(feature = "emulator")]
mod emulated;
pub mod entries;
mod error;
#[cfg(feature = "cuda")]
mod gpu;
mod observe;
mod rows;
mod select;
mod step;
mod store;

pub use attend::{Attended, DecodeArgs, RowWanted, attend};
pub use device::{Arg, Device, DeviceError, Launch};
#[cfg(feature = "emulator")]
pub use emulated::{Emulated, EmulatedBuffer};
pub use entries::PTX;
pub use error::CudaError;
#[cfg(feature = "cuda")]
pub use gpu::{Gpu, GpuBuffer};
pub use observe::{DevicePrompt, observe};
pub use rows::{NewRows, SlotWrite, append, copy_rows, shift, write};
pub use select::{SelectArgs, keep};
pub use step::{HeadStep, Step, StepTarget};
pub use store::{PageStore, View};
