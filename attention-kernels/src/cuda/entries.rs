//! The entries of the PTX module as this side believes them to be: names, parameters, layouts and constants. Tests compare all of
//! it with the module itself.

/// The shipped kernels: PTX for compute capability 8.0, which every later GPU takes too. Made from `kernels/kernels.cu` by
/// `cargo xtask cuda-kernels --write`.
pub const PTX: &str = include_str!("kernels.ptx");

/// Type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Param {
    /// An address.
    Pointer,
    /// A 32-bit number.
    U32,
    /// A float.
    F32,
}

/// An entry that exists once for each element type: its name goes on with `_f32`, `_f16` or `_bf16`.
pub const TYPED: [(&str, &[Param]); 11] = {
    use Param::{F32 as F, Pointer as P, U32 as U};
    const ATTEND: &[Param] = &[P, P, P, P, P, P, P, P, U, U, U, U, U, F, F];
    [
        ("kv_attend_g1", ATTEND),
        ("kv_attend_g4", ATTEND),
        ("kv_attend_g8", ATTEND),
        ("kv_merge", &[P, P, P, P, P, P, P, P, U, U, U, U, U, U]),
        ("kv_write", &[P, P, P, P, P, P, P, P, U, U, U]),
        ("kv_copy", &[P, P, P, P, P, U, U, U]),
        ("kv_shift", &[P, P, P, P, U, U, U, U, U]),
        ("kv_append", &[P, P, P, P, P, P, P, P, P, U, U, U, U, U]),
        ("kv_weigh_queries", &[P, P, P, U, U, U, U, U, F, F]),
        ("kv_fold_queries", &[P, P, P, P, U, U, U, U, U, U, U, F, F]),
        ("kv_key_norms", &[P, P, U, U, U, U]),
    ]
};

/// An entry that exists once.
pub const UNTYPED: [(&str, &[Param]); 3] = {
    use Param::{F32 as F, Pointer as P, U32 as U};
    [
        ("kv_reduce_heads", &[P, P, U, U, U, U, U, U, U, F, U]),
        ("kv_keep", &[P, P, P, P, P, P, P, P, U, U, U, U]),
        ("kv_across_heads", &[P, P, P, U, U, U, U, U]),
    ]
};

/// Threads of a block of `kv_attend_*` and `kv_merge`.
pub const ATTEND_THREADS: u32 = 128;
/// Tokens of a chunk, the unit of work of `kv_attend_*`.
pub const CHUNK_TOKENS: usize = 256;
/// Largest `D`.
pub const MAX_HEAD_DIM: usize = 256;
/// Largest `G`.
pub const MAX_GROUP: usize = 128;
pub(super) const ROW_THREADS: u32 = 128;
pub(super) const APPEND_THREADS: u32 = 128;
pub(super) const TILE_THREADS: u32 = 128;
pub(super) const TILE_QUERIES: usize = 32;
pub(super) const TILE_KEYS: usize = 64;
pub(super) const REDUCE_THREADS: u32 = 128;
pub(super) const KEEP_THREADS: u32 = 256;
pub(super) const ACROSS_THREADS: u32 = 1024;
/// Threads of a warp, which serves a row in the kernels that move rows.
pub(super) const WARP: u32 = 32;

/// A pinned slot's position carries this bit.
pub const PINNED: u32 = 1 << 31;
/// A step's target: the slot with the lowest score.
pub(super) const LOWEST: u32 = u32::MAX;
/// A step's target: nothing is written.
pub(super) const NO_TARGET: u32 = u32::MAX - 1;
/// A verb that speaks of every head.
pub(super) const EVERY_HEAD: u32 = u32::MAX;
pub(super) const VERB_WINDOW: u32 = 0;
pub(super) const VERB_TOP: u32 = 1;
pub(super) const VERB_COUNTED: u32 = 2;
pub(super) const VERB_SLOTS: u32 = 3;

/// What the module's array `kv_layout` must hold: for each record its size and the offsets of its fields, which are 32-bit numbers
/// one after the other, and then the constants.
#[must_use]
pub fn expected_layout() -> Vec<u32> {
    let records = [4, 4, 4, 3, 4]
        .map(|fields: u32| std::iter::once(4 * fields).chain((0..fields).map(|field| 4 * field)));
    let constants = [
        ATTEND_THREADS,
        narrow(CHUNK_TOKENS),
        narrow(MAX_HEAD_DIM),
        narrow(MAX_GROUP),
        ROW_THREADS,
        APPEND_THREADS,
        TILE_THREADS,
        narrow(TILE_QUERIES),
        narrow(TILE_KEYS),
        REDUCE_THREADS,
        KEEP_THREADS,
        ACROSS_THREADS,
        PINNED,
        LOWEST,
        NO_TARGET,
        EVERY_HEAD,
        VERB_WINDOW,
        VERB_TOP,
        VERB_COUNTED,
        VERB_SLOTS,
    ];
    records.into_iter().flatten().chain(constants).collect()
}

/// A number that is known to be small; what does not fit is caught where it comes in.
pub(super) fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
