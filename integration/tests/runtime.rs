//! The runtime driven through the hook by a host that is not the engine: what it refuses, and what it computes.
mod common;

use candle_core::DType;
use common::host::{
    DIM, GROUP, HEADS, Host, LAYERS, Machine, Step, expected, on_each_machine, relative_error,
    remembered, spec,
};
use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Observation, Policy, PolicyConfig,
    Positions, Reduce, Reduction, Registry, schemars::JsonSchema,
};
use kv_hook::{KvRuntime, PoolSpec};
use mistralrs_kv::{CacheConfig, Runtime};
use serde::{Deserialize, Serialize};

fn refusal(config: CacheConfig, change: impl FnOnce(&mut PoolSpec)) -> String {
    let mut spec = spec(DType::F32);
    change(&mut spec);
    let refused = Runtime::new(config).open_pool(&spec);
    refused.expect_err("the pool must not open").to_string()
}

#[test]
fn models_that_cannot_be_served_are_refused_with_a_sentence() {
    type Change = fn(&mut PoolSpec);
    let cases: [(&str, Change); 7] = [
        ("latent vectors (MLA)", |spec| spec.latent = true),
        ("layer 1 has 2", |spec| spec.layers[1].kv_heads = 2),
        ("another layer's cache", |spec| {
            spec.layers[1].own_cache = false;
        }),
        ("its keys have 64 dimensions, its values 32", |spec| {
            spec.layers
                .iter_mut()
                .for_each(|layer| layer.value_dim = 32);
        }),
        ("7 query heads do not divide among 3", |spec| {
            spec.query_heads = 7;
        }),
        ("F64, must be F32, F16 or BF16", |spec| {
            spec.dtype = DType::F64;
        }),
        ("no attention layers", |spec| spec.layers.clear()),
    ];
    for (expected, change) in cases {
        let message = refusal(CacheConfig::new("keep-all"), change);
        assert!(message.contains(expected), "{expected:?} in {message:?}");
    }
}

#[test]
fn a_cache_in_8_bits_is_refused() {
    let message = refusal(CacheConfig::new("keep-all"), |spec| {
        spec.dtype = DType::F8E4M3;
    });
    assert!(message.contains("F8E4M3"), "{message}");
}

/// A policy that asks for what this runtime does not supply.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "kv_core::schemars")]
struct Curious {}

impl PolicyConfig for Curious {
    const NAME: &'static str = "curious";
    const SUMMARY: &'static str = "wants cached keys at other positions, and to watch them";
    type Policy = Self;

    fn bind(self, _: &Geometry, _: Budget) -> Result<Self, ConfigError> {
        Ok(self)
    }
}

impl Policy for Curious {
    fn needs(&self) -> Needs {
        Needs {
            positions: Positions::CacheRelative,
            observation: Observation::Rows,
            reduction: Reduction {
                queries: Reduce::Sum,
                ..Reduction::MEAN
            },
            ..Needs::NONE
        }
    }

