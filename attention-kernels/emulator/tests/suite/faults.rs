//! Kernels spoilt on purpose. Each test runs the sound kernel too, or another test does.

use ptx_emulator::{
    AccessKind, FaultKind, Launch, LaunchError, Memory, Module, Options, Order, Param, Space,
    Stats, launch, launch_with,
};

use crate::{KERNELS, faults, kernels, run_body, spoilt};

fn sum(module: &Module, order: Order, out_bytes: usize) -> Result<Stats, LaunchError> {
    let mut memory = Memory::new();
    let input = memory.zeroed(4 * 1000, "in");
    let out = memory.alloc(out_bytes, "out");
    let params = [Param::Ptr(input), Param::Ptr(out), Param::U32(1000)];
    let shape = Launch {
        grid: [2, 1, 1],
        block: [256, 1, 1],
        dynamic_shared: 0,
        params: &params,
    };
    let options = Options {
        order,
        ..Options::default()
    };
    launch_with(module, &mut memory, "block_sum", &shape, &options)
}

/// The line of the fixture that holds `text` first after the start of `entry`.
fn line_of(entry: &str, text: &str) -> u32 {
    let start = KERNELS.find(&format!(".entry {entry}(")).expect("an entry");
    let at = start + KERNELS[start..].find(text).expect("in the entry");
    u32::try_from(KERNELS[..at].matches('\n').count() + 1).expect("small")
}

#[test]
fn a_barrier_left_out_is_a_race_in_every_order() {
    let module = spoilt("block_sum", "bar.sync \t0;", "");
    for order in [Order::Ascending, Order::Descending, Order::Shuffled(3)] {
        assert!(sum(&kernels(), order, 8).is_ok());
        let found = faults(sum(&module, order, 8));
        let race = |kind: &FaultKind| {
            matches!(
                kind,
                FaultKind::Race {
                    space: Space::Shared,
                    ..
                }
            )
        };
        assert!(
            found.iter().any(|(_, kind)| race(kind)),
            "{order:?}: {found:?}"
        );
    }
    // Ascending, the readers come after some writers only.
    let found = faults(sum(&module, Order::Ascending, 8));
    let (line, kind) = &found[0];
    assert_eq!(*line, line_of("block_sum", "ld.shared.f32"));
    assert!(matches!(
        kind,
        FaultKind::Uninitialised { .. }
            | FaultKind::Race {
                earlier: AccessKind::Write,
                later: AccessKind::Read,
                ..
            }
    ));
}

#[test]
fn a_store_past_the_end_stops_the_launch() {
    let Err(LaunchError::Faults(found)) = sum(&kernels(), Order::Ascending, 4) else {
        panic!("the second block has no room");
    };
    assert!(found.stopped);
    let [fault] = found.list.as_slice() else {
        panic!("one fault, not {found}");
    };
    assert_eq!((fault.block, fault.thread), ([1, 0, 0], [0, 0, 0]));
    assert_eq!(fault.line, line_of("block_sum", "st.global.f32"));
    assert!(
        fault.to_string().contains("byte 4 of `out`, which has 4"),
        "{fault}"
    );
}

#[test]
fn shared_memory_that_nobody_wrote() {
    let module = spoilt("block_sum", "st.shared.f32 \t[%r38], %f4;", "");
    let found = faults(sum(&module, Order::Ascending, 8));
    assert!(found.iter().any(|(_, kind)| matches!(
        kind,
        FaultKind::Uninitialised { space: Space::Shared, name, offset: 0 } if name.contains("partial")
    )), "{found:?}");
}

