//! Every op on every backend, against its definition, and the shipped PTX module itself.
//!
//! A case is written once, generic over [`suite::Backend`], and expanded for each of them: `cpu` are the CPU's ops, `ptx` the shipped
//! PTX in the emulator, `shim` its source as C++ on the host. `tests/gpu.rs` expands the same cases for a GPU.
//!
//! Every run draws a fresh seed and prints it where a test fails. `HEADROOM_SEED=<number>` repeats a run.

#[path = "../suite/prompts.rs"]
#[allow(dead_code, reason = "shared with the CPU's own tests")]
mod prompts;
#[path = "../suite/world.rs"]
#[allow(dead_code, reason = "shared with the CPU's own tests")]
mod world;

mod host;
#[path = "shim.rs"]
mod host_shim;
mod suite;

#[cfg(feature = "emulator")]
mod faults;
#[cfg(feature = "emulator")]
mod module;
mod orders;

#[cfg(feature = "emulator")]
use attention_kernels::cuda::Emulated;
use cuda_host_shim::Order;
use host::Cpu;
use suite::Cuda;

fn on_the_cpu() -> Option<Cpu> {
    Some(Cpu)
}

#[cfg(feature = "emulator")]
fn emulated() -> Option<Cuda<Emulated>> {
    Some(Cuda(Emulated::new()))
}

fn shimmed() -> Option<Cuda<host_shim::HostShim>> {
    host_shim::connect(Order::Ascending).map(Cuda)
}

suite::expand!(cpu, crate::on_the_cpu);
#[cfg(feature = "emulator")]
suite::expand_device!(ptx, crate::emulated);
suite::expand_device!(shim, crate::shimmed);
