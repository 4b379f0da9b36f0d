//! Decoded instructions.
//!
//! A register is a row of 32 numbers of 64 bits, one per lane. A row holds no set bits above the register's width. Constants
//! and special registers are rows as well, so that every source is one. A predicate is one word, a bit per lane.

use crate::types::{Space, Type};

/// No row and no predicate.
pub(crate) const NONE: u32 = u32::MAX;

/// A predicate as a source: its number, and whether it is negated. Number 0 is true in all lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Predicate {
    pub(crate) index: u32,
    pub(crate) negated: bool,
}

impl Predicate {
    pub(crate) const TRUE: Self = Self {
        index: 0,
        negated: false,
    };
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Inst {
    pub(crate) op: Op,
    pub(crate) guard: Predicate,
    /// A predicate that is read.
    pub(crate) p: Predicate,
    /// Destination: a row, or a predicate where the instruction makes one.
    pub(crate) d: u32,
    /// Second destination, always a predicate.
    pub(crate) e: u32,
    /// Sources.
    pub(crate) a: u32,
    pub(crate) b: u32,
    pub(crate) c: u32,
    /// Row of the member mask of a warp-wide instruction.
    pub(crate) m: u32,
    pub(crate) line: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Op {
    Nop,
    Mov,
    /// Destinations or sources in a list of rows, `bits` each, lowest first.
    Pack(Pieces),
    Unpack(Pieces),
    Int(IntOp, Int),
    Float(FloatOp, Type, FloatMode),
    Convert(Convert),
    /// Two floats to one register, `a` in the upper half.
    ConvertPair(Convert),
    /// Predicate `d`, its complement in `e`, both combined with `p`.
    Setp(Compare, Combine, CompareType),
    Set(Compare, Combine, CompareType, Type),
    /// `p ? a : b`.
    Select,
    /// `c >= 0 ? a : b`.
    SelectSign(Type),
    Logic(LogicOp),
    TestFloat(FloatTest, Type),
    IsSpace(Space),
    Load(Access),
    Store(Access),
    Atomic(AtomicOp, Type, Access),
    /// Local bytes from one place to another: arguments of a call.
    Copy {
        from: u32,
        to: u32,
        bytes: u32,
    },
    Branch(u32),
    /// Targets in a list.
    BranchIndex {
        list: u32,
        count: u32,
    },
    /// Goes to a function; the row `link` takes the way back.
    Call {
        target: u32,
        link: u32,
    },
    Return {
        link: u32,
    },
    Exit,
    Trap,
    AssertFail,
    Fence,
    Barrier {
        aligned: bool,
        kind: BarrierKind,
    },
    Warp(WarpOp),
    ActiveMask,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pieces {
    pub(crate) list: u32,
    pub(crate) count: u8,
    pub(crate) bits: u8,
}

/// Width and sign of an integer operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Int {
    pub(crate) bits: u8,
    pub(crate) signed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IntOp {
    Add,
    AddSat,
    Sub,
    SubSat,
    MulLow,
    MulHigh,
    MulWide,
    MadLow,
    MadHigh,
    MadWide,
    Mul24Low,
    Mul24High,
    Mad24Low,
    Sad,
    Div,
    Rem,
    Min,
    Max,
    Neg,
    Abs,
    And,
    Or,
    Xor,
    Not,
    Cnot,
    Shl,
    Shr,
    FunnelLeft {
        clamp: bool,
    },
    FunnelRight {
        clamp: bool,
    },
    Lop3(u8),
    BitfieldExtract,
    /// The fourth source is row `m`.
    BitfieldInsert,
    Permute(PermuteMode),
    PopCount,
    LeadingZeros,
    BitReverse,
    BitFind {
        shift: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PermuteMode {
    Index,
    Forward4,
    Backward4,
    Replicate8,
    EdgeLeft,
    EdgeRight,
    Replicate16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatOp {
    Add,
    Sub,
    Mul,
    Fma,
    Div,
    Rcp,
    Sqrt,
    Rsqrt,
    Min { nan: bool },
    Max { nan: bool },
    Neg,
    Abs,
    CopySign,
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    Nearest,
    Zero,
    Down,
    Up,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FloatMode {
    pub(crate) rounding: Rounding,
    /// Subnormal inputs and results become zeros of their sign.
    pub(crate) ftz: bool,
    /// Results are held to 0..=1, NaN becomes 0.
    pub(crate) sat: bool,
    /// Negative results become 0.
    pub(crate) relu: bool,
}

impl FloatMode {
    pub(crate) const PLAIN: Self = Self {
        rounding: Rounding::Nearest,
        ftz: false,
        sat: false,
        relu: false,
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Convert {
    pub(crate) to: Type,
    pub(crate) from: Type,
    pub(crate) mode: FloatMode,
    /// A float to a whole number in a float.
    pub(crate) integral: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// The same, true as well where an operand is NaN.
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    /// No operand is NaN.
    Num,
    /// One is.
    Nan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CompareType {
    pub(crate) ty: Type,
    pub(crate) ftz: bool,
}

/// How the result of a comparison joins the predicate `p`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Combine {
    Alone,
    And,
    Or,
    Xor,
}

/// On predicates. The second source of the two-sided ones is number `b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogicOp {
    Mov,
    And,
    Or,
    Xor,
    Not,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatTest {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) space: Space,
    /// Of one element.
    pub(crate) bytes: u8,
    pub(crate) count: u8,
    pub(crate) signed: bool,
    /// Volatile, relaxed, acquire or release: does not race with others of its kind.
    pub(crate) strong: bool,
    pub(crate) offset: i64,
    /// Rows of the elements, [`NONE`] for one that is thrown away, each followed by its register's width in bits.
    pub(crate) list: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtomicOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareExchange,
    Increment,
    Decrement,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BarrierKind {
    Sync,
    Arrive,
    Count,
    All,
    Any,
}

/// What a warp does together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WarpOp {
    Sync,
    Shuffle(Shuffle),
    Vote(Vote),
    MatchAny { bits: u8 },
    MatchAll { bits: u8 },
    Reduce(AtomicOp, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}
