//! What a call of a policy costs on disk, beside the same policy in process.
//!
//! `H` heads of `n` tokens. The slack of a call on disk is what the pipes cost: two switches of process and a text; where
//! the policy reads scores or keys itself, these too.
use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use kv_core::{
    Budget, Geometry, KeepPlan, LayerView, Observation, Policy, PolicyConfig, PromptRows, Rotation,
    TokenClass,
};
use kv_loader::load;
use kv_policy_h2o::H2oConfig;
use prober::ProberConfig;
use programs::program;
use reader::ReaderConfig;
use serde_json::json;

#[path = "../tests/disk/prober.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod prober;
#[path = "../tests/disk/programs.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod programs;
#[path = "../tests/disk/reader.rs"]
mod reader;

/// `H` and `n`: a small model with a short prompt, and a large one with a long prompt.
const SHAPES: [(usize, usize); 2] = [(3, 1024), (8, 8192)];
const BUDGET: usize = 256;

const fn geometry(kv_heads: usize) -> Geometry {
    Geometry {
        layers: 30,
        kv_heads,
        group: 3,
        head_dim: 64,
        block: 32,
        element_bytes: 2,
        max_positions: 16_384,
    }
}

/// A layer of numbers in no order.
struct Layer {
    heads: usize,
    tokens: usize,
    scores: Vec<Vec<f32>>,
    rows: Vec<f32>,
    rotation: Rotation,
    classes: Vec<TokenClass>,
}

impl Layer {
    fn new(heads: usize, tokens: usize) -> Self {
        let mut state = 1_u64;
        let mut number = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            f32::from(u16::try_from(state >> 48).unwrap_or(0)) / 65_536.0
        };
        let mut row = |count: usize| -> Vec<f32> { (0..count).map(|_| number()).collect() };
        Self {
            heads,
            tokens,
            scores: (0..heads).map(|_| row(tokens)).collect(),
            rows: row(heads * 3 * tokens * 64),
            rotation: Rotation::of_base(10_000.0, 64, 16_384),
            classes: vec![TokenClass::Plain; tokens],
        }
    }

    fn plan(&self, policy: &dyn Policy) -> KeepPlan {
        let needs = policy.needs();
        let scores: Vec<&[f32]> = self.scores.iter().map(Vec::as_slice).collect();
        let part = &self.rows[..self.heads * self.tokens * 64];
        let rows = PromptRows {
            head_dim: 64,
            group: 3,
            rows: self.tokens,
            scale: 0.125,
            softcap: None,
            queries: Some(&self.rows),
            keys: Some(part),
            values: Some(part),
            rotation: Some(&self.rotation),
            output_norms: Some(part),
            classes: Some(&self.classes),
        };
        let mut view = LayerView::prefill(0, self.heads, self.tokens, BUDGET);
        if needs.observation != Observation::None {
            view = view.with_scores(needs.observation, &scores);
        }
        let mut keep = KeepPlan::all(self.heads);
        policy.plan(&view.with_rows(&rows), &mut keep);
        keep
    }
}

/// A policy in process and on disk.
fn both<C: PolicyConfig>(geometry: &Geometry) -> [(&'static str, Box<dyn Policy>); 2] {
    let budget = Budget::Tokens(BUDGET);
    let here = C::default().bind(geometry, budget).expect("fits");
    let loaded = load(program(C::NAME)).expect("a good program");
    let there = loaded.bind(json!({}), geometry, budget).expect("fits");
    [("in process", Box::new(here)), ("on disk", Box::new(there))]
}

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("plan");
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    for (heads, tokens) in SHAPES {
        let (layer, geometry) = (Layer::new(heads, tokens), geometry(heads));
        for (what, policies) in [
            ("says verbs", both::<H2oConfig>(&geometry)),
            ("reads scores", both::<ReaderConfig>(&geometry)),
            ("reads the prompt", both::<ProberConfig>(&geometry)),
        ] {
            for (place, policy) in policies {
                let name = BenchmarkId::new(format!("{what}, H={heads}, n={tokens}"), place);
                group.bench_function(name, |bencher| {
                    bencher.iter(|| black_box(layer.plan(&*policy)));
                });
            }
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("others");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(1));
    let (path, geometry) = (program("h2o"), geometry(3));
    let budget = Budget::Tokens(BUDGET);
    group.bench_function("load", |bencher| bencher.iter(|| load(&path)));
    let loaded = load(&path).expect("a good program");
    group.bench_function("bind", |bencher| {
        bencher.iter(|| loaded.bind(json!({}), &geometry, budget));
    });
    let policy = loaded.bind(json!({}), &geometry, budget).expect("fits");
    group.bench_function("room that is remembered", |bencher| {
        bencher.iter(|| policy.room(black_box(3), 1024, BUDGET));
    });
    let mut prompt = 1024;
    group.bench_function("rooms of 30 layers", |bencher| {
        bencher.iter(|| {
            prompt += 1;
            policy.room(3, prompt, BUDGET)
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