    fn plan(&self, _: &LayerView<'_>, _: &mut KeepPlan) {}
}

#[test]
fn a_policy_that_needs_more_than_the_runtime_has_is_refused_by_name() {
    let mut registry = Registry::default();
    registry.add::<Curious>();
    let message = refusal(CacheConfig::new("curious").registry(registry), |_| ());
    for part in [
        "curious",
        "cache-relative positions",
        "every decode step",
        "one of the two",
    ] {
        assert!(message.contains(part), "{part:?} in {message:?}");
    }
}

/// What `StreamingLLM` holds of a text of `length` tokens.
fn window(length: usize, sinks: usize, budget: usize) -> Vec<usize> {
    if length <= budget {
        return (0..length).collect();
    }
    (0..sinks)
        .chain(length - (budget - sinks)..length)
        .collect()
}

/// Norm-wise relative error of attention over a ring, in batches of mixed lengths, against the oracle over the kept
/// positions. 32-bit outputs: 1e-5. 16-bit outputs are rounded once more at the end, to 11 bits (1e-3) or to 8 (4e-3).
fn matches_the_oracle(machine: Machine, dtype: DType, bound: f64) {
    let seed: u64 = rand::random();
    let (sinks, budget) = (3, 37);
    let config = CacheConfig::new("streaming-llm")
        .budget(Budget::Tokens(budget))
        .set("sinks", sinks);
    let mut host = Host::on(machine, config, dtype, seed);
    let mut sequences = vec![remembered(7), remembered(8), remembered(9)];
    for (sequence, prompt) in sequences.iter_mut().zip([1, 20, 90]) {
        host.pass(std::slice::from_mut(sequence), prompt, true);
    }
    for step in 0..60 {
        let steps = host.pass(&mut sequences, 1, false);
        for (layer, Step { queries, output }) in steps.iter().enumerate() {
            for (index, sequence) in sequences.iter().enumerate() {
                let kept = window(sequence.length, sinks, budget);
                for query_head in 0..HEADS * GROUP {
                    let row = (index * HEADS * GROUP + query_head) * DIM;
                    let query = &queries[row..row + DIM];
                    let want = expected(sequence, layer, query_head / GROUP, &kept, query);
                    let error = relative_error(&output[row..row + DIM], &want);
                    assert!(
                        error <= bound,
                        "{dtype:?}: relative error {error} at step {step}, layer {layer}, sequence {index} (seed {seed})"
                    );
                }
            }
        }
    }
    let geometry = host.runtime.geometry().expect("open");
    for report in host.runtime.open_sequences() {
        assert_eq!(report.pages_held, geometry.full_pages(budget));
        assert!(report.kept.iter().flatten().all(|&kept| kept == budget));
    }
    for sequence in &sequences {
        host.runtime.release(sequence.id);
    }
    let pool = host.runtime.stats().expect("open").pool;
    assert_eq!((pool.held, pool.promised), (0, 0), "{pool:?}");
}

fn pins_stay(machine: Machine) {
    let config = CacheConfig::new("streaming-llm")
        .budget(Budget::Tokens(20))
        .pin_prefix(10);
    let mut host = Host::on(machine, config, DType::F32, 1);
    let mut sequence = [remembered(1)];
    host.pass(&mut sequence, 64, true);
    for _ in 0..50 {
        let steps = host.pass(&mut sequence, 1, false);
        let length = sequence[0].length;
        // The four sinks are among the ten pinned, and pins come on top of the window.
        let kept: Vec<usize> = (0..10).chain(length - 16..length).collect();
        let row = &steps[0].queries[..DIM];
        let want = expected(&sequence[0], 0, 0, &kept, row);
        let error = relative_error(&steps[0].output[..DIM], &want);
        assert!(error <= 1e-5, "relative error {error} at length {length}");
    }
}

fn a_restart_empties_the_pool(machine: Machine) {
    let mut host = Host::on(machine, CacheConfig::new("keep-all"), DType::F32, 1);
    host.pass(&mut [remembered(0), remembered(1)], 40, true);
    assert!(host.runtime.stats().expect("open").pool.held > 0);
    host.runtime.reset();
    let stats = host.runtime.stats().expect("open");
    assert_eq!(
        (stats.pool.held, stats.pool.promised, stats.sequences),
        (0, 0, 0)
    );
    host.pass(&mut [remembered(0)], 40, true);
}

#[test]
fn a_full_pool_is_a_value_and_changes_nothing() {
    let host = Host::new(CacheConfig::new("keep-all"), DType::F32, 1);
    let total = host.runtime.stats().expect("open").pool.total;
    host.runtime.reserve(1, 1000).expect("room for one");
    let full = host
        .runtime
        .reserve(2, 100)
        .expect_err("no room for another");
    assert_eq!(full.wanted, LAYERS * HEADS * 7);
    assert_eq!(full.free, total - LAYERS * HEADS * 63);
    host.runtime.release(1);
    host.runtime.reserve(2, 100).expect("room again");
}

on_each_machine! {
    attention_over_a_ring_is_the_oracles_in_32_bits: |machine| {
        matches_the_oracle(machine, DType::F32, 1e-5);
    };
    attention_over_a_ring_is_the_oracles_in_16_bits: |machine| {
        matches_the_oracle(machine, DType::F16, 1e-3);
        matches_the_oracle(machine, DType::BF16, 4e-3);
    };
    pins_survive_the_ring: pins_stay;
    a_restarted_engine_finds_an_empty_pool: a_restart_empties_the_pool;
}
