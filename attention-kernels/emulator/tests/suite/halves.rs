//! Conversions of two-byte floats against the crate `half`.

use half::{bf16, f16};
use ptx_emulator::{Launch, Memory, Param, launch};

use crate::{Dice, bytes_of, kernels, read, read_f32, read_u32};

/// Bits of a float with all NaNs made one.
fn same(number: f32) -> u32 {
    if number.is_nan() {
        0x7FFF_FFFF
    } else {
        number.to_bits()
    }
}

#[test]
fn every_f16_and_bf16_widens() {
    let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let n = 1 << 16;
    let mut memory = Memory::new();
    let input = memory.with(&all, "in");
    let outputs = ["f16", "bf16"].map(|name| memory.alloc(4 * n, name));
    let params = [
        Param::Ptr(input),
        Param::Ptr(outputs[0]),
        Param::Ptr(outputs[1]),
        Param::U32(1 << 16),
    ];
    let shape = Launch {
        grid: [256, 1, 1],
        block: [256, 1, 1],
        dynamic_shared: 0,
        params: &params,
    };
    launch(&kernels(), &mut memory, "widen", &shape).expect("no fault");
    let [f16s, bf16s] = outputs.map(|out| read_f32(&mut memory, out, n));
    for bits in 0..=u16::MAX {
        let at = usize::from(bits);
        assert_eq!(
            same(f16s[at]),
            same(f16::from_bits(bits).to_f32()),
            "f16 {bits:#x}"
        );
        assert_eq!(
            same(bf16s[at]),
            same(bf16::from_bits(bits).to_f32()),
            "bf16 {bits:#x}"
        );
    }
}

/// NaN becomes one NaN on a device; `half` keeps its bits.
fn narrowed(number: f32) -> [u16; 2] {
    if number.is_nan() {
        return [0x7FFF; 2];
    }
    [
        f16::from_f32(number).to_bits(),
        bf16::from_f32(number).to_bits(),
    ]
}

#[test]
fn random_floats_narrow() {
    const COUNT: u32 = 1 << 15;
    let mut dice = Dice::new();
    let mut number = |at: u32| match at % 4 {
        // Any bits; near the range of f16; halfway between two f16; halfway between two bf16.
        0 => f32::from_bits(dice.word()),
        1 => f32::from_bits((dice.word() & 0x8FFF_FFFF) + 0x3000_0000),
        2 => f32::from_bits((dice.word() & 0x8FFF_E000) + 0x3000_1000),
        _ => f32::from_bits(dice.word() & 0xFFFF_0000 | 0x8000),
    };
    let numbers: Vec<f32> = (0..COUNT).map(&mut number).collect();
    let n = numbers.len();
    let mut memory = Memory::new();
    let input = memory.with(&bytes_of(&numbers), "in");
    let f16s = memory.alloc(2 * n, "f16");
    let bf16s = memory.alloc(2 * n, "bf16");
    let pairs = memory.alloc(8 * n, "pairs");
    let params = [
        Param::Ptr(input),
        Param::Ptr(f16s),
        Param::Ptr(bf16s),
        Param::Ptr(pairs),
        Param::U32(COUNT),
    ];
    let shape = Launch {
        grid: [COUNT / 128, 1, 1],
        block: [128, 1, 1],
        dynamic_shared: 0,
        params: &params,
    };
    launch(&kernels(), &mut memory, "narrow", &shape).expect("no fault");
    let pairs = read_u32(&mut memory, pairs, 2 * n);
    let halves = [f16s, bf16s].map(|out| read(&mut memory, out, 2 * n));
    for (at, number) in numbers.iter().enumerate() {
        let (low, high) = (narrowed(numbers[n - 1 - at]), narrowed(*number));
        for format in 0..2 {
            let [a, b] = [0, 1].map(|byte| halves[format][2 * at + byte]);
            assert_eq!(u16::from_le_bytes([a, b]), high[format], "{number:e}");
            let pair = u32::from(high[format]) << 16 | u32::from(low[format]);
            assert_eq!(pairs[2 * at + format], pair, "{number:e}");
        }
    }
}
