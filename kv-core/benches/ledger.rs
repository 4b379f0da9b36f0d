//! What the ledger costs: pages, decode steps of a whole model, and the choice of a layer's best tokens.
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use kv_core::{
    Address, Demand, Entered, Geometry, Growth, KeepPlan, Kept, LayerView, Ledger, Needs,
    Observation, PagePool, Pages, Pins, Position, Reduction, Room, SeqId, rank,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SEQ: SeqId = SeqId(0);
const PAGES: usize = 100_000;
/// `SmolLM2`-135M's.
const GEOMETRY: Geometry = Geometry {
    layers: 30,
    kv_heads: 3,
    group: 3,
    head_dim: 64,
    block: 16,
    element_bytes: 2,
    max_positions: 1 << 20,
};
/// Steps on one ledger before it is made anew, so that a growing one stays near its length.
const STEPS: u64 = 256;

fn pages(measurements: &mut BenchmarkGroup<'_, WallTime>) {
    let pool = PagePool::new(PAGES);
    measurements.throughput(Throughput::Elements(PAGES as u64));
    let mut list = Pages::default();
    measurements.bench_function("pages, all at once", |bencher| {
        bencher.iter(|| {
            let mut room = pool.reservation();
            let taken = room.take_many(PAGES, &mut list);
            room.put_back(&mut list, 0);
            taken
        });
    });
    let mut lists: Vec<Pages> = (0..PAGES / 64).map(|_| Pages::default()).collect();
    measurements.bench_function("pages, 64 to a head", |bencher| {
        bencher.iter(|| {
            let mut room = pool.reservation();
            let taken = lists
                .iter_mut()
                .all(|list| room.take_many(64, list).is_ok());
            lists.iter_mut().for_each(|list| room.put_back(list, 0));
            taken
        });
    });
    measurements.bench_function("pages, one by one into a list", |bencher| {
        bencher.iter(|| {
            let mut room = pool.reservation();
            let taken = (0..PAGES).all(|_| room.take_many(1, &mut list).is_ok());
            room.put_back(&mut list, 0);
            taken
        });
    });
    measurements.throughput(Throughput::Elements(1));
}

/// A sequence of `tokens` tokens in every head, that grows so.
fn ledger(tokens: u32, growth: Growth, rng: &mut ChaCha8Rng) -> Ledger {
    let length = tokens as usize;
    let mut ledger = Ledger::new(GEOMETRY, GEOMETRY.full_pages(length + 1024));
    let demand = Demand {
        rooms: vec![Room::Each(usize::MAX); GEOMETRY.layers],
        together: None,
        appends: true,
        prompt: length,
    };
    ledger
        .open(SEQ, length, demand, &Pins::default())
        .expect("room");
    for layer in 0..GEOMETRY.layers {
        // The same in all heads, as where they share one score.
        let row: Vec<f32> = (0..tokens).map(|_| rng.random()).collect();
        let evicts = matches!(growth, Growth::EvictLowest { .. });
        let kept = Kept {
            slots: vec![(0..tokens).collect(); GEOMETRY.kv_heads],
            growth: vec![growth; GEOMETRY.kv_heads],
            scores: evicts.then(|| vec![row; GEOMETRY.kv_heads]),
        };
        ledger
            .write_prompt(SEQ, layer, length, &kept)
            .expect("room");
    }
    ledger
}

fn step(
    ledger: &mut Ledger,
    position: u32,
    entered: &mut Entered<Address>,
    observed: Option<(&Needs, &[f32])>,
) -> Result<(), kv_core::CacheError> {
    entered.clear();
    ledger.reserve(SEQ, position as usize + 1)?;
    for layer in 0..GEOMETRY.layers {
        ledger.append_into(SEQ, layer, Position(position), entered)?;
        if let Some((needs, rows)) = observed {
            ledger.note_rows(SEQ, layer, needs, rows)?;
        }
    }
    Ok(())
}

fn steps(measurements: &mut BenchmarkGroup<'_, WallTime>, rng: &mut ChaCha8Rng) {
    for tokens in [1024_u32, 8192] {
        let (limit, recent) = (tokens as usize, tokens as usize / 2);
        let sinks = 4;
        let ring = Growth::Ring {
            sinks,
            recent: limit - sinks,
        };
        let lowest = Growth::EvictLowest { limit, recent };
        let rows: Vec<f32> = (0..GEOMETRY.kv_heads * limit)
            .map(|_| rng.random())
            .collect();
        let needs = Needs {
            observation: Observation::Rows,
            ..Needs::NONE
        };
        let shared = Needs {
            reduction: Reduction {
                shared: true,
                ..Reduction::MEAN
            },
            ..needs
        };
        for (name, growth, observed) in [
            ("keep-all", Growth::Append, None),
            ("ring", ring, None),
            ("evict-lowest", lowest, None),
            ("evict-lowest, observed", lowest, Some(&needs)),
            ("evict-lowest, shared", lowest, Some(&shared)),
        ] {
            let mut entered = Entered::default();
            measurements.bench_function(format!("step, {name}, T={tokens}"), |bencher| {
                bencher.iter_custom(|count| {
                    let mut spent = Duration::ZERO;
                    let mut left = count;
                    while left > 0 {
                        let mut ledger = ledger(tokens, growth, rng);
                        let now = left.min(STEPS);
                        left -= now;
                        let start = Instant::now();
                        for position in (tokens..).take(usize::try_from(now).unwrap_or(0)) {
                            let observed = observed.map(|needs| (needs, rows.as_slice()));
                            step(&mut ledger, position, &mut entered, observed).expect("room");
                            black_box(&entered);
                        }
                        spent += start.elapsed();
                    }
                    spent
                });
            });
        }
    }
}

/// What sorting everything costs.
fn sorted(scores: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| rank((scores[a], a), (scores[b], b)));
    order.truncate(count);
    order.sort_unstable();
    order
}

fn select(measurements: &mut BenchmarkGroup<'_, WallTime>, rng: &mut ChaCha8Rng) {
    const TOKENS: usize = 8192;
    let heads = GEOMETRY.kv_heads;
    let rows: Vec<Vec<f32>> = (0..heads)
        .map(|_| (0..TOKENS).map(|_| rng.random()).collect())
        .collect();
    let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
    let count = TOKENS / 8;
    measurements.bench_function("best eighth, sorted", |bencher| {
        bencher.iter(|| {
            rows.iter()
                .map(|row| sorted(row, count).len())
                .sum::<usize>()
        });
    });
    measurements.bench_function("best eighth, top", |bencher| {
        bencher.iter(|| {
            let best = rows.iter().map(|row| kv_core::top(row, count).len());
            best.sum::<usize>()
        });
    });
    let view =
        LayerView::prefill(0, heads, TOKENS, count).with_scores(Observation::Accumulated, &rows);
    let mut each = KeepPlan::all(heads);
    (0..heads).for_each(|head| each.top(head, count - 32, 32));
    let mut across = KeepPlan::all(heads);
    across.top_across_heads(count * heads, 32, 32);
    for (name, plan) in [("head by head", each), ("across heads", across)] {
        measurements.bench_function(format!("best eighth, plan {name}"), |bencher| {
            bencher.iter(|| black_box(&plan).resolve(&view, &Pins::default()));
        });
    }
}

fn bench(criterion: &mut Criterion) {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut measurements = criterion.benchmark_group("ledger");
    measurements
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    pages(&mut measurements);
    steps(&mut measurements, &mut rng);
    select(&mut measurements, &mut rng);
    measurements.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
