//! Kernels without faults: what they compute, in every order, with nothing found.

mod support;

use cuda_host_shim::{Cell, Order, Shim};
use half::{bf16, f16};
use rand::Rng;
use support::{Number, SeededRng, available, download, upload};

/// Runs `test` under each order.
fn in_all_orders(mut test: impl FnMut(&mut Shim)) {
    if !available() {
        return;
    }
    let mut shim = Shim::lock();
    for order in [
        Order::Ascending,
        Order::Descending,
        Order::Random(3),
        Order::Random(4),
    ] {
        shim.set_order(order);
        test(&mut shim);
    }
}

fn launch(
    shim: &mut Shim,
    entry: &str,
    grid: [u32; 3],
    block: [u32; 3],
    shared: usize,
    args: &[u64],
) {
    if let Err(error) = shim.launch(entry, grid, block, shared, args) {
        panic!("{entry}: {error}");
    }
}

/// Launches with one output buffer of `count` zeros as the first argument, and reads it.
fn output_of<T: Number>(
    shim: &mut Shim,
    entry: &str,
    (grid, block): ([u32; 3], [u32; 3]),
    count: usize,
    args: &[u64],
) -> Vec<T> {
    let out = shim.alloc(count * size_of::<T>(), "out");
    let args: Vec<u64> = std::iter::once(out.cell())
        .chain(args.iter().copied())
        .collect();
    launch(shim, entry, grid, block, 0, &args);
    let numbers = download(shim, out, count);
    shim.free(out);
    numbers
}

#[test]
fn threads_know_their_place() {
    in_all_orders(|shim| {
        let (grid, block) = ([2, 3, 4], [5, 2, 3]);
        let count = (24 * 30 * 6) as usize;
        let got: Vec<u32> = output_of(shim, "shim_places", (grid, block), count, &[]);
        let mut expected = Vec::new();
        let places = |[x, y, z]: [u32; 3]| {
            (0..z).flat_map(move |c| (0..y).flat_map(move |b| (0..x).map(move |a| [a, b, c])))
        };
        for in_grid in places(grid) {
            for in_block in places(block) {
                expected.extend(in_grid);
                expected.extend(in_block);
            }
        }
        assert_eq!(got, expected);
    });
}

#[test]
fn rows_are_centred() {
    let mut seeded = SeededRng::new();
    in_all_orders(|shim| {
        for width in [1_usize, 31, 128, 300] {
            let rows: Vec<f32> = (0..3 * width)
                .map(|_| seeded.rng.random_range(-1.0..1.0))
                .collect();
            let input = upload(shim, &rows, "rows");
            let out = shim.alloc(4 * rows.len(), "out");
            let args = [
                input.cell(),
                out.cell(),
                i32::try_from(width).expect("small").cell(),
            ];
            launch(shim, "shim_centre", [3, 1, 1], [128, 1, 1], 0, &args);
            let got: Vec<f32> = download(shim, out, rows.len());
            for (row, got) in rows.chunks(width).zip(got.chunks(width)) {
                let sum: f64 = row.iter().map(|&x| f64::from(x)).sum();
                let mean = sum / f64::from(i32::try_from(width).expect("small"));
                for (&x, &got) in row.iter().zip(got) {
                    let off = (f64::from(x) - mean - f64::from(got)).abs();
                    assert!(off < 1e-6, "{width}: {x} became {got}, mean {mean}");
                }
            }
        }
    });
}

#[test]
fn dynamic_shared_memory_and_vectors() {
    in_all_orders(|shim| {
        for threads in [1_u16, 32, 100, 1024] {
            let numbers: Vec<f32> = (0..4 * threads).map(f32::from).collect();
            let input = upload(shim, &numbers, "in");
            let out = shim.alloc(4 * numbers.len(), "out");
            let block = [u32::from(threads), 1, 1];
            let args = [input.cell(), out.cell()];
            launch(
                shim,
                "shim_reverse",
                [1, 1, 1],
                block,
                16 * usize::from(threads),
                &args,
            );
            let mut got: Vec<f32> = download(shim, out, numbers.len());
            got.reverse();
            assert_eq!(got, numbers);
        }
    });
}

