//! Kernels over head pages: everything that touches the memory of a compressed KV cache.
//!
//! A *head page* is `B` tokens of K and of V of one KV head of one layer ([`layout`]). A [`PageStore`] owns the memory of all pages
//! of a device. Which page belongs to which head is not known here: every op takes plain lists of page numbers, which the ledger
//! hands out. There is no engine and no policy in this crate; of `kv-core` it knows the words in which a policy says what it wants
//! to see and keep ([`kv_core::Observation`], [`kv_core::Reduction`], [`kv_core::KeepPlan`]), and the ledger where a token goes
//! ([`kv_core::Address`]). Unsafe code stands in three files: two name the instructions of x86 CPUs, and in one the feature `cuda` speaks
//! to the driver.
//!
//! The ops below are those of the CPU. [`cuda`] has the same table for pages in the memory of a GPU.
//!
//! Letters, the same in the whole workspace: `L` layers, `H` KV heads, `G` query heads per KV head, `D` head dim, `B` tokens per
//! page, `T` tokens that a head holds, `S` sequences.
//!
//! # The table of ops
//!
//! | op | what it does |
//! |---|---|
//! | [`write()`] | rows of K and V into slots |
//! | [`attend()`], [`attend_into`] | decode attention of `S * H` heads, each over a table and a length of its own |
//! | [`attend_observed`], [`attend_observed_into`] | decode attention, and the attention row of the step for each of its heads |
//! | [`attend_prompt`] | attention of all queries of a prompt, and on the way what the two below observe |
//! | [`observe_window`] | attention of the last prompt queries, reduced to `[H, T]` |
//! | [`observe_accumulated`] | attention of all prompt queries, reduced to `[H, T]` |
//! | [`key_norms`] | Euclidean norms of keys, negated: `[H, T]` |
//! | [`observe()`] | whichever of the three a [`kv_core::Observation`] names |
//! | select | the slots that a plan keeps: on CPUs [`kv_core::KeepPlan::resolve`], on GPUs [`cuda::keep`] |
//! | [`copy_rows`] | compact: tokens to other slots of the store |
//! | [`shift()`] | keys turned from their positions to others |
//!
//! Each op is a safe function over an argument struct: it checks every shape, length and page number, and refuses with a
//! [`KernelError`] before it has changed anything. Both backends pass the same tests against the same [`oracle`].
//!
//! # From a row to attention
//!
//! ```
//! use attention_kernels::{
//!     AttendArgs, HeadSlots, KvDtype, PageLayout, PageStore, RowWrite, WriteArgs, attend, write,
//! };
//!
//! // Pages of 16 tokens, head dim 2. One head with two tokens, in page 5.
//! let mut store = PageStore::new(PageLayout::new(16, 2)?, KvDtype::F16, 8)?;
//! let rows = [
//!     RowWrite { source: 0, page: 5, offset: 0 },
//!     RowWrite { source: 1, page: 5, offset: 1 },
//! ];
//! let (keys, values) = ([1.0, 0.0, 1.0, 0.0], [2.0, 4.0, 6.0, 8.0]);
//! write(&mut store, &WriteArgs { keys: &keys, values: &values, rows: &rows })?;
//!
//! // Two query heads share the KV head. Both find the keys alike, so both get the mean of the values.
//! let args = AttendArgs {
//!     queries: &[1.0, 0.0, 0.0, 1.0],
//!     heads: &[HeadSlots { pages: &[5], len: 2 }],
//!     group: 2,
//!     scale: 1.0,
//!     softcap: None,
//! };
//! assert_eq!(attend(&store, &args)?, [4.0, 6.0, 4.0, 6.0]);
//! # Ok::<(), attention_kernels::KernelError>(())
//! ```

pub mod attend;
pub mod bandwidth;
pub mod cuda;
pub mod dtype;
pub mod error;
pub mod layout;
pub mod observe;
pub mod oracle;
pub mod prompt;
pub mod shift;
pub mod simd;
pub mod store;
pub mod write;

mod scoring;
mod scratch;

pub use attend::{
    AttendArgs, Front, HeadSlots, Observed, Workspace, attend, attend_into, attend_observed,
    attend_observed_into, attend_with_front_into,
};
pub use bandwidth::read_bandwidth;
pub use dtype::{Element, KvDtype, UnknownDtype};
pub use error::KernelError;
pub use layout::PageLayout;
pub use observe::{KeyNormsArgs, key_norms, observe, observe_accumulated, observe_window};
pub use prompt::{AttendPromptArgs, PromptArgs, attend_prompt};
pub use shift::{RopeStyle, RowShift, ShiftArgs, shift};
pub use simd::{SimdLevel, simd_level};
pub use store::PageStore;
pub use write::{CopyRow, RowWrite, WriteArgs, copy_rows, write};
