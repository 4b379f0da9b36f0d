//! Runs CUDA C++ kernels on the CPU, and watches what they do.
//!
//! A kernel source includes `cuda_host_shim.h` in place of the CUDA headers and is compiled by the host's C++ compiler. Each thread of
//! a block is a fiber; blocks run one after another. Every access to memory is checked, so one run in one order finds races that
//! no order would show as a wrong number:
//!
//! * races between threads with no barrier between, and between blocks;
//! * reads of shared or global memory that nobody has written;
//! * accesses outside a buffer or a shared array, to a freed buffer, or misaligned: these end the launch before they happen;
//! * barriers that not all threads of a block reach, or not the same ones; warp collectives whose lanes are elsewhere; shuffles that
//!   read a lane outside the mask; deadlocks.
//!
//! A finding names kernel, block, thread, the last barrier, buffer and byte. Programs that keep their debug information, as the dev
//! profile makes them, name the line of the access as well, through `addr2line`.
//!
//! Order between blocks through atomics and fences is not modelled: it is reported as a race. Neither are tensor cores,
//! asynchronous copies, textures and cooperative groups there. Approximate functions such as `__expf` are computed accurately.
//!
//! # A kernel
//!
//! ```cpp
//! #ifdef KV_HOST_SHIM
//! #include "cuda_host_shim.h"
//! #else
//! #define SHARED(T, name, N) __shared__ T name[N]
//! #define DYN_SHARED(T, name) extern __shared__ T name[]
//! #define KV_ENTRY(name)
//! #endif
//!
//! extern "C" __global__ void scale(float* numbers, float by, int count) {
//!   const int i = blockIdx.x * blockDim.x + threadIdx.x;
//!   if (i < count) numbers[i] *= by;
//! }
//! KV_ENTRY(scale)
//! ```
//!
//! `build.rs` lists the sources. Where there was no C++ compiler at build time, [`is_available`] is false.
//!
//! # A launch
//!
//! ```
//! use cuda_host_shim::{Cell, Shim};
//!
//! # if !cuda_host_shim::is_available() { return Ok(()); }
//! let mut shim = Shim::lock();
//! let numbers = shim.alloc(8, "numbers");
//! shim.write(numbers, 0, &[1.0_f32, 2.0].map(f32::to_ne_bytes).concat());
//! shim.launch("shim_scale", [1, 1, 1], [32, 1, 1], 0, &[numbers.cell(), 3.0_f32.cell(), 2_i32.cell()])?;
//! let mut bytes = [0; 4];
//! shim.read(numbers, 4, &mut bytes);
//! assert_eq!(f32::from_ne_bytes(bytes), 6.0);
//!
//! // Three numbers are one too many for the buffer.
//! let error = shim.launch("shim_scale", [1, 1, 1], [32, 1, 1], 0, &[numbers.cell(), 3.0_f32.cell(), 3_i32.cell()]);
//! assert!(error.unwrap_err().to_string().contains("outside every buffer"));
//! # Ok::<(), cuda_host_shim::LaunchError>(())
//! ```

#![allow(
    unsafe_code,
    reason = "kernels are C++: this crate is the safe way to them, and used by tests only"
)]

mod error;
mod ffi;
mod lines;
mod memory;
mod shim;

pub use error::LaunchError;
pub use memory::{Address, Cell};
pub use shim::{Order, Shim};

/// Whether kernels can run here: whether there was a C++ compiler when this crate was built.
#[must_use]
pub const fn is_available() -> bool {
    cfg!(shim_built)
}

/// The C++ compiler that built the kernels, where there was one.
#[must_use]
pub const fn compiler() -> Option<&'static str> {
    option_env!("CUDA_HOST_SHIM_CXX")
}