#[test]
fn a_plain_sum_between_blocks_is_a_race() {
    let run = |module: &Module| {
        let mut memory = Memory::new();
        let input = memory.zeroed(600, "in");
        let out = memory.zeroed(1024, "out");
        let params = [Param::Ptr(input), Param::Ptr(out), Param::U32(600)];
        let shape = Launch {
            grid: [2, 1, 1],
            block: [256, 1, 1],
            dynamic_shared: 0,
            params: &params,
        };
        launch(module, &mut memory, "histogram", &shape)
    };
    assert!(run(&kernels()).is_ok());
    let plain = "ld.global.u32 %r19, [%rd8]; add.u32 %r18, %r18, %r19; st.global.u32 [%rd8], %r18;";
    let module = spoilt(
        "histogram",
        "atom.global.add.u32 \t%r19, [%rd8], %r18;",
        plain,
    );
    let found = faults(run(&module));
    assert!(
        found.iter().any(|(_, kind)| matches!(
            kind,
            FaultKind::Race { space: Space::Global, name, other_block: 0, .. } if name == "out"
        )),
        "{found:?}"
    );
    // Within a block: counts in shared memory.
    let plain = "ld.shared.u32 %r17, [%r16]; add.u32 %r17, %r17, 1; st.shared.u32 [%r16], %r17;";
    let module = spoilt("histogram", "atom.shared.add.u32 \t%r17, [%r16], 1;", plain);
    let found = faults(run(&module));
    assert!(found.iter().any(|(_, kind)| matches!(
        kind,
        FaultKind::Race {
            space: Space::Shared,
            ..
        }
    )));
}

#[test]
fn a_signal_without_its_fence_is_a_race() {
    let module = spoilt("last_block", "membar.gl;", "");
    let mut memory = Memory::new();
    let input = memory.zeroed(4 * 96, "in");
    let parts = memory.alloc(4 * 3, "parts");
    let come = memory.zeroed(4, "come");
    let out = memory.alloc(4, "out");
    let params = [input, parts, come, out].map(Param::Ptr);
    let shape = Launch {
        grid: [3, 1, 1],
        block: [32, 1, 1],
        dynamic_shared: 0,
        params: &params,
    };
    let found = faults(launch(&module, &mut memory, "last_block", &shape));
    assert!(
        found
            .iter()
            .any(|(_, kind)| matches!(kind, FaultKind::Race { name, .. } if name == "parts"))
    );
}

#[test]
fn freed_misaligned_and_unwritten_memory() {
    let body = "ld.global.u32 %r1, [%rd7+4]; st.global.u32 [%rd7], %r1;";
    assert!(run_body(body, 1, 0, 8).is_ok());
    let odd = body.replace("+4", "+2");
    assert!(matches!(
        faults(run_body(&odd, 1, 0, 8).map(|(_, stats)| stats))[..],
        [(_, FaultKind::Misaligned { bytes: 4, .. })]
    ));
    let wide = "ld.global.v2.u32 {%r1, %r2}, [%rd7+4];";
    assert!(matches!(
        faults(run_body(wide, 1, 0, 16).map(|(_, stats)| stats))[..],
        [(_, FaultKind::Misaligned { bytes: 8, .. })]
    ));
    let module = crate::module_of(body);
    let mut memory = Memory::new();
    let run = |memory: &mut Memory, at| {
        let shape = Launch {
            grid: [1, 1, 1],
            block: [1, 1, 1],
            dynamic_shared: 0,
            params: &[Param::Ptr(at)],
        };
        launch(&module, memory, "k", &shape)
    };
    let fresh = memory.alloc(8, "fresh");
    let found = faults(run(&mut memory, fresh));
    assert!(matches!(
        &found[..],
        [(_, FaultKind::Uninitialised { space: Space::Global, name, offset: 4 })] if name == "fresh"
    ));
    memory.write(fresh, &[0; 8]).expect("inside");
    assert!(run(&mut memory, fresh).is_ok());
    memory.free(fresh).expect("live");
    let found = faults(run(&mut memory, fresh));
    assert!(matches!(&found[..], [(_, FaultKind::UseAfterFree { name, .. })] if name == "fresh"));
}

