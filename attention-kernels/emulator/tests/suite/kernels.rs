//! The kernels of the fixture against Rust.

use ptx_emulator::{Launch, Memory, Module, Options, Order, Param, ParamType, launch, launch_with};

use crate::{Dice, bytes_of, kernels, read_f32, read_u32};

fn shape<'a>(
    grid: [u32; 3],
    block: [u32; 3],
    shared: usize,
    params: &'a [Param<'a>],
) -> Launch<'a> {
    Launch {
        grid,
        block,
        dynamic_shared: shared,
        params,
    }
}

#[test]
fn entries_of_the_fixture() {
    let module = kernels();
    assert_eq!((module.version(), module.target()), ("9.0", "sm_80"));
    assert!(module.entries().all(|entry| entry.unsupported().is_none()));
    let sum = module.entry("block_sum").expect("in the fixture");
    assert_eq!(
        sum.params(),
        [ParamType::U64, ParamType::U64, ParamType::U32]
    );
    assert_eq!(sum.static_shared(), 32);
    let mixed = module.entry("mixed").expect("in the fixture");
    assert_eq!(mixed.params(), [ParamType::Bytes(32), ParamType::U32]);
    assert!(mixed.registers() > 20 && mixed.instructions() > 50);
    let weights = bytes_of(&[1.0, 0.5, 0.25, 0.125]);
    assert_eq!(module.data("weights"), Some(weights.as_slice()));
    assert_eq!(module.data("launches"), Some(&[3, 0, 0, 0][..]));
    assert_eq!(module.data("block_sum"), None);
}

#[test]
fn a_sum_with_barriers_and_shuffles() {
    let mut dice = Dice::new();
    for n in [1, 31, 256, 1000, 4096] {
        let numbers: Vec<f32> = (0..n).map(|_| dice.float()).collect();
        let mut memory = Memory::new();
        let input = memory.with(&bytes_of(&numbers), "in");
        let out = memory.alloc(4 * 3, "out");
        let count = u32::try_from(n).expect("small");
        let params = [Param::Ptr(input), Param::Ptr(out), Param::U32(count)];
        let stats = launch(
            &kernels(),
            &mut memory,
            "block_sum",
            &shape([3, 1, 1], [256, 1, 1], 0, &params),
        );
        let stats = stats.expect("no fault");
        assert_eq!(stats.barriers, 3);
        assert_eq!(stats.global_bytes_read, 4 * u64::from(count));
        assert_eq!(stats.global_bytes_written, 12);
        // Every partial sum is a multiple of 1/256 below 2^12: exact in whatever order.
        let total: f32 = read_f32(&mut memory, out, 3).iter().sum();
        assert_eq!(total, numbers.iter().sum::<f32>());
    }
}

#[test]
fn a_histogram_with_atomics() {
    let mut dice = Dice::new();
    let n = 5000 + dice.below(3000);
    let values: Vec<u8> = (0..n).map(|_| dice.word().to_le_bytes()[0]).collect();
    let mut memory = Memory::new();
    let input = memory.with(&values, "in");
    let out = memory.zeroed(4 * 256, "out");
    let params = [Param::Ptr(input), Param::Ptr(out), Param::U32(n)];
    for seed in [0, 1] {
        let options = Options {
            order: if seed == 0 {
                Order::Descending
            } else {
                Order::Shuffled(dice.bits())
            },
            ..Options::default()
        };
        let shape = shape([5, 1, 1], [256, 1, 1], 0, &params);
        launch_with(&kernels(), &mut memory, "histogram", &shape, &options).expect("no fault");
    }
    let mut counts = [0; 256];
    values
        .iter()
        .for_each(|value| counts[usize::from(*value)] += 2);
    assert_eq!(read_u32(&mut memory, out, 256), counts);
}

