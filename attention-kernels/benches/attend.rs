//! Decode attention of one sequence over one layer of a small model.
//!
//! The name of a measurement says how many bytes of K and V one call reads; the throughput is over those bytes.

use std::hint::black_box;
use std::time::Duration;

use attention_kernels::{AttendArgs, HeadSlots, KvDtype, attend_into};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use layer::{GROUP, HEAD_DIM, HEADS, numbers, store};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

mod layer;

fn bench(criterion: &mut Criterion) {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut measurements = criterion.benchmark_group("attend");
    measurements
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    for dtype in [KvDtype::F32, KvDtype::F16, KvDtype::Bf16] {
        for tokens in [256, 1024, 4096] {
            let (store, tables) = store(dtype, tokens, &mut rng);
            let heads: Vec<HeadSlots<'_>> = tables
                .iter()
                .map(|pages| HeadSlots { pages, len: tokens })
                .collect();
            let queries = numbers(&mut rng, HEADS * GROUP * HEAD_DIM);
            let args = AttendArgs {
                queries: &queries,
                heads: &heads,
                group: GROUP,
                scale: 0.125,
                softcap: None,
            };
            let mut out = vec![0.0; queries.len()];
            let bytes = HEADS * tokens * 2 * HEAD_DIM * dtype.size_in_bytes();
            measurements.throughput(Throughput::Bytes(bytes as u64));
            let name = BenchmarkId::new(dtype.to_string(), format!("T={tokens}, {bytes} bytes"));
            measurements.bench_function(name, |bencher| {
                bencher.iter(|| attend_into(black_box(&store), black_box(&args), &mut out));
            });
        }
    }
    measurements.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
