//! How fast the emulator is. `cargo test --release -p ptx-emulator -- --ignored --nocapture speed`

use std::time::Instant;

use ptx_emulator::{Launch, Memory, Param, Stats, launch};

use crate::{bytes_of, kernels};

fn measure(name: &str, run: impl Fn() -> Stats) -> f64 {
    let start = Instant::now();
    let stats = run();
    let seconds = start.elapsed().as_secs_f64();
    let count = u32::try_from(stats.instructions).map_or(f64::INFINITY, f64::from);
    let rate = count / seconds / 1e6;
    eprintln!(
        "{name}: {} thread instructions, {rate:.0} million per second",
        stats.instructions
    );
    rate
}

#[test]
#[ignore = "a measurement, and of use in a release build only"]
fn speed() {
    let module = kernels();
    let arithmetic = measure("work", || {
        let mut memory = Memory::new();
        let data = memory.zeroed(4 * 2048, "data");
        let shape = Launch {
            grid: [8, 1, 1],
            block: [256, 1, 1],
            dynamic_shared: 0,
            params: &[Param::Ptr(data), Param::U32(10_000)],
        };
        launch(&module, &mut memory, "work", &shape).expect("no fault")
    });
    let loads = measure("block_sum", || {
        let mut memory = Memory::new();
        let input = memory.with(&bytes_of(&vec![1.0; 1 << 20]), "in");
        let out = memory.alloc(4 * 16, "out");
        let shape = Launch {
            grid: [16, 1, 1],
            block: [256, 1, 1],
            dynamic_shared: 0,
            params: &[Param::Ptr(input), Param::Ptr(out), Param::U32(1 << 20)],
        };
        launch(&module, &mut memory, "block_sum", &shape).expect("no fault")
    });
    assert!(arithmetic > 60.0 && loads > 10.0);
}
