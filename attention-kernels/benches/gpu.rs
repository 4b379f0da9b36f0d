//! The CUDA backend on the first GPU: decode attention, observing a prompt, carrying a plan out.
//!
//! A measurement launches, and waits for the device once for a row of launches. The name of an attention says how many bytes of K and V
//! one call reads; the throughput is over those bytes.

use std::time::{Duration, Instant};

use attention_kernels::cuda::{
    self, DecodeArgs, Device as _, DevicePrompt, Gpu, HeadStep, PageStore, RowWanted, SelectArgs,
    Step, StepTarget, View,
};
use attention_kernels::{KvDtype, PageLayout};
use candle_core::Device;
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use half::{bf16, f16};
use kv_core::{KeepPlan, Observation, Pins, Reduce, Reduction};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const TOKENS: usize = 4096;
const HEAD_DIM: usize = 128;
const HEADS: usize = 8;
const BLOCK: usize = 32;
const SOUND: &str = "a sound call";
const TYPES: [KvDtype; 2] = [KvDtype::F16, KvDtype::Bf16];

/// A number of a type of 16 bits, between -1 and 1.
fn number(rng: &mut ChaCha8Rng, dtype: KvDtype) -> [u8; 2] {
    let number = rng.random_range(-1.0..1.0);
    match dtype {
        KvDtype::F16 => f16::from_f32(number).to_le_bytes(),
        _ => bf16::from_f32(number).to_le_bytes(),
    }
}

fn numbers(
    gpu: &Gpu,
    rng: &mut ChaCha8Rng,
    dtype: KvDtype,
    elements: usize,
) -> <Gpu as cuda::Device>::Buffer {
    // The same ones again and again: what they are costs no time on the device.
    let some: Vec<u8> = (0..elements.min(1 << 16))
        .flat_map(|_| number(rng, dtype))
        .collect();
    let bytes: Vec<u8> = some.into_iter().cycle().take(2 * elements).collect();
    gpu.upload(&bytes).expect("memory")
}

/// Waits until all that was launched is done.
fn wait(gpu: &Gpu, buffer: &<Gpu as cuda::Device>::Buffer) {
    gpu.download(buffer, 0, &mut [0; 4]).expect("a download");
}

/// Measures `launch`, which returns something that the last launch writes.
fn measure(
    measurements: &mut BenchmarkGroup<'_, WallTime>,
    name: BenchmarkId,
    gpu: &Gpu,
    mut launch: impl FnMut() -> <Gpu as cuda::Device>::Buffer,
) {
    measurements.bench_function(name, |bencher| {
        bencher.iter_custom(|times| {
            wait(gpu, &launch());
            let start = Instant::now();
            let mut last = None;
            for _ in 0..times {
                last = Some(launch());
            }
            if let Some(last) = &last {
                wait(gpu, last);
            }
            start.elapsed()
        });
    });
}

/// A store of `sequences` sequences whose pages are scattered, and their tables. The pages hold zeros, which take as long as anything.
fn store(
    gpu: &Gpu,
    rng: &mut ChaCha8Rng,
    dtype: KvDtype,
    sequences: usize,
) -> (PageStore<Gpu>, Vec<Vec<u32>>) {
    let layout = PageLayout::new(BLOCK, HEAD_DIM).expect("a layout");
    let per_head = layout.pages_for(TOKENS);
    let pages = sequences * HEADS * per_head;
    let mut numbers: Vec<u32> = (0..u32::try_from(pages).expect("few pages")).collect();
    numbers.shuffle(rng);
    let store = PageStore::new(gpu.clone(), layout, dtype, pages, true).expect("memory");
    (
        store,
        numbers.chunks(per_head).map(<[u32]>::to_vec).collect(),
    )
}

