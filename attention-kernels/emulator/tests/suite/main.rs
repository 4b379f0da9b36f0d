//! The emulator against hand-computed values, against Rust, and against kernels that were spoilt on purpose.

mod faults;
mod floats;
mod halves;
mod kernels;
mod memory;
mod opcodes;
mod order;
mod races;
mod speed;

use std::hash::{BuildHasher, RandomState};

use ptx_emulator::{Address, FaultKind, Launch, LaunchError, Memory, Module, Param, Stats, launch};

/// The kernels of `fixtures/kernels.cu`.
const KERNELS: &str = include_str!("../fixtures/kernels.ptx");

fn kernels() -> Module {
    Module::parse(KERNELS).expect("the fixture is PTX")
}

/// The fixture with one piece of the text of `entry` replaced.
fn spoilt(entry: &str, old: &str, new: &str) -> Module {
    let start = KERNELS
        .find(&format!(".entry {entry}("))
        .expect("an entry of the fixture");
    let (before, after) = KERNELS.split_at(start);
    assert!(after.contains(old), "`{entry}` has no `{old}`");
    Module::parse(&format!("{before}{}", after.replacen(old, new, 1))).expect("still PTX")
}

/// A module of one entry `k` with one pointer, in `%rd7` and as a global address, and a few registers of each kind.
fn module_of(body: &str) -> Module {
    let text = format!(
        "
        .version 7.0
        .target sm_80
        .address_size 64
        .extern .shared .align 16 .b8 dynamic[];
        .visible .entry k(.param .u64 out)
        {{
            .reg .pred %p<8>;
            .reg .b16 %h<8>;
            .reg .b32 %r<16>;
            .reg .b64 %rd<16>;
            ld.param.u64 %rd7, [out];
            cvta.to.global.u64 %rd7, %rd7;
            {body}
            ret;
        }}"
    );
    Module::parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Runs `body` in one block of `threads` threads with `shared` bytes and a buffer of `bytes` zeros.
fn run_body(
    body: &str,
    threads: u32,
    shared: usize,
    bytes: usize,
) -> Result<(Vec<u8>, Stats), LaunchError> {
    let mut memory = Memory::new();
    let out = memory.zeroed(bytes, "out");
    let shape = Launch {
        grid: [1, 1, 1],
        block: [threads, 1, 1],
        dynamic_shared: shared,
        params: &[Param::Ptr(out)],
    };
    let stats = launch(&module_of(body), &mut memory, "k", &shape)?;
    Ok((read(&mut memory, out, bytes), stats))
}

fn read(memory: &mut Memory, at: Address, bytes: usize) -> Vec<u8> {
    let mut contents = vec![0; bytes];
    memory.read(at, &mut contents).expect("an allocation");
    contents
}

fn read_u32(memory: &mut Memory, at: Address, count: usize) -> Vec<u32> {
    let bytes = read(memory, at, 4 * count);
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

fn read_f32(memory: &mut Memory, at: Address, count: usize) -> Vec<f32> {
    read_u32(memory, at, count)
        .into_iter()
        .map(f32::from_bits)
        .collect()
}

fn bytes_of(numbers: &[f32]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
}

/// The kinds of the faults of a launch that must have some, with their lines.
fn faults(result: Result<Stats, LaunchError>) -> Vec<(u32, FaultKind)> {
    match result {
        Err(LaunchError::Faults(faults)) => {
            let faults = faults.list.into_iter();
            faults.map(|fault| (fault.line, fault.kind)).collect()
        }
        other => panic!("expected faults, got {other:?}"),
    }
}

/// Numbers from `HEADROOM_SEED`, else from a fresh seed, which is printed if the test fails.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let fresh = || RandomState::new().hash_one("headroom");
        let seed = std::env::var("HEADROOM_SEED").map_or_else(
            |_| fresh(),
            |text| text.parse().expect("HEADROOM_SEED is a number"),
        );
        eprintln!("HEADROOM_SEED={seed} repeats this run");
        Self(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn word(&mut self) -> u32 {
        u32::try_from(self.bits() >> 32).expect("32 bits")
    }

    fn below(&mut self, end: u32) -> u32 {
        self.word() % end
    }

    /// A float between -1 and 1 with few enough bits that short sums are exact.
    fn float(&mut self) -> f32 {
        let steps = u16::try_from(self.below(513)).expect("small");
        f32::from(steps) / 256.0 - 1.0
    }
}
