//! Launches.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "registers hold bits, and an instruction's type says how many of them count"
)]

mod access;
mod atomic;
mod barrier;
mod block;
mod collective;
mod compute;
mod machine;
mod order;
mod schedule;
mod shadow;
mod warp;

use std::fmt;

use crate::error::{Faults, LaunchError};
use crate::memory::{Address, Memory};
use crate::module::{Entry, Module, ParamType};
use crate::program::Program;
use machine::Machine;

/// Where shared, local and parameter memory lie among generic addresses, [`WINDOW`] bytes each.
pub(crate) const SHARED_WINDOW: u64 = 0x6000_0000_0000;
pub(crate) const LOCAL_WINDOW: u64 = 0x5000_0000_0000;
pub(crate) const PARAM_WINDOW: u64 = 0x4000_0000_0000;
pub(crate) const WINDOW: u64 = 1 << 32;

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;

/// An argument.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Param<'a> {
    /// 64 bits, with or without sign.
    U64(u64),
    /// 32 bits, with or without sign.
    U32(u32),
    /// 32 bits, with or without sign.
    S32(i32),
    /// 16 bits of any type.
    B16(u16),
    /// A float.
    F32(f32),
    /// A double.
    F64(f64),
    /// Device memory.
    Ptr(Address),
    /// A struct.
    Bytes(&'a [u8]),
}

impl Param<'_> {
    fn fits(self, ty: ParamType) -> bool {
        match self {
            Self::U64(_) => matches!(ty, ParamType::U64 | ParamType::S64),
            Self::Ptr(_) => ty == ParamType::U64,
            Self::U32(_) | Self::S32(_) => matches!(ty, ParamType::U32 | ParamType::S32),
            Self::B16(_) => ty == ParamType::B16,
            Self::F32(_) => ty == ParamType::F32,
            Self::F64(_) => ty == ParamType::F64,
            Self::Bytes(bytes) => ty == ParamType::Bytes(bytes.len()),
        }
    }

    fn put(self, into: &mut [u8]) {
        match self {
            Self::U64(value) => into.copy_from_slice(&value.to_le_bytes()),
            Self::Ptr(address) => into.copy_from_slice(&address.get().to_le_bytes()),
            Self::U32(value) => into.copy_from_slice(&value.to_le_bytes()),
            Self::S32(value) => into.copy_from_slice(&value.to_le_bytes()),
            Self::B16(value) => into.copy_from_slice(&value.to_le_bytes()),
            Self::F32(value) => into.copy_from_slice(&value.to_le_bytes()),
            Self::F64(value) => into.copy_from_slice(&value.to_le_bytes()),
            Self::Bytes(bytes) => into.copy_from_slice(bytes),
        }
    }
}

impl fmt::Display for Param<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            _ => write!(f, "{self:?}"),
        }
    }
}

/// Shape and arguments of a launch.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Bytes of `.extern .shared`.
    pub dynamic_shared: usize,
    /// Arguments.
    pub params: &'a [Param<'a>],
}

/// In which order blocks, and the warps of a block, run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// By number.
    #[default]
    Ascending,
    /// The last first.
    Descending,
    /// Any order, the same for the same seed.
    Shuffled(u64),
}

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Order of blocks and warps.
    pub order: Order,
    /// Places at which faults are collected before the launch stops.
    pub max_faults: usize,
    /// Thread instructions before the launch stops.
    pub max_instructions: u64,
    /// Bytes of shared memory that a block can have.
    pub max_shared: usize,
    /// Whether shuffles, votes and their like order memory within a warp, as `bar.warp.sync` does. The PTX manual does not promise it.
    pub collectives_order_memory: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            order: Order::Ascending,
            max_faults: 32,
            max_instructions: 20_000_000_000,
            // The most that a device of compute capability 8.0 gives a block.
            max_shared: 163 << 10,
            collectives_order_memory: true,
        }
    }
}

/// What a launch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Instructions, counted once per thread, those that a guard held back among them.
    pub instructions: u64,
    /// Instructions, counted once for all threads that executed them together.
    pub warp_instructions: u64,
    /// Bytes that loads and atomics took from global and constant memory.
    pub global_bytes_read: u64,
    /// Bytes that stores and atomics put there.
    pub global_bytes_written: u64,
    /// Barriers that blocks passed.
    pub barriers: u64,
    /// Jumps that parted the threads of a warp.
    pub divergent_jumps: u64,
}

