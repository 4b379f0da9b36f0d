//! Runs PTX kernels on the CPU and checks every access.
//!
//! A test launches the very text that a driver would get, without a GPU:
//!
//! ```
//! use ptx_emulator::{Launch, Memory, Module, Param, launch};
//!
//! let module = Module::parse(
//!     "
//!     .version 7.0
//!     .target sm_80
//!     .address_size 64
//!     .visible .entry twice(.param .u64 out)
//!     {
//!         .reg .b32 %r<3>;
//!         .reg .b64 %rd<4>;
//!         ld.param.u64 %rd1, [out];
//!         cvta.to.global.u64 %rd2, %rd1;
//!         mov.u32 %r1, %tid.x;
//!         mul.wide.u32 %rd3, %r1, 4;
//!         add.s64 %rd2, %rd2, %rd3;
//!         shl.b32 %r2, %r1, 1;
//!         st.global.u32 [%rd2], %r2;
//!         ret;
//!     }",
//! )?;
//! let mut memory = Memory::new();
//! let out = memory.alloc(4 * 8, "out");
//! let shape = Launch {
//!     grid: [1, 1, 1],
//!     block: [8, 1, 1],
//!     dynamic_shared: 0,
//!     params: &[Param::Ptr(out)],
//! };
//! launch(&module, &mut memory, "twice", &shape)?;
//! let mut bytes = [0; 4];
//! memory.read(out.offset(4 * 5), &mut bytes)?;
//! assert_eq!(u32::from_le_bytes(bytes), 10);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is found
//!
//! A launch ends with [`LaunchError::Faults`] if the kernel did something undefined, even if the result looks right: accesses out of
//! bounds, after `free` or misaligned, reads of memory that nobody wrote, races on shared and global memory, barriers that not all
//! threads reach, shuffles from lanes that take no part, deadlocks. Each names its line. Races do not need an unlucky order to
//! show: two accesses of which one writes must be ordered by a barrier (`bar.sync`, or `bar.warp.sync` and, unless the options say
//! otherwise, the other warp-wide instructions within a warp), else they are reported. Between blocks, only a fence and an atomic
//! on one side and an atomic on the same address and a fence on the other order accesses.
//!
//! # How it runs
//!
//! Warps run in lockstep, an instruction for all lanes that stand there at once, the lanes that are furthest behind first. Warps
//! take turns until all wait, blocks run one after another. The order is the same in every run; [`Options::order`] makes others.
//!
//! # Limits
//!
//! * Arithmetic is IEEE, and `.ftz` is honoured. Approximations (`ex2.approx`, `rcp.approx`, ..) give the exact result, rounded: a
//!   device may differ in the last bits.
//! * Of several readers of a place, two are remembered, from different warps where possible. A write that races with a third one
//!   only is missed.
//! * Between blocks, order is kept per block: what a block writes after it has signalled counts as signalled.
//! * No matrix instructions, textures, surfaces, asynchronous copies, clusters, recursion, or calls through pointers. An instruction
//!   that is not known is an error that names it when its entry is launched.
#![forbid(unsafe_code)]

mod error;
mod exec;
mod lexer;
mod lower;
mod memory;
mod module;
mod number;
mod op;
mod parse;
mod program;
mod syntax;
mod types;

pub use error::{AccessKind, Fault, FaultKind, Faults, LaunchError, MemoryError, ParseError};
pub use exec::{Launch, Options, Order, Param, Stats, launch, launch_with};
pub use memory::{Address, Memory};
pub use module::{Entry, Module, ParamType};
pub use types::Space;
