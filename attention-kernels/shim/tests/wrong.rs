//! Every planted fault is found in every order, and the same kernel without its fault is clean.

mod support;

use cuda_host_shim::{Address, Cell, LaunchError, Order, Shim};
use support::{available, upload};

/// Kernels of `kernels/wrong.cu`, and what a finding of each must contain.
const FAULTS: &[(&str, &str)] = &[
    ("fault_dropped_barrier", "of shared array `numbers`"),
    ("fault_dropped_second_barrier", "of shared array `numbers`"),
    (
        "fault_shared_write_write",
        "race: write of shared array `numbers` and a write by another thread of the block",
    ),
    ("fault_dropped_syncwarp", "of shared array `numbers`"),
    ("fault_syncwarp_of_halves", "of shared array `numbers`"),
    ("fault_shuffle_for_barrier", "of shared array `numbers`"),
    (
        "fault_shared_uninitialised",
        "read of shared array `numbers`, which nobody has written",
    ),
    (
        "fault_shared_of_earlier_block",
        "read of shared array `numbers`, which nobody has written",
    ),
    (
        "fault_dynamic_out_of_bounds",
        "shared write outside every array of the block",
    ),
    (
        "fault_static_out_of_bounds",
        "shared write outside every array of the block",
    ),
    (
        "fault_index_of_static",
        "index beyond 'int [64]' at wrong.cu:",
    ),
    (
        "fault_index_of_local",
        "index beyond 'int [4]' at wrong.cu:",
    ),
    ("fault_global_past_end", "write outside every buffer"),
    ("fault_global_before_begin", "write outside every buffer"),
    ("fault_null", "read outside every buffer"),
    (
        "fault_plain_add_between_blocks",
        "of buffer `out` and a write by another block",
    ),
    (
        "fault_plain_add_between_threads",
        "of buffer `out` and a write by another thread of the block",
    ),
    ("fault_atomic_and_plain", "of buffer `out` and a"),
    ("fault_read_of_other_block", "of buffer `out` and a"),
    (
        "fault_overwrite_between_blocks",
        "race: write of buffer `out` and a write by another block",
    ),
    (
        "fault_divergent_barrier",
        "threads of one block wait at different barriers",
    ),
    (
        "fault_barrier_after_exit",
        "was not reached by all threads of the block",
    ),
    ("fault_mask_without_self", "leaves out the lane that calls"),
    (
        "fault_shuffle_outside_mask",
        "which is not in mask 0000ffff",
    ),
    (
        "fault_shuffle_from_exited",
        "reads lane 31, which is not in mask ffffffff or left the kernel",
    ),
    (
        "fault_different_collectives",
        "meet in different collectives",
    ),
    (
        "fault_same_shuffle_in_two_places",
        "meet in different collectives",
    ),
    ("fault_width", "a width of 12"),
    ("fault_deadlock", "deadlock: warp"),
    ("fault_misaligned", "misaligned access to"),
    (
        "fault_local_of_other_thread",
        "read of a local variable of another thread",
    ),
    (
        "fault_too_much_shared",
        "no room for 64000 bytes of shared array `numbers`",
    ),
];

const ORDERS: [Order; 5] = [
    Order::Ascending,
    Order::Descending,
    Order::Random(0),
    Order::Random(1),
    Order::Random(2),
];

/// What two blocks of 64 threads find.
fn run(shim: &mut Shim, entry: &str, wrong: i32) -> Result<(), LaunchError> {
    let out = upload(shim, &[0_i32; 256], "out");
    let numbers: Vec<i32> = (0..256).collect();
    let input = upload(shim, &numbers, "in");
    let args = [out.cell(), input.cell(), wrong.cell()];
    let result = shim.launch(entry, [2, 1, 1], [64, 1, 1], 256, &args);
    shim.free(out);
    shim.free(input);
    result
}

#[test]
fn planted_faults_are_found_and_nothing_else_is() {
    if !available() {
        return;
    }
    let mut shim = Shim::lock();
    for order in ORDERS {
        shim.set_order(order);
        for &(entry, expected) in FAULTS {
            assert_eq!(run(&mut shim, entry, 0), Ok(()), "{entry}, {order:?}");
            let Err(LaunchError::Findings(findings)) = run(&mut shim, entry, 1) else {
                panic!("{entry}, {order:?}: nothing was found");
            };
            let kernel = format!("kernel `{entry}`, block (");
            assert!(
                findings.iter().any(|finding| finding.contains(expected)),
                "{entry}, {order:?}: {findings:#?}"
            );
            assert!(
                findings.iter().all(|finding| finding.contains(&kernel)),
                "{findings:#?}"
            );
        }
    }
}

/// Every kernel of `kernels/wrong.cu` is in the list above.
#[test]
fn no_fault_is_forgotten() {
    if !available() {
        return;
    }
    let listed: Vec<_> = FAULTS.iter().map(|&(entry, _)| entry).collect();
    let entries = Shim::lock().entries();
    let faults: Vec<_> = entries
        .iter()
        .filter(|entry| entry.starts_with("fault_"))
        .collect();
    assert_eq!(faults.len(), listed.len());
    assert!(faults.iter().all(|fault| listed.contains(&fault.as_str())));
}

