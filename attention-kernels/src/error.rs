//! What an op can refuse.
//!
//! Every op checks its whole argument before it touches memory, so an op that returns an error has changed nothing.

use crate::KvDtype;

/// Why an op refused its arguments, or why a [`PageStore`](crate::PageStore) could not be made.
///
/// Every variant carries the value that was wrong and the bound it broke. `index` is always the place of the offending
/// entry in the list that was passed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A page layout with an empty dimension, or one whose page does not fit the address space.
    #[error(
        "a page of {block} tokens of {head_dim} elements cannot be laid out: both must be at least 1, and K and V \
         together must fit the address space"
    )]
    LayoutOutOfRange {
        /// `B`, tokens per page.
        block: usize,
        /// `D`, elements per row.
        head_dim: usize,
    },

    /// More pages than 32-bit page numbers or the address space can name.
    #[error(
        "a store of {pages} pages of {bytes_per_page} bytes cannot be addressed: page numbers have 32 bits, and all \
         pages together must fit the address space"
    )]
    StoreTooLarge {
        /// Pages asked for.
        pages: usize,
        /// Bytes of one page.
        bytes_per_page: usize,
    },

    /// The allocator refused the memory of a store.
    #[error("the system refused {bytes} bytes for {pages} pages of {dtype}")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
        /// Pages asked for.
        pages: usize,
        /// Element type of the store.
        dtype: KvDtype,
    },

    /// A page number that the store does not have.
    #[error("entry {index} names page {page}, the store has {pages} pages")]
    PageOutOfRange {
        /// Place of the entry in its list. For `attend`, the head.
        index: usize,
        /// Page named.
        page: u32,
        /// Pages of the store.
        pages: usize,
    },

    /// A place inside a page that a page does not have.
    #[error("entry {index} names offset {offset}, a page holds {block} tokens")]
    OffsetOutOfRange {
        /// Place of the entry in its list.
        index: usize,
        /// Offset named.
        offset: u32,
        /// `B`, tokens per page.
        block: usize,
    },

    /// A source row that was not passed.
    #[error("entry {index} reads row {row}, only {rows} rows were passed")]
    RowOutOfRange {
        /// Place of the entry in its list.
        index: usize,
        /// Row named.
        row: usize,
        /// Rows passed.
        rows: usize,
    },

    /// Keys or values that do not divide into rows.
    #[error("{elements} elements do not divide into rows of {head_dim}")]
    RowsNotWhole {
        /// Elements passed.
        elements: usize,
        /// `D`, elements per row.
        head_dim: usize,
    },

    /// Keys and values of different sizes.
    #[error("{keys} elements of keys came with {values} elements of values")]
    KeysValuesDiffer {
        /// Elements of keys.
        keys: usize,
        /// Elements of values.
        values: usize,
    },

    /// A group of no query heads.
    #[error("a group must hold at least 1 query head per KV head, got {group}")]
    GroupOutOfRange {
        /// `G`, query heads per KV head.
        group: usize,
    },

    /// Queries of the wrong size.
    #[error(
        "queries hold {elements} elements; {heads} heads x {group} queries x head dim {head_dim} need {expected}"
    )]
    QueriesLength {
        /// Elements passed.
        elements: usize,
        /// Elements needed.
        expected: usize,
        /// Head tables passed, `S * H`.
        heads: usize,
        /// `G`, query heads per KV head.
        group: usize,
        /// `D`, elements per row.
        head_dim: usize,
    },

    /// An output buffer of the wrong size.
    #[error("the output holds {elements} elements, the result has {expected}")]
    OutputLength {
        /// Elements passed.
        elements: usize,
        /// Elements needed.
        expected: usize,
    },

    /// A head table too short for the tokens it claims.
    #[error(
        "head {head} holds {len} tokens in {pages} pages; pages of {block} tokens make that {expected} pages"
    )]
    PagesTooFew {
        /// Place of the head in the list.
        head: usize,
        /// `T`, tokens claimed.
        len: usize,
        /// Pages passed.
        pages: usize,
        /// Pages needed.
        expected: usize,
        /// `B`, tokens per page.
        block: usize,
    },

    /// A softmax scale that is NaN or infinite.
    #[error("the softmax scale must be finite, got {scale}")]
    ScaleOutOfRange {
        /// Scale passed.
        scale: f32,
    },

    /// A soft cap that caps nothing.
    #[error("the soft cap must be finite and above 0, got {softcap}; pass None for no cap")]
    SoftcapOutOfRange {
        /// Cap passed.
        softcap: f32,
    },
}