pub(crate) fn only(body: &str, threads: u32) -> FaultKind {
    let result = run_body(body, threads, 256, 4096).map(|(_, stats)| stats);
    let mut found = faults(result);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0).1
}

#[test]
fn barriers_that_not_all_reach() {
    let exits = "mov.u32 %r1, %tid.x; setp.gt.u32 %p1, %r1, 40; @%p1 ret; bar.sync 0;";
    assert!(
        matches!(only(exits, 64), FaultKind::DivergentBarrier { what } if what.contains("23 threads"))
    );
    let apart = "
        mov.u32 %r1, %tid.x;
        setp.gt.u32 %p1, %r1, 7;
        @%p1 bra OTHER;
        bar.sync 0;
        ret;
    OTHER:
        bar.sync 0;";
    assert!(
        matches!(only(apart, 32), FaultKind::DivergentBarrier { what } if what.contains("other lanes"))
    );
    let waits = "
        mov.u32 %r1, %tid.x;
        setp.gt.u32 %p1, %r1, 31;
        @%p1 bar.sync 1;
        @!%p1 bar.sync 2;
        bar.sync 3, 64;";
    let sound = run_body("bar.sync 3, 64;", 64, 0, 8);
    assert!(sound.is_ok());
    assert!(matches!(
        only(waits, 64),
        FaultKind::DivergentBarrier { .. }
    ));
}

#[test]
fn warps_that_do_not_agree() {
    let missing = "
        mov.u32 %r1, %tid.x;
        mov.b32 %r2, -1;
        shfl.sync.down.b32 %r3, %r1, 16, 31, %r2;";
    assert!(run_body(missing, 32, 0, 8).is_ok());
    assert_eq!(only(missing, 24), FaultKind::ShuffleSource { lane: 24 });
    let outside = missing.replace("-1", "0xFF");
    assert_eq!(
        only(&outside, 32),
        FaultKind::NotInMask {
            lane: 8,
            mask: 0xFF
        }
    );
    let apart = "
        mov.u32 %r1, %tid.x;
        mov.b32 %r2, -1;
        setp.lt.u32 %p1, %r1, 4;
        @%p1 bra FEW;
        shfl.sync.down.b32 %r3, %r1, 16, 31, %r2;
        ret;
    FEW:
        bar.warp.sync -1;";
    assert!(matches!(only(apart, 32), FaultKind::Deadlock { what } if what.contains("2 places")));
}

#[test]
fn threads_that_never_end_and_traps() {
    let module = crate::module_of("LOOP: bra LOOP;");
    let mut memory = Memory::new();
    let out = memory.zeroed(8, "out");
    let shape = Launch {
        grid: [1, 1, 1],
        block: [1, 1, 1],
        dynamic_shared: 0,
        params: &[Param::Ptr(out)],
    };
    let options = Options {
        max_instructions: 100_000,
        ..Options::default()
    };
    let found = faults(launch_with(&module, &mut memory, "k", &shape, &options));
    assert!(matches!(
        found[..],
        [(14, FaultKind::InstructionLimit { limit: 100_000 })]
    ));
    assert!(matches!(only("trap;", 1), FaultKind::Trap { .. }));
    assert!(matches!(
        only("mov.u32 %r1, dynamic; ld.shared.u32 %r2, [%r1+256];", 1),
        FaultKind::OutOfBounds {
            space: Space::Shared,
            address: 256,
            ..
        }
    ));
}

/// Bytes side by side are no race, and no byte counts as written because its neighbour was.
#[test]
fn bytes_are_told_apart() {
    let write = "mov.u32 %r1, %tid.x; mov.u32 %r2, dynamic; add.u32 %r3, %r2, %r1; st.shared.u8 [%r3], %r1;";
    assert!(run_body(write, 32, 64, 8).is_ok());
    let read = format!("{write} ld.shared.u8 %r4, [%r3+32];");
    assert!(matches!(
        only(&read, 32),
        FaultKind::Uninitialised { offset: 32, .. }
    ));
}
