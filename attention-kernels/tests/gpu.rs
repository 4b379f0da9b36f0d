//! Every op on a GPU, against its definition: the cases of `tests/backends` for the device that is there. `cargo xtask gpu-test` runs
//! them; where there is no GPU they fail.
//!
//! Every run draws a fresh seed and prints it where a test fails. `HEADROOM_SEED=<number>` repeats a run.

#[path = "suite/prompts.rs"]
#[allow(dead_code, reason = "shared with the CPU's own tests")]
mod prompts;
#[path = "backends/suite/mod.rs"]
mod suite;
#[path = "suite/world.rs"]
#[allow(dead_code, reason = "shared with the CPU's own tests")]
mod world;

use std::sync::OnceLock;

use attention_kernels::cuda::Gpu;
use candle_core::{CudaDevice, Device};
use suite::Cuda;

/// The first GPU, opened once.
fn first_gpu() -> Option<Cuda<Gpu>> {
    static DEVICE: OnceLock<CudaDevice> = OnceLock::new();
    let device = DEVICE.get_or_init(|| match Device::new_cuda(0) {
        Ok(Device::Cuda(device)) => device,
        Ok(other) => panic!("the first GPU is {:?}", other.location()),
        Err(error) => panic!("these tests need a GPU, and none can be opened: {error}"),
    });
    Some(Cuda(Gpu::new(device.clone())))
}

suite::expand_device!(gpu, crate::first_gpu);
