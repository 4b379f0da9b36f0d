//! A kernel, ready to run.

use crate::op::Inst;

/// What a row holds from the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Constant {
    Value(u64),
    /// Address of variable `index` of the module.
    Variable {
        index: u32,
        offset: i64,
    },
    /// Where dynamic shared memory starts.
    Dynamic {
        offset: i64,
    },
    Special(Special),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Thread(u8),
    BlockSize(u8),
    Block(u8),
    GridSize(u8),
    Lane,
    Warp,
    Warps,
    MaskEq,
    MaskLe,
    MaskLt,
    MaskGe,
    MaskGt,
    DynamicShared,
    TotalShared,
    /// A clock or a number of the machine: instructions executed, or 0.
    Clock,
    Zero,
}

/// A kernel with all functions that it calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Program {
    pub(crate) code: Vec<Inst>,
    pub(crate) rows: u32,
    pub(crate) predicates: u32,
    pub(crate) constants: Vec<(u32, Constant)>,
    /// Lists of rows and of targets.
    pub(crate) lists: Vec<u32>,
    pub(crate) static_shared: usize,
    /// Named pieces of static shared memory: first byte, name.
    pub(crate) shared_names: Vec<(usize, String)>,
    pub(crate) local_bytes: usize,
    /// Bytes of the smallest access to shared memory, a power of two of 4 at most.
    pub(crate) shared_granule: u8,
    /// The same for global memory.
    pub(crate) global_granule: u8,
    /// Whether fences order blocks.
    pub(crate) fences: bool,
}
