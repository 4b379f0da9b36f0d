//! What orders accesses, and what does not.

use ptx_emulator::{
    AccessKind, FaultKind, Launch, LaunchError, Memory, Options, Param, launch_with,
};

use crate::faults::only;
use crate::run_body;

/// Two lanes pass a word through shared memory.
#[test]
fn what_orders_lanes_of_a_warp() {
    let pass = |order: &str| {
        format!(
            "mov.u32 %r1, %tid.x;
             mov.b32 %r2, -1;
             shl.b32 %r3, %r1, 2;
             mov.u32 %r4, dynamic;
             add.u32 %r3, %r3, %r4;
             st.shared.u32 [%r3], %r1;
             {order}
             xor.b32 %r3, %r3, 4;
             ld.shared.u32 %r5, [%r3];"
        )
    };
    assert!(run_body(&pass("bar.warp.sync -1;"), 32, 256, 8).is_ok());
    let shuffle = pass("shfl.sync.bfly.b32 %r6, %r1, 1, 31, %r2;");
    assert!(run_body(&shuffle, 32, 256, 8).is_ok());
    assert!(matches!(
        only(&pass(""), 32),
        FaultKind::Race {
            earlier: AccessKind::Write,
            later: AccessKind::Read,
            ..
        }
    ));
    // Pairs of lanes are enough; other pairs are not.
    let some = |pairs: u32| {
        pass(&format!(
            "and.b32 %r6, %r1, {}; shl.b32 %r6, {pairs}, %r6; bar.warp.sync %r6;",
            30
        ))
    };
    assert!(run_body(&some(3), 32, 256, 8).is_ok());
    let self_only = pass("mov.u32 %r6, 1; shl.b32 %r6, %r6, %r1; bar.warp.sync %r6;");
    assert!(matches!(only(&self_only, 32), FaultKind::Race { .. }));
    // Lanes of different warps are not ordered by it.
    let across = pass("bar.warp.sync -1; xor.b32 %r3, %r3, 128;");
    assert!(run_body(&across, 64, 256, 8).is_err());
    assert!(
        run_body(
            &across.replace("bar.warp.sync -1;", "bar.sync 0;"),
            64,
            256,
            8
        )
        .is_ok()
    );
    // The option takes the order of shuffles away.
    let module = crate::module_of(&shuffle);
    let mut memory = Memory::new();
    let out = memory.zeroed(8, "out");
    let shape = Launch {
        grid: [1, 1, 1],
        block: [32, 1, 1],
        dynamic_shared: 256,
        params: &[Param::Ptr(out)],
    };
    let strict = Options {
        collectives_order_memory: false,
        ..Options::default()
    };
    assert!(launch_with(&module, &mut memory, "k", &shape, &strict).is_err());
}

#[test]
fn races_of_every_kind() {
    let race = |first: &str, second: &str| {
        let body = format!(
            "mov.u32 %r1, %tid.x;
             mov.u32 %r2, dynamic;
             setp.eq.u32 %p1, %r1, 0;
             @%p1 st.shared.u32 [%r2], %r1;
             bar.sync 0;
             @%p1 bra FIRST;
             {second} ret;
         FIRST:
             {first}"
        );
        match run_body(&body, 2, 16, 8) {
            Ok(_) => None,
            Err(LaunchError::Faults(mut found)) => match found.list.remove(0).kind {
                FaultKind::Race { earlier, later, .. } => Some((earlier, later)),
                other => panic!("{other}"),
            },
            Err(other) => panic!("{other}"),
        }
    };
    let (read, write, add) = (
        "ld.shared.u32 %r3, [%r2];",
        "st.shared.u32 [%r2], %r1;",
        "atom.shared.add.u32 %r3, [%r2], 1;",
    );
    let volatile = "ld.volatile.shared.u32 %r3, [%r2];";
    // The lanes that jump come second.
    assert_eq!(race(read, read), None);
    assert_eq!(race(add, add), None);
    assert_eq!(race(volatile, add), None);
    assert_eq!(race(volatile, read), None);
    use AccessKind::{Read, StrongRead, StrongWrite, Write};
    assert_eq!(race(write, write), Some((Write, Write)));
    assert_eq!(race(read, write), Some((Write, Read)));
    assert_eq!(race(write, read), Some((Read, Write)));
    assert_eq!(race(add, read), Some((Read, StrongWrite)));
    assert_eq!(race(read, add), Some((StrongWrite, Read)));
    assert_eq!(race(add, write), Some((Write, StrongWrite)));
    assert_eq!(race(write, add), Some((StrongWrite, Write)));
    assert_eq!(race(write, volatile), Some((StrongRead, Write)));
}