/// What CUDA's guide says of the shuffles, lane by lane.
fn expected_collectives(lane: i32, argument: i32, width: i32) -> [u64; 10] {
    let begin = lane / width * width;
    let inside = |source: i32| {
        if (begin..begin + width).contains(&source) {
            source
        } else {
            lane
        }
    };
    let any = begin + argument % width;
    // An XOR may reach into earlier segments, not into later ones.
    let xor = if lane ^ argument < begin + width {
        lane ^ argument
    } else {
        lane
    };
    let sources = [any, xor, inside(lane - argument), inside(lane + argument)];
    let [any64, xor64, up64, down64] = sources.map(|lane| u64::try_from(lane).expect("a lane"));
    let ballot = (0..32)
        .filter(|lane| lane % 3 == 0)
        .fold(0, |all, lane| all | 1 << lane);
    let halves = if lane < 16 { 0x0000_aaaa } else { 0xaaaa_0000 };
    let wide = (any64 + 1) << 32;
    [any64, xor64, up64, down64, wide, ballot, 1, 1, 0, halves]
}

#[test]
fn shuffles_and_votes() {
    in_all_orders(|shim| {
        for (argument, width) in [
            (0, 32),
            (1, 32),
            (16, 32),
            (31, 32),
            (5, 8),
            (3, 4),
            (1, 1),
            (8, 8),
            (12, 16),
        ] {
            let args = [argument.cell(), width.cell()];
            let shape = ([1, 1, 1], [32, 1, 1]);
            let got: Vec<u64> = output_of(shim, "shim_collectives", shape, 320, &args);
            for (lane, got) in (0..32).zip(got.chunks(10)) {
                let expected = expected_collectives(lane, argument, width);
                assert_eq!(
                    got, expected,
                    "lane {lane}, argument {argument}, width {width}"
                );
            }
        }
    });
}

#[test]
fn histogram() {
    let mut seeded = SeededRng::new();
    in_all_orders(|shim| {
        let bytes: Vec<u8> = (0..5000)
            .map(|_| seeded.rng.random::<u8>() & 0x3f)
            .collect();
        let input = upload(shim, &bytes, "bytes");
        let bins = shim.zeroed(4 * 256, "bins");
        launch(
            shim,
            "shim_histogram",
            [3, 1, 1],
            [96, 1, 1],
            0,
            &[input.cell(), bins.cell(), 5000_i32.cell()],
        );
        let mut expected = vec![0_u32; 256];
        for &byte in &bytes {
            expected[usize::from(byte)] += 1;
        }
        assert_eq!(download::<u32>(shim, bins, 256), expected);
    });
}

#[test]
fn atomics() {
    in_all_orders(|shim| {
        // Threads 0 to 99: 4 blocks of 25.
        let u = upload(shim, &[0_u32, 0, 1000, 0, u32::MAX, 7, 0, 0], "u");
        let s = upload(shim, &[0_i32, -1000, 0], "s");
        let w = upload(shim, &[5_u64, 0], "w");
        let f = upload(shim, &[1.0_f32], "f");
        let args = [u, s, w, f].map(Cell::cell);
        launch(shim, "shim_atomics", [4, 1, 1], [25, 1, 1], 0, &args);
        let sum = 99 * 100 / 2;
        let largest = 49.5_f32.to_bits();
        assert_eq!(
            download::<u32>(shim, u, 8),
            [sum, 99, 0, u32::MAX, 0, 77, 7, largest]
        );
        assert_eq!(download::<i32>(shim, s, 3), [-99 * 100 / 2, 0, -99]);
        assert_eq!(download::<u64>(shim, w, 2), [5 + (100 << 32), 99 << 32]);
        assert_eq!(download::<f32>(shim, f, 1), [51.0]);
    });
}

#[test]
fn syncwarp_orders_the_lanes_of_a_warp() {
    in_all_orders(|shim| {
        let shape = ([1, 1, 1], [64, 1, 1]);
        let got: Vec<i32> = output_of(shim, "shim_rotate", shape, 64, &[7_i32.cell()]);
        let expected: Vec<i32> = (0..64).map(|at| at / 32 * 32 + (at + 7) % 32).collect();
        assert_eq!(got, expected);
    });
}

#[test]
fn lanes_that_left_are_not_waited_for() {
    in_all_orders(|shim| {
        for threads in [20, 25, 32] {
            let got: Vec<u32> =
                output_of(shim, "shim_leave", ([1, 1, 1], [threads, 1, 1]), 20, &[]);
            assert_eq!(got, [0x000f_ffff; 20]);
        }
    });
}

