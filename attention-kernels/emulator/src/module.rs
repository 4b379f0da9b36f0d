//! A parsed module.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::ParseError;
use crate::lower::lower;
use crate::parse::parse;
use crate::program::Program;
use crate::syntax::{Function, Variable};
use crate::types::{Space, Type};

static NEXT_MODULE: AtomicU64 = AtomicU64::new(1);

/// A module: entries that can be launched, and variables.
#[derive(Debug)]
pub struct Module {
    /// Tells this module's variables from those of others in the same memory.
    pub(crate) id: u64,
    version: String,
    target: String,
    entries: Vec<Entry>,
    pub(crate) variables: Vec<Variable>,
    data: Vec<Vec<u8>>,
}

impl Module {
    /// Parses the text of a module. An entry with an instruction that is not known is no error until it is launched.
    ///
    /// # Errors
    ///
    /// [`ParseError`] where the text is not PTX.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let source = parse(text)?;
        let entries = source
            .functions
            .iter()
            .filter(|f| f.entry && f.body.is_some());
        let entries = entries.map(|function| Entry::new(function, lower(&source, function)));
        let entries = entries.collect();
        let data = source.variables.iter().map(data).collect();
        Ok(Self {
            id: NEXT_MODULE.fetch_add(1, Ordering::Relaxed),
            version: source.version,
            target: source.target,
            entries,
            variables: source.variables,
            data,
        })
    }

    /// Every entry, in the order of the text.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The entry of that name.
    #[must_use]
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// What follows `.version`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What follows `.target`.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// First contents of a variable in global or constant memory, with zeros where the text gives none. Addresses are zeros.
    #[must_use]
    pub fn data(&self, name: &str) -> Option<&[u8]> {
        let stored = |variable: &Variable| matches!(variable.space, Space::Global | Space::Const);
        let found = |variable: &Variable| variable.name == name && stored(variable);
        let index = self.variables.iter().position(found)?;
        Some(&self.data[index])
    }

    pub(crate) fn contents(&self, index: usize) -> &[u8] {
        &self.data[index]
    }
}

fn data(variable: &Variable) -> Vec<u8> {
    let mut bytes = variable.initial.clone();
    if matches!(variable.space, Space::Global | Space::Const) {
        bytes.resize(variable.bytes.unwrap_or(0), 0);
    }
    bytes
}

/// A kernel.
#[derive(Debug)]
pub struct Entry {
    name: String,
    params: Vec<ParamType>,
    pub(crate) offsets: Vec<usize>,
    pub(crate) max_threads: Option<u32>,
    pub(crate) required: Option<[u32; 3]>,
    pub(crate) program: Result<Program, ParseError>,
}

impl Entry {
    fn new(function: &Function, program: Result<Program, ParseError>) -> Self {
        let mut end = 0;
        let mut offsets = Vec::new();
        for param in &function.params {
            let start = usize::next_multiple_of(end, param.align);
            offsets.push(start);
            end = start + param.bytes.unwrap_or(0);
        }
        Self {
            name: function.name.clone(),
            params: function.params.iter().map(ParamType::of).collect(),
            offsets,
            max_threads: function.max_threads,
            required: function.required,
            program,
        }
    }

    /// Name to launch it by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Types of the parameters.
    #[must_use]
    pub fn params(&self) -> &[ParamType] {
        &self.params
    }

    /// Bytes of static shared memory.
    #[must_use]
    pub fn static_shared(&self) -> usize {
        self.program
            .as_ref()
            .map_or(0, |program| program.static_shared)
    }

    /// Virtual registers declared, predicates left out, those of all functions that it calls among them. A device needs far fewer.
    #[must_use]
    pub fn registers(&self) -> usize {
        let constants = |program: &Program| program.rows as usize - program.constants.len();
        self.program.as_ref().map_or(0, constants)
    }

    /// Instructions, those of all functions that it calls among them.
    #[must_use]
    pub fn instructions(&self) -> usize {
        self.program
            .as_ref()
            .map_or(0, |program| program.code.len())
    }

    /// Most threads of a block, where `.maxntid` or `.reqntid` says so.
    #[must_use]
    pub fn max_threads(&self) -> Option<u32> {
        self.max_threads
    }

    /// Why this entry cannot be launched, if it cannot.
    #[must_use]
    pub fn unsupported(&self) -> Option<&ParseError> {
        self.program.as_ref().err()
    }
}

/// Type of a kernel's parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParamType {
    /// 8 bits.
    B8,
    /// 16 bits of whatever type.
    B16,
    /// `.u32`, or `.b32`.
    U32,
    /// `.s32`.
    S32,
    /// `.u64`, or `.b64`: an address or a number.
    U64,
    /// `.s64`.
    S64,
    /// `.f32`.
    F32,
    /// `.f64`.
    F64,
    /// A struct of so many bytes.
    Bytes(usize),
}

impl ParamType {
    fn of(variable: &Variable) -> Self {
        if variable.array {
            return Self::Bytes(variable.bytes.unwrap_or(0));
        }
        match variable.ty {
            Type::B32 | Type::U32 | Type::F16x2 | Type::Bf16x2 => Self::U32,
            Type::S32 => Self::S32,
            Type::B64 | Type::U64 => Self::U64,
            Type::S64 => Self::S64,
            Type::F32 => Self::F32,
            Type::F64 => Self::F64,
            ty if ty.bytes() == 2 => Self::B16,
            _ => Self::B8,
        }
    }

    /// Bytes that it takes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::B8 => 1,
            Self::B16 => 2,
            Self::U32 | Self::S32 | Self::F32 => 4,
            Self::U64 | Self::S64 | Self::F64 => 8,
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl fmt::Display for ParamType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
            _ => write!(f, "{self:?}"),
        }
    }
}
