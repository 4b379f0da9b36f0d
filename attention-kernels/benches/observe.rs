//! What it costs to watch attention, over one layer of a small model: of a whole prompt, of its last queries, and of a decode step
//! beside the same step unwatched.

use std::hint::black_box;
use std::time::Duration;

use attention_kernels::{
    AttendArgs, HeadSlots, KvDtype, PromptArgs, Workspace, attend_into, attend_observed_into,
    observe_accumulated, observe_window,
};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use kv_core::{Pool, Reduce, Reduction};
use layer::{GROUP, HEAD_DIM, HEADS, Order, numbers, store};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

mod layer;

const TOKENS: usize = 1000;

fn prompt(measurements: &mut BenchmarkGroup<'_, WallTime>, rng: &mut ChaCha8Rng) {
    let queries = numbers(rng, HEADS * GROUP * TOKENS * HEAD_DIM);
    let keys = numbers(rng, HEADS * TOKENS * HEAD_DIM);
    let args = PromptArgs {
        queries: &queries,
        keys: &keys,
        rows: TOKENS,
        tokens: TOKENS,
        group: GROUP,
        head_dim: HEAD_DIM,
        scale: 0.125,
        softcap: None,
    };
    let pooled = Reduction {
        pool: Pool::Average(7),
        ..Reduction::MEAN
    };
    measurements.bench_function(format!("window of 32, n={TOKENS}"), |bencher| {
        bencher.iter(|| observe_window(black_box(&args), 32, pooled));
    });
    measurements.bench_function(format!("accumulated, n={TOKENS}"), |bencher| {
        bencher.iter(|| observe_accumulated(black_box(&args), Reduction::MEAN));
    });
}

fn step(measurements: &mut BenchmarkGroup<'_, WallTime>, rng: &mut ChaCha8Rng) {
    for dtype in [KvDtype::F32, KvDtype::F16] {
        let (store, tables) = store(dtype, TOKENS, Order::Paged, rng);
        let heads: Vec<HeadSlots<'_>> = tables
            .iter()
            .map(|pages| HeadSlots { pages, len: TOKENS })
            .collect();
        let queries = numbers(rng, HEADS * GROUP * HEAD_DIM);
        let args = AttendArgs {
            queries: &queries,
            heads: &heads,
            group: GROUP,
            scale: 0.125,
            softcap: None,
        };
        let (mut out, mut rows) = (vec![0.0; queries.len()], vec![0.0; HEADS * TOKENS]);
        let mut workspace = Workspace::default();
        measurements.bench_function(format!("step, {dtype}, T={TOKENS}, unwatched"), |bencher| {
            bencher.iter(|| {
                attend_into(
                    black_box(&store),
                    black_box(&args),
                    &mut workspace,
                    &mut out,
                )
            });
        });
        measurements.bench_function(format!("step, {dtype}, T={TOKENS}, watched"), |bencher| {
            bencher.iter(|| {
                let (store, args) = (black_box(&store), black_box(&args));
                attend_observed_into(
                    store,
                    args,
                    Reduce::Sum,
                    &mut workspace,
                    &mut out,
                    &mut rows,
                )
            });
        });
    }
}

fn bench(criterion: &mut Criterion) {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut measurements = criterion.benchmark_group("observe");
    measurements
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    prompt(&mut measurements, &mut rng);
    step(&mut measurements, &mut rng);
    measurements.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