/// A race names the line of the access, where there is debug information to tell it.
#[test]
fn findings_name_source_lines() {
    if !available() {
        return;
    }
    let source = include_str!("kernels/wrong.cu");
    let line = |text: &str| {
        let index = source.lines().position(|line| line.contains(text));
        index.expect("the source has this line") + 1
    };
    let mut shim = Shim::lock();
    let Err(LaunchError::Findings(findings)) = run(&mut shim, "fault_null", 1) else {
        panic!("nothing was found");
    };
    let place = format!("(wrong.cu:{})", line("out[place()] = from[place()];"));
    assert_eq!(findings.len(), 1, "{findings:#?}");
    if findings[0].ends_with(')') && findings[0].contains(".cu:") {
        assert!(findings[0].ends_with(&place), "{findings:#?}");
    } else {
        eprintln!("skipped: no debug information, or no addr2line");
    }

    let Err(LaunchError::Findings(findings)) = run(&mut shim, "fault_barrier_after_exit", 1) else {
        panic!("nothing was found");
    };
    let barrier = line("if (wrong && threadIdx.x == 7) return;") + 1;
    assert!(
        findings[0].contains(&format!(
            "the barrier of wrong.cu:{barrier} was not reached"
        )),
        "{findings:#?}"
    );
}

#[test]
fn memory_that_nobody_wrote_and_freed_memory_are_found() {
    if !available() {
        return;
    }
    let mut shim = Shim::lock();
    let scale = |shim: &mut Shim, numbers: Address| {
        let args = [numbers.cell(), 2.0_f32.cell(), 32_i32.cell()];
        match shim.launch("shim_scale", [1, 1, 1], [32, 1, 1], 0, &args) {
            Err(LaunchError::Findings(findings)) => findings.concat(),
            other => panic!("{other:?}"),
        }
    };
    // All numbers but one.
    let numbers = shim.alloc(4 * 32, "numbers");
    shim.write(numbers, 0, &[0; 4 * 17]);
    shim.write(numbers, 4 * 18, &[0; 4 * 14]);
    let found = scale(&mut shim, numbers);
    let expected =
        "thread (17, 0, 0), byte 68 of 128: read of buffer `numbers`, which nobody has written";
    assert!(found.contains(expected), "{found}");

    shim.free(numbers);
    let found = scale(&mut shim, numbers);
    assert!(found.contains("read outside every buffer"), "{found}");
}

#[test]
fn impossible_launches_are_refused() {
    if !available() {
        return;
    }
    let mut shim = Shim::lock();
    let launch = |shim: &mut Shim, entry, grid, block, dynamic, args: &[u64]| {
        shim.launch(entry, grid, block, dynamic, args)
    };
    let one = [1, 1, 1];
    let error = launch(&mut shim, "nothing", one, one, 0, &[]).expect_err("no such entry");
    assert!(
        matches!(&error, LaunchError::UnknownEntry { entry, known } if entry == "nothing" && known.contains(&"shim_scale".into())),
        "{error}"
    );
    let error = launch(&mut shim, "shim_scale", one, one, 0, &[0; 2]);
    let expected = LaunchError::ArgumentCount {
        entry: "shim_scale".into(),
        expected: 3,
        got: 2,
    };
    assert_eq!(error, Err(expected));
    for block in [[0, 1, 1], [1025, 1, 1], [32, 64, 1], [1, 1, 65]] {
        let error = launch(&mut shim, "shim_scale", one, block, 0, &[0; 3]);
        assert!(
            matches!(&error, Err(LaunchError::ShapeOutOfRange { what: "block", shape, .. }) if *shape == block),
            "{error:?}"
        );
    }
    for grid in [
        [1, 0, 1],
        [1, 65536, 1],
        [u32::MAX, 65535, 65535],
        [1 << 24, 2, 1],
    ] {
        let error = launch(&mut shim, "shim_scale", grid, one, 0, &[0; 3]);
        assert!(
            matches!(&error, Err(LaunchError::ShapeOutOfRange { what: "grid", shape, .. }) if *shape == grid),
            "{error:?}"
        );
    }
    let error = launch(&mut shim, "shim_scale", one, one, 227 * 1024 + 1, &[0; 3]);
    let expected = LaunchError::SharedMemory {
        bytes: 227 * 1024 + 1,
        limit: 227 * 1024,
    };
    assert_eq!(error, Err(expected));
}

#[test]
fn a_read_beyond_a_buffer_panics() {
    if !available() {
        return;
    }
    let read = || {
        let mut shim = Shim::lock();
        let buffer = shim.zeroed(8, "buffer");
        shim.read(buffer, 4, &mut [0; 5]);
    };
    let panic = std::panic::catch_unwind(read).expect_err("5 bytes of 4");
    let message = panic.downcast_ref::<String>().expect("a formatted message");
    assert_eq!(message, "5 bytes from byte 4 on, the buffer has 8");
}