/// Launches an entry and runs it to its end.
///
/// # Errors
///
/// [`LaunchError`] where the launch is refused, or [`LaunchError::Faults`] where the kernel did something undefined. What it
/// wrote until then is in memory.
pub fn launch(
    module: &Module,
    memory: &mut Memory,
    entry: &str,
    launch: &Launch<'_>,
) -> Result<Stats, LaunchError> {
    launch_with(module, memory, entry, launch, &Options::default())
}

/// [`launch`], with options.
///
/// # Errors
///
/// As [`launch`].
pub fn launch_with(
    module: &Module,
    memory: &mut Memory,
    entry: &str,
    launch: &Launch<'_>,
    options: &Options,
) -> Result<Stats, LaunchError> {
    let Some(entry) = module.entry(entry) else {
        return Err(LaunchError::UnknownEntry {
            name: entry.to_owned(),
            known: module.entries().map(|e| e.name().to_owned()).collect(),
        });
    };
    let program = entry
        .program
        .as_ref()
        .map_err(|error| LaunchError::Unsupported {
            entry: entry.name().to_owned(),
            error: error.clone(),
        })?;
    check_shape(entry, launch)?;
    let shared = dynamic_start(program) + launch.dynamic_shared;
    if shared > options.max_shared {
        return Err(LaunchError::SharedMemory {
            bytes: shared,
            limit: options.max_shared,
        });
    }
    let params = arguments(entry, launch.params)?;
    let variables = memory.variables(module);
    let mut machine = Machine::new(entry.name(), program, memory, launch, options, params);
    let stopped = block::run_grid(&mut machine, &variables).is_err();
    let (list, stats) = machine.finish();
    if list.is_empty() {
        Ok(stats)
    } else {
        Err(LaunchError::Faults(Faults {
            list,
            stopped,
            stats,
        }))
    }
}

/// Where dynamic shared memory starts.
fn dynamic_start(program: &Program) -> usize {
    program.static_shared.next_multiple_of(16)
}

fn check_shape(entry: &Entry, launch: &Launch<'_>) -> Result<(), LaunchError> {
    let refuse = |what, size, allowed: String| {
        Err(LaunchError::Shape {
            what,
            size,
            allowed,
        })
    };
    let [x, y, z] = launch.grid;
    if x == 0 || y == 0 || z == 0 || x > 0x7FFF_FFFF || y > 0xFFFF || z > 0xFFFF {
        let allowed = "1 to 2147483647, 65535 and 65535 blocks along x, y and z".to_owned();
        return refuse("a grid", launch.grid, allowed);
    }
    let [x, y, z] = launch.block;
    let threads = u64::from(x) * u64::from(y) * u64::from(z);
    if threads == 0 || threads > 1024 || z > 64 {
        let allowed = "1 to 1024 threads, 64 at most along z".to_owned();
        return refuse("a block", launch.block, allowed);
    }
    if let Some(required) = entry.required
        && required != launch.block
    {
        let allowed = format!("`{}` demands {required:?} threads", entry.name());
        return refuse("a block", launch.block, allowed);
    }
    if let Some(most) = entry.max_threads
        && threads > u64::from(most)
    {
        let allowed = format!("`{}` takes {most} threads at most", entry.name());
        return refuse("a block", launch.block, allowed);
    }
    Ok(())
}

fn arguments(entry: &Entry, params: &[Param<'_>]) -> Result<Vec<u8>, LaunchError> {
    let types = entry.params();
    if types.len() != params.len() {
        return Err(LaunchError::ParameterCount {
            entry: entry.name().to_owned(),
            expected: types.len(),
            got: params.len(),
        });
    }
    let mut bytes = Vec::new();
    for (index, ((param, ty), offset)) in params.iter().zip(types).zip(&entry.offsets).enumerate() {
        if !param.fits(*ty) {
            return Err(LaunchError::ParameterType {
                entry: entry.name().to_owned(),
                index,
                expected: ty.to_string(),
                got: param.to_string(),
            });
        }
        bytes.resize(offset + ty.bytes(), 0);
        param.put(&mut bytes[*offset..]);
    }
    Ok(bytes)
}
