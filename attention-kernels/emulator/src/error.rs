//! What can be wrong with a module, a launch or a kernel.

use std::fmt;

use crate::exec::Stats;
use crate::types::Space;

/// Text that is no module, or an instruction that this crate does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {message}")]
pub struct ParseError {
    line: u32,
    message: String,
}

impl ParseError {
    pub(crate) fn new(line: u32, message: String) -> Self {
        Self { line, message }
    }

    /// Line of the text, from 1.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.line
    }

    /// What is wrong there.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// An access by the host that memory refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The bytes do not all lie in one allocation.
    #[error("{bytes} bytes at {address:#x} do not lie in one allocation")]
    OutOfBounds {
        /// First byte.
        address: u64,
        /// Bytes asked for.
        bytes: usize,
    },
    /// The allocation was freed, or `free` was called with an address that is not the start of one.
    #[error("{address:#x} is not the address of a live allocation")]
    NotLive {
        /// Address passed.
        address: u64,
    },
}

/// Why a launch failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// No such kernel.
    #[error("the module has no entry `{name}`, it has {known:?}")]
    UnknownEntry {
        /// Name asked for.
        name: String,
        /// Names of the module.
        known: Vec<String>,
    },
    /// The kernel holds something that this crate cannot run.
    #[error("entry `{entry}` cannot be run: {error}")]
    Unsupported {
        /// Kernel.
        entry: String,
        /// First instruction or declaration that is not known.
        error: ParseError,
    },
    /// Too many or too few arguments.
    #[error("entry `{entry}` takes {expected} parameters, got {got}")]
    ParameterCount {
        /// Kernel.
        entry: String,
        /// Parameters declared.
        expected: usize,
        /// Arguments passed.
        got: usize,
    },
    /// An argument of another size or kind than its parameter.
    #[error("parameter {index} of entry `{entry}` is {expected}, got {got}")]
    ParameterType {
        /// Kernel.
        entry: String,
        /// Place in the list.
        index: usize,
        /// Type declared.
        expected: String,
        /// Type passed.
        got: String,
    },
    /// A grid or block without threads, or one beyond what a device takes or the kernel declares.
    #[error("{what} of {size:?} is not allowed: {allowed}")]
    Shape {
        /// Grid or block.
        what: &'static str,
        /// Size asked for.
        size: [u32; 3],
        /// What is.
        allowed: String,
    },
    /// More shared memory than a block can have.
    #[error("{bytes} bytes of shared memory were asked for, a block has {limit} at most")]
    SharedMemory {
        /// Static and dynamic bytes together.
        bytes: usize,
        /// Limit of the options.
        limit: usize,
    },
    /// The kernel did something undefined.
    #[error("{0}")]
    Faults(Faults),
}

/// The findings of one launch, each place once.
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    /// Findings in the order in which they came up.
    pub list: Vec<Fault>,
    /// The launch ended early because a fault left nothing to go on with, or because there were too many.
    pub stopped: bool,
    /// Work done until the end.
    pub stats: Stats,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} faults", self.list.len())?;
        if self.stopped {
            f.write_str(", launch stopped")?;
        }
        self.list
            .iter()
            .try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Entry that was launched.
    pub kernel: String,
    /// Line of the instruction in the PTX text.
    pub line: u32,
    /// Block of the thread that came upon it first.
    pub block: [u32; 3],
    /// That thread.
    pub thread: [u32; 3],
    /// What happened.
    pub kind: FaultKind,
    /// How often the same kind came up at this line.
    pub count: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, PTX line {}, block {:?}, thread {:?}: {}",
            self.kernel, self.line, self.block, self.thread, self.kind
        )?;
        if self.count > 1 {
            write!(f, " ({} times)", self.count)?;
        }
        Ok(())
    }
}

