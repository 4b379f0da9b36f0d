//! A module as written, before names and types are resolved.

use crate::types::{Space, Type};

/// A variable or a parameter.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) space: Space,
    pub(crate) align: usize,
    pub(crate) ty: Type,
    /// An array, or one element of `ty`.
    pub(crate) array: bool,
    /// `None` for `.extern .shared x[]`.
    pub(crate) bytes: Option<usize>,
    /// The first bytes, as far as the text gives them; zeros follow.
    pub(crate) initial: Vec<u8>,
    /// Places in `initial` that hold the address of a variable, and what is added to it.
    pub(crate) pointers: Vec<(usize, String, i64)>,
    pub(crate) line: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) entry: bool,
    pub(crate) returns: Vec<Variable>,
    pub(crate) params: Vec<Variable>,
    /// `None` for a declaration.
    pub(crate) body: Option<Vec<Statement>>,
    /// Product of `.maxntid` or `.reqntid`.
    pub(crate) max_threads: Option<u32>,
    /// Shape that `.reqntid` demands.
    pub(crate) required: Option<[u32; 3]>,
}

#[derive(Clone, Debug)]
pub(crate) enum Statement {
    Open,
    Close,
    Label(String),
    Registers {
        ty: Type,
        name: String,
        count: Option<u32>,
    },
    Variable(Variable),
    Targets {
        label: String,
        labels: Vec<String>,
    },
    Instruction(Instruction),
}

#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    pub(crate) guard: Option<Guard>,
    pub(crate) opcode: String,
    pub(crate) operands: Vec<Operand>,
    pub(crate) line: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) register: String,
    pub(crate) negated: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    /// A register, label, variable or function.
    Name(String),
    /// `name + offset` outside brackets.
    Sum(String, i64),
    /// `!p`.
    Not(String),
    Number(Number),
    /// `[base + offset]`.
    Address {
        base: Option<String>,
        offset: i64,
    },
    /// `{a, b}`.
    Vector(Vec<Operand>),
    /// `(a, b)`, of a call.
    List(Vec<Operand>),
    /// `a|b`.
    Pair(String, String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    /// Two's complement.
    Integer(u64),
    F32(u32),
    F64(u64),
}