fn attend(measurements: &mut BenchmarkGroup<'_, WallTime>, gpu: &Gpu, rng: &mut ChaCha8Rng) {
    for dtype in TYPES {
        for sequences in [1, 8] {
            let (mut store, tables) = store(gpu, rng, dtype, sequences);
            let head = |pages| HeadStep {
                pages,
                len: TOKENS,
                target: StepTarget::Nothing,
            };
            let heads: Vec<HeadStep<'_>> = tables.iter().map(|pages| head(&pages[..])).collect();
            let step = Step::upload(&store, 1, &heads, &vec![(0, false); sequences]).expect(SOUND);
            let bytes = sequences * HEADS * TOKENS * 2 * HEAD_DIM * dtype.size_in_bytes();
            for (group, is_watched) in [(4, false), (4, true), (8, false), (8, true)] {
                let queries = numbers(gpu, rng, dtype, sequences * HEADS * group * HEAD_DIM);
                let row = RowWanted {
                    reduce: Reduce::Sum,
                    add_to_scores: true,
                    returned: false,
                };
                let args = DecodeArgs {
                    queries: View::whole(&queries),
                    group,
                    scale: 0.088,
                    softcap: None,
                    row: is_watched.then_some(row),
                };
                measurements.throughput(Throughput::Bytes(bytes as u64));
                let watched = if is_watched { ", watched" } else { "" };
                let shape = format!("S={sequences}, G={group}{watched}, {bytes} bytes");
                measure(
                    measurements,
                    BenchmarkId::new(format!("attend {dtype}"), shape),
                    gpu,
                    || cuda::attend(&mut store, &step, 0, &args).expect(SOUND).out,
                );
            }
        }
    }
}

fn observe(measurements: &mut BenchmarkGroup<'_, WallTime>, gpu: &Gpu, rng: &mut ChaCha8Rng) {
    let (dtype, group) = (KvDtype::F16, 4);
    let queries = numbers(gpu, rng, dtype, HEADS * group * TOKENS * HEAD_DIM);
    let keys = numbers(gpu, rng, dtype, HEADS * TOKENS * HEAD_DIM);
    let prompt = DevicePrompt {
        queries: Some(View::whole(&queries)),
        keys: View::whole(&keys),
        dtype,
        heads: HEADS,
        rows: TOKENS,
        tokens: TOKENS,
        group,
        head_dim: HEAD_DIM,
        scale: 0.088,
        softcap: None,
    };
    for (name, observation) in [
        ("window of 32", Observation::Window { queries: 32 }),
        ("accumulated", Observation::Accumulated),
    ] {
        measure(
            measurements,
            BenchmarkId::new(name, format!("n={TOKENS}")),
            gpu,
            || {
                let scores = gpu.uninit(4 * HEADS * TOKENS).expect("memory");
                let view = View::whole(&scores);
                cuda::observe(gpu, observation, Reduction::MEAN, &prompt, view).expect(SOUND);
                scores
            },
        );
    }
}

fn keep(measurements: &mut BenchmarkGroup<'_, WallTime>, gpu: &Gpu, rng: &mut ChaCha8Rng) {
    let scores: Vec<u8> = (0..HEADS * TOKENS)
        .flat_map(|_| rng.random_range(0.0..1.0_f32).to_le_bytes())
        .collect();
    let scores = gpu.upload(&scores).expect("memory");
    let mut each = KeepPlan::all(HEADS);
    (0..HEADS).for_each(|head| each.top(head, TOKENS / 4, 32));
    let mut across = KeepPlan::all(HEADS);
    across.top_across_heads(HEADS * TOKENS / 4, 64, 32);
    for (name, plan) in [
        ("keep the best of each", &each),
        ("keep the best of all", &across),
    ] {
        let pins = Pins::default();
        let args = SelectArgs {
            plan,
            pins: &pins,
            tokens: TOKENS,
            scores: Some(View::whole(&scores)),
            stride: TOKENS,
        };
        // It returns what was kept, so it waits by itself.
        let name = BenchmarkId::new(name, format!("{HEADS} x {TOKENS}"));
        measurements.bench_function(name, |bencher| {
            bencher.iter(|| cuda::keep(gpu, &args).expect(SOUND));
        });
    }
}

fn bench(criterion: &mut Criterion) {
    let gpu = match Device::new_cuda(0) {
        Ok(Device::Cuda(device)) => Gpu::new(device),
        Ok(other) => panic!("the first GPU is {:?}", other.location()),
        Err(error) => panic!("this needs a GPU, and none can be opened: {error}"),
    };
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut measurements = criterion.benchmark_group("gpu");
    measurements
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    attend(&mut measurements, &gpu, &mut rng);
    measurements.finish();
    let mut measurements = criterion.benchmark_group("gpu, prompts");
    measurements
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    observe(&mut measurements, &gpu, &mut rng);
    keep(&mut measurements, &gpu, &mut rng);
    measurements.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