#[test]
fn arithmetic() {
    in_all_orders(|shim| {
        for (bits, number) in [(0x0080_1000_u32, 1.5_f32), (0, -3.0), (u32::MAX, 1e-3)] {
            let args = [bits.cell(), number.cell()];
            let got: Vec<u32> = output_of(shim, "shim_numbers", ([1, 1, 1], [1, 1, 1]), 12, &args);
            let first_set = if bits == 0 {
                0
            } else {
                bits.trailing_zeros() + 1
            };
            let primes = [2, 3, 5, 7, 11, 13, 17, 19];
            let expected = [
                bits.count_ones(),
                first_set,
                bits.leading_zeros(),
                number.to_bits(),
                bits,
                number.to_bits(),
                number.mul_add(number, -1.0).to_bits(),
                bits.cast_signed().min(5).cast_unsigned(),
                bits.max(5),
                number.min(2.0).to_bits(),
                number.to_bits(),
                primes[bits as usize % 8],
            ];
            assert_eq!(got, expected);
        }
    });
}

/// All 65536 numbers of both half types.
#[test]
fn halves_are_decoded_exactly() {
    in_all_orders(|shim| {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let input = upload(shim, &all, "halves");
        let outs = ["from_f16", "from_bf16"].map(|name| shim.alloc(4 * all.len(), name));
        let args = [input, input, outs[0], outs[1]].map(Cell::cell);
        launch(shim, "shim_decode", [64, 1, 1], [1024, 1, 1], 0, &args);
        let [from_f16, from_bf16] = outs.map(|out| download::<f32>(shim, out, all.len()));
        for (&bits, (&a, &b)) in all.iter().zip(from_f16.iter().zip(&from_bf16)) {
            same(a, f16::from_bits(bits).to_f32(), bits.into());
            same(b, bf16::from_bits(bits).to_f32(), bits.into());
        }
        for address in [input, outs[0], outs[1]] {
            shim.free(address);
        }
    });
}

/// The same bits, or both a NaN.
fn same(got: f32, expected: f32, of: u32) {
    let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
    assert!(same, "{of:#x} became {got}, not {expected}");
}

/// Encodes the floats with these bits by a kernel and by the `half` crate.
fn check_encoding(shim: &mut Shim, bits: &[u32]) {
    let count = u32::try_from(bits.len()).expect("not that many");
    let input = upload(shim, bits, "numbers");
    let outs = ["f16", "bf16"].map(|name| shim.alloc(2 * bits.len(), name));
    let args = [input.cell(), outs[0].cell(), outs[1].cell(), count.cell()];
    launch(
        shim,
        "shim_encode",
        [count.div_ceil(1024), 1, 1],
        [1024, 1, 1],
        0,
        &args,
    );
    let [to_f16, to_bf16] = outs.map(|out| download::<u16>(shim, out, bits.len()));
    for (&bits, (&a, &b)) in bits.iter().zip(to_f16.iter().zip(&to_bf16)) {
        let number = f32::from_bits(bits);
        if number.is_nan() {
            assert_eq!((a, b), (0x7fff, 0x7fff), "CUDA's NaN, of {bits:#x}");
        } else {
            assert_eq!(a, f16::from_f32(number).to_bits(), "f16 of {bits:#x}");
            assert_eq!(b, bf16::from_f32(number).to_bits(), "bf16 of {bits:#x}");
        }
    }
    for address in [input, outs[0], outs[1]] {
        shim.free(address);
    }
}

/// Around every number of both half types and every tie between two of them: the only places where an encoding changes.
#[test]
fn halves_are_encoded_to_nearest_even() {
    if !available() {
        return;
    }
    let mut seeded = SeededRng::new();
    let mut shim = Shim::lock();
    let mut bits = Vec::new();
    for half in 0..=u16::MAX {
        let number = f16::from_bits(half).to_f32().to_bits();
        // Below 2^-14, f16 lie 2^-24 apart; a tie is then far from half of the bits that are dropped.
        let up = f16::from_bits(half.wrapping_add(1)).to_f32();
        let tie = f16::from_bits(half).to_f32().midpoint(up).to_bits();
        for centre in [
            number,
            tie,
            u32::from(half) << 16,
            u32::from(half) << 16 | 0x8000,
        ] {
            bits.extend([centre.wrapping_sub(1), centre, centre.wrapping_add(1)]);
        }
    }
    bits.extend((0..100_000).map(|_| seeded.rng.random::<u32>()));
    check_encoding(&mut shim, &bits);
}