/// How an access touches memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AccessKind {
    /// A plain load.
    Read,
    /// A plain store.
    Write,
    /// A volatile, relaxed or acquiring load.
    StrongRead,
    /// An atomic, or a volatile, relaxed or releasing store.
    StrongWrite,
}

impl fmt::Display for AccessKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::StrongRead => "volatile or relaxed read",
            Self::StrongWrite => "atomic",
        })
    }
}

/// What a kernel did wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultKind {
    /// An access outside of every allocation or beyond a block's or thread's memory. Stops the launch.
    #[error("{kind} of {bytes} bytes of {space} memory at {address:#x}, out of bounds: {near}")]
    OutOfBounds {
        /// Memory accessed.
        space: Space,
        /// Load, store or atomic.
        kind: AccessKind,
        /// First byte.
        address: u64,
        /// Bytes of one element.
        bytes: usize,
        /// The nearest allocation.
        near: String,
    },
    /// An access to a freed allocation. Stops the launch.
    #[error("{kind} of `{name}` at byte {offset} after it was freed")]
    UseAfterFree {
        /// Load, store or atomic.
        kind: AccessKind,
        /// Allocation.
        name: String,
        /// First byte, from its start.
        offset: u64,
    },
    /// An address that is no multiple of the access's size. Stops the launch.
    #[error(
        "{kind} of {bytes} bytes of {space} memory at {address:#x}, which is no multiple of {bytes}"
    )]
    Misaligned {
        /// Memory accessed.
        space: Space,
        /// Load, store or atomic.
        kind: AccessKind,
        /// First byte.
        address: u64,
        /// Bytes of the whole access, all elements of a vector together.
        bytes: usize,
    },
    /// A store to constant memory or to a parameter. Stops the launch.
    #[error("write to {space} memory")]
    ReadOnly {
        /// Memory accessed.
        space: Space,
    },
    /// A read of bytes that nobody has written.
    #[error("read of uninitialised {space} memory, {name} byte {offset}")]
    Uninitialised {
        /// Memory accessed.
        space: Space,
        /// Allocation or variable.
        name: String,
        /// First byte, from its start.
        offset: u64,
    },
    /// Two accesses that nothing orders, one of them a write.
    #[error(
        "race on {space} memory, {name} byte {offset}: {later} after a {earlier} by thread {other_thread} of \
         block {other_block} with nothing between that orders them"
    )]
    Race {
        /// Memory accessed.
        space: Space,
        /// Allocation or variable.
        name: String,
        /// First byte, from its start.
        offset: u64,
        /// The access that was executed first.
        earlier: AccessKind,
        /// The access at this line.
        later: AccessKind,
        /// Number of the thread that did the first one, counted along x, y, z.
        other_thread: u32,
        /// Number of its block.
        other_block: u64,
    },
    /// A barrier that not all threads reached at the same place.
    #[error("divergent barrier: {what}")]
    DivergentBarrier {
        /// Which threads were elsewhere.
        what: String,
    },
    /// No thread can go on. Stops the launch.
    #[error("deadlock: {what}")]
    Deadlock {
        /// Who waits where.
        what: String,
    },
    /// A shuffle that reads from a lane that does not take part.
    #[error("a shuffle reads lane {lane}, which does not take part in it")]
    ShuffleSource {
        /// Lane read.
        lane: u32,
    },
    /// A lane that executes a warp-wide instruction whose mask does not name it.
    #[error(
        "lane {lane} executes a warp-wide instruction with mask {mask:#010x}, which leaves it out"
    )]
    NotInMask {
        /// The lane.
        lane: u32,
        /// Its mask.
        mask: u32,
    },
    /// `trap`, or a failed assertion. Stops the launch.
    #[error("{what}")]
    Trap {
        /// Which of them.
        what: String,
    },
    /// More instructions than the options allow. Stops the launch.
    #[error("more than {limit} thread instructions, perhaps an endless loop")]
    InstructionLimit {
        /// Limit of the options.
        limit: u64,
    },
}
