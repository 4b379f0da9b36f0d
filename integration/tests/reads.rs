//! What a plan reads of a prompt itself is what the model's layers hand over, on every machine, and it is counted.
mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::{DType, Device, Tensor};
use common::host::{
    DIM, GROUP, HEADS, Host, LAYERS, Machine, expected, on_each_machine, relative_error, remembered,
};
use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Observation, Policy, PolicyConfig,
    Reads, Reduction, Registry, schemars::JsonSchema,
};
use kv_hook::{KvRuntime, RotationTables};
use mistralrs_kv::{CacheConfig, Runtime};
use serde::{Deserialize, Serialize};

const KEPT: usize = 5;

/// Chooses by one number of each of a token's rows, so that the choice shows all of them.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "kv_core::schemars")]
#[serde(deny_unknown_fields, default)]
struct Reader {
    what: String,
}

impl PolicyConfig for Reader {
    const NAME: &'static str = "reader";
    const SUMMARY: &'static str = "chooses by what it reads";
    type Policy = Self;

    fn bind(self, _: &Geometry, _: Budget) -> Result<Self, ConfigError> {
        Ok(self)
    }
}

impl Policy for Reader {
    fn needs(&self) -> Needs {
        Needs {
            reads: Reads {
                queries: self.what == "rows",
                keys: self.what == "rows",
                values: self.what == "rows",
                rotation: self.what == "rotation",
                output_norms: self.what == "norms",
                classes: self.what == "classes",
            },
            observation: match self.what.as_str() {
                "latest" => Observation::Latest,
                _ => Observation::None,
            },
            reduction: Reduction {
                shared: self.what == "shared",
                ..Reduction::MEAN
            },
            appends: true,
            ..Needs::NONE
        }
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        if self.what == "rotation" {
            assert!(view.rotation().positions() > 0);
        }
        if self.what == "rows" {
            for head in 0..view.heads() {
                let number = |rows: &[f32], slot: usize, dim: usize| rows[slot * DIM + dim];
                let score = |slot| {
                    mixed(
                        number(view.keys(head), slot, 0),
                        number(view.values(head), slot, 1),
                        number(view.queries(head * view.group() + 1), slot, 2),
                    )
                };
                let scores = (0..view.prompt).map(score).collect();
                keep.top_by(head, scores, KEPT, 0);
            }
        }
    }
}

fn mixed(key: f32, value: f32, query: f32) -> f32 {
    key + 2.0 * value + 4.0 * query
}

fn config(what: &str) -> CacheConfig {
    let mut registry = Registry::default();
    registry.add::<Reader>();
    CacheConfig::new("reader")
        .registry(registry)
        .set("what", what)
}

fn a_plan_reads_the_rows_that_the_layer_had(machine: Machine) {
    const PROMPT: usize = 40;
    let seed: u64 = rand::random();
    let mut host = Host::on(machine, config("rows"), DType::F32, seed);
    // Two prompts in one batch.
    let mut sequences = [remembered(1), remembered(2)];
    host.pass(&mut sequences, PROMPT, true);
    let kernels = host.runtime.stats().expect("open").kernels;
    let steps = host.pass(&mut sequences, 1, false);
    for (index, sequence) in sequences.iter().enumerate() {
        for (layer, step) in steps.iter().enumerate() {
            for head in 0..HEADS {
                let score = |token: usize| {
                    mixed(
                        sequence.keys[layer][head][token * DIM],
                        sequence.values[layer][head][token * DIM + 1],
                        sequence.queries[layer][head * GROUP + 1][token * DIM + 2],
                    )
                };
                let mut best: Vec<usize> = (0..PROMPT).collect();
                best.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
                best.truncate(KEPT);
                // The host keeps the newest token whatever a plan says, and the one that came since.
                best.extend([PROMPT - 1, PROMPT]);
                best.sort_unstable();
                best.dedup();
                let row = (index * HEADS + head) * GROUP * DIM;
                let query = &step.queries[row..row + DIM];
                let want = expected(sequence, layer, head, &best, query);
                let error = relative_error(&step.output[row..row + DIM], &want);
                assert!(
                    error < 1e-5,
                    "relative error {error}, layer {layer}, head {head} (seed {seed})"
                );
            }
        }
    }
    let prompts = 2 * LAYERS;
    let rows = HEADS * (GROUP + 2) * PROMPT * DIM;
    assert_eq!(kernels.read_prompt, prompts as u64);
    assert_eq!(kernels.read_prompt_bytes, (prompts * rows * 4) as u64);
}

on_each_machine! {
    rows: a_plan_reads_the_rows_that_the_layer_had;
}

/// What the engine says when it opens a pool for the policy.
fn refusal(machine: Machine, what: &str) -> Option<String> {
    let runtime = match machine {
        Machine::Cpu => Runtime::new(config(what)),
        Machine::EmulatedGpu => Runtime::on_device(config(what), common::gpu::EmulatedGpu::new()),
    };
    let opened = runtime.open_pool(&common::host::spec(DType::F32));
    opened.err().map(|error| error.to_string())
}

#[test]
fn what_cannot_be_read_is_refused_when_the_pool_is_opened() {
    for what in ["norms", "classes"] {
        let said = refusal(Machine::Cpu, what).expect("no model's files");
        for part in ["reader", "read_model", "model_files"] {
            assert!(said.contains(part), "{part:?} in {said:?}");
        }
    }
    for what in ["latest", "shared"] {
        assert_eq!(refusal(Machine::Cpu, what), None);
        let said = refusal(Machine::EmulatedGpu, what).expect("not on a device");
        assert!(
            said.contains("reader") && said.contains("on the CPU"),
            "{said}"
        );
    }
}

/// A layer that was turned in no way that the engine tells is an error of the first pass, which is part of a start.
#[test]
fn a_rotation_that_is_not_known_is_an_error() {
    let mut host = Host::new(config("rotation"), DType::F32, 1);
    let table = Tensor::zeros((16, DIM / 2), DType::F32, &Device::Cpu).expect("a tensor");
    host.rotation = Some(RotationTables {
        cos: table.clone(),
        sin: table,
        is_adjacent: false,
    });
    host.pass(&mut [remembered(1)], 8, true);
    host.rotation = None;
    let pass = || host.pass(&mut [remembered(2)], 8, true);
    let panic = catch_unwind(AssertUnwindSafe(pass))
        .err()
        .expect("no tables");
    let said = panic.downcast_ref::<String>().expect("a text");
    assert!(said.contains("reader") && said.contains("rotary"), "{said}");
}