#[test]
fn a_transpose_through_shared_memory() {
    let mut dice = Dice::new();
    let (width, height) = (33 + dice.below(50), 1 + dice.below(70));
    let numbers: Vec<f32> = (0..width * height).map(|_| dice.float()).collect();
    let mut memory = Memory::new();
    let input = memory.with(&bytes_of(&numbers), "in");
    let out = memory.alloc(4 * numbers.len(), "out");
    let params = [
        Param::Ptr(input),
        Param::Ptr(out),
        Param::U32(width),
        Param::U32(height),
    ];
    let grid = [width.div_ceil(32), height.div_ceil(32), 1];
    let shape = shape(grid, [32, 8, 1], 4 * 32 * 33, &params);
    launch(&kernels(), &mut memory, "transpose", &shape).expect("no fault");
    let turned = read_f32(&mut memory, out, numbers.len());
    for (at, number) in turned.iter().enumerate() {
        let (x, y) = (at / height as usize, at % height as usize);
        assert_eq!(
            *number,
            numbers[y * width as usize + x],
            "row {x}, column {y}"
        );
    }
}

/// The last block reads what the others wrote: fences and an atomic order them.
#[test]
fn the_last_block_may_read_what_the_others_left() {
    for order in [Order::Ascending, Order::Descending, Order::Shuffled(7)] {
        let mut memory = Memory::new();
        let numbers: Vec<f32> = (0_u8..192).map(f32::from).collect();
        let input = memory.with(&bytes_of(&numbers), "in");
        let parts = memory.alloc(4 * 6, "parts");
        let come = memory.zeroed(4, "come");
        let out = memory.alloc(4, "out");
        let params = [input, parts, come, out].map(Param::Ptr);
        let options = Options {
            order,
            ..Options::default()
        };
        let shape = shape([6, 1, 1], [32, 1, 1], 0, &params);
        let done = launch_with(&kernels(), &mut memory, "last_block", &shape, &options);
        done.expect("no fault");
        assert_eq!(read_f32(&mut memory, out, 1), [numbers.iter().sum()]);
    }
}

/// A struct by value, a call, constant memory, local memory, and a variable that stays from launch to launch.
#[test]
fn a_bit_of_everything() {
    let module = kernels();
    let weights = [1.0_f32, 0.5, 0.25, 0.125];
    let numbers: Vec<f32> = (0_u8..40).map(|at| f32::from(at) / 32.0).collect();
    let mut memory = Memory::new();
    let input = memory.with(&bytes_of(&numbers), "in");
    let out = memory.alloc(4 * 40, "out");
    let shifts = [3_usize, 1, 7];
    let mut line = Vec::new();
    line.extend(input.get().to_le_bytes());
    line.extend(out.get().to_le_bytes());
    line.extend(1.5_f32.to_le_bytes());
    line.extend([3_u32, 1, 7].iter().flat_map(|shift| shift.to_le_bytes()));
    let params = [Param::Bytes(&line), Param::S32(40)];
    for _ in 0..2 {
        let shape = shape([1, 1, 1], [64, 1, 1], 0, &params);
        launch(&module, &mut memory, "mixed", &shape).expect("no fault");
    }
    let results = read_f32(&mut memory, out, 40);
    for (at, result) in results.iter().enumerate() {
        let mut local = [0_usize; 8];
        let mut known = [false; 8];
        for i in 0..8 {
            local[(i + shifts[i % 3]) & 7] = i * at;
            known[(i + shifts[i % 3]) & 7] = true;
        }
        let mut sum = 0.0_f32;
        for step in 0..at % 7 {
            sum = sum.mul_add(numbers[at], weights[step & 3]);
        }
        if known[at & 7] {
            let place = f32::from(u16::try_from(local[at & 7]).expect("small"));
            assert_eq!(*result, sum.mul_add(1.5, place), "thread {at}");
        }
    }
    let launches = memory.variable(&module, "launches").expect("a variable");
    assert_eq!(read_u32(&mut memory, launches, 1), [7]);
    let other: Module = kernels();
    let launches = memory.variable(&other, "launches").expect("a variable");
    assert_eq!(read_u32(&mut memory, launches, 1), [3]);
}
