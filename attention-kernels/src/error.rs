//! What an op can refuse.
//!
//! Every op checks its whole argument before it touches memory, so an op that returns an error has changed nothing.

use kv_core::Observation;

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

    /// Counts of tokens in front for another number of heads.
    #[error("{counts} counts of tokens in front for {heads} heads")]
    FrontLength {
        /// Counts passed.
        counts: usize,
        /// Head tables passed, `S * H`.
        heads: usize,
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

    /// Rows of no elements.
    #[error("a head dim must be at least 1, got {head_dim}")]
    HeadDimOutOfRange {
        /// `D`, elements per row.
        head_dim: usize,
    },

    /// Keys of a prompt that do not divide into heads.
    #[error("{elements} elements of keys do not divide into heads of {rows} rows of {head_dim}")]
    HeadsNotWhole {
        /// Elements of keys.
        elements: usize,
        /// Rows per head, padding and all.
        rows: usize,
        /// `D`, elements per row.
        head_dim: usize,
    },

    /// More tokens than there are rows.
    #[error("{tokens} tokens were claimed of a head of {rows} rows")]
    TokensOutOfRange {
        /// Tokens claimed.
        tokens: usize,
        /// Rows per head, padding and all.
        rows: usize,
    },

    /// Queries of a prompt that do not match its keys.
    #[error(
        "queries hold {elements} elements; {heads} heads x {group} queries x {rows} rows x head dim {head_dim} need \
         {expected}"
    )]
    PromptQueriesLength {
        /// Elements passed.
        elements: usize,
        /// Elements needed.
        expected: usize,
        /// `H`, as many as there are heads of keys.
        heads: usize,
        /// `G`, query heads per KV head.
        group: usize,
        /// Rows per head, padding and all.
        rows: usize,
        /// `D`, elements per row.
        head_dim: usize,
    },

    /// An observation that no kernel supplies.
    #[error("{observation} cannot be supplied: there are kernels for attention and for key norms")]
    NotObserved {
        /// Observation asked for.
        observation: Observation,
    },

    /// A window of no queries.
    #[error("a window must hold at least 1 query, got {window}")]
    WindowOutOfRange {
        /// Queries asked for.
        window: usize,
    },

    /// Not one sight per KV head.
    #[error("{sights} sights for {heads} KV heads")]
    SightsLength {
        /// Sights passed.
        sights: usize,
        /// `H`.
        heads: usize,
    },

    /// Attention is observed of a head whose queries do not see all tokens before them.
    #[error("head {head} streams: what its queries would see of all tokens is not known")]
    SightObserved {
        /// KV head.
        head: usize,
    },

    /// A pool that has no middle.
    #[error("a pool must be of odd width, 1 at least, got {width}")]
    PoolWidthOutOfRange {
        /// Width asked for.
        width: usize,
    },

    /// A part of a key that cannot be turned in pairs.
    #[error(
        "the rotary dim must be even, at least 2 and at most the head dim {head_dim}, got {rotary_dim}"
    )]
    RotaryDimOutOfRange {
        /// `R`, elements to turn.
        rotary_dim: usize,
        /// `D`, elements per row.
        head_dim: usize,
    },

    /// Tables of angles that do not match each other or the pairs.
    #[error(
        "the tables hold {cos} cosines and {sin} sines; there must be as many of both, in rows of {pairs}"
    )]
    AngleTables {
        /// Cosines passed.
        cos: usize,
        /// Sines passed.
        sin: usize,
        /// `R / 2`, pairs of a key.
        pairs: usize,
    },

    /// A shift further than the tables reach.
    #[error(
        "entry {index} moves a key by {by}, the tables have {positions} positions, 0 among them"
    )]
    ShiftOutOfRange {
        /// Place of the entry in its list.
        index: usize,
        /// Positions to move by.
        by: i32,
        /// `P`, positions of the tables.
        positions: usize,
    },

    /// A key that would be turned twice, in an order that a parallel backend does not keep.
    #[error("entry {index} names page {page}, offset {offset} again; a call moves a key once")]
    ShiftedTwice {
        /// Place of the second entry in its list.
        index: usize,
        /// Page named.
        page: u32,
        /// Offset named.
        offset: u32,
    },

    /// A buffer for attention rows of the wrong size.
    #[error("the attention rows hold {elements} elements, the heads {expected} tokens")]
    RowsLength {
        /// Elements passed.
        elements: usize,
        /// Elements needed, the sum of the heads' lengths.
        expected: usize,
    },
}
