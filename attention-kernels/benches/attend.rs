//! Decode attention of one sequence with three KV heads, three query heads each, `D = 64`: the shape of a small model's layer.
//!
//! The name of a measurement says how many bytes of K and V one call reads; the throughput is over those bytes.

use std::hint::black_box;
use std::time::Duration;

use attention_kernels::{
    AttendArgs, HeadSlots, KvDtype, PageLayout, PageStore, RowWrite, WriteArgs, attend_into, write,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const BLOCK: usize = 16;
const HEAD_DIM: usize = 64;
const GROUP: usize = 3;
const HEADS: usize = 3;

/// A store in which every head's pages are scattered, and the page tables.
fn store(dtype: KvDtype, tokens: usize, rng: &mut ChaCha8Rng) -> (PageStore, Vec<Vec<u32>>) {
    let layout = PageLayout::new(BLOCK, HEAD_DIM).expect("a layout");
    let per_head = layout.pages_for(tokens);
    let pages = u32::try_from(HEADS * per_head).expect("few pages");
    let mut store = PageStore::new(layout, dtype, HEADS * per_head).expect("a store");
    let mut numbers: Vec<u32> = (0..pages).collect();
    numbers.shuffle(rng);
    for &page in &numbers {
        let mut rows = || -> Vec<f32> {
            let row = |_| rng.random_range(-1.0..1.0);
            (0..BLOCK * HEAD_DIM).map(row).collect()
        };
        let (keys, values) = (rows(), rows());
        let rows: Vec<RowWrite> = (0..16)
            .map(|offset| RowWrite {
                source: offset as usize,
                page,
                offset,
            })
            .collect();
        let args = WriteArgs {
            keys: &keys,
            values: &values,
            rows: &rows,
        };
        write(&mut store, &args).expect("rows in range");
    }
    let tables = numbers.chunks(per_head).map(<[u32]>::to_vec).collect();
    (store, tables)
}

fn bench(criterion: &mut Criterion) {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut measurements = criterion.benchmark_group("attend");
    measurements
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    for dtype in [KvDtype::F32, KvDtype::F16] {
        for tokens in [256, 1024, 4096] {
            let (store, tables) = store(dtype, tokens, &mut rng);
            let heads: Vec<HeadSlots<'_>> = tables
                .iter()
                .map(|pages| HeadSlots { pages, len: tokens })
                .collect();
            let query = |_| rng.random_range(-1.0..1.0);
            let queries: Vec<f32> = (0..HEADS * GROUP * HEAD_DIM).map(query).collect();
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
