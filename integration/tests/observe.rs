//! What the runtime observes for a policy: by one kernel call where it is asked for, by none where it is not; and what a
//! prompt's tail sees.
mod common;

use std::sync::{Arc, Mutex};

use attention_kernels::oracle;
use candle_core::DType;
use common::gpu::EmulatedGpu;
use common::host::{
    DIM, GROUP, HEADS, Host, LAYERS, Machine, Remembered, SCALE, expected, on_each_machine,
    relative_error, remembered, spec,
};
use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Observation, Policy, PolicyConfig,
    Reduce, Reduction, Registry, schemars::JsonSchema,
};
use kv_hook::KvRuntime;
use mistralrs_kv::{CacheConfig, KernelCalls, Runtime};
use serde::{Deserialize, Serialize};

/// A policy that asks for an observation, reads it and keeps all.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "kv_core::schemars")]
#[serde(deny_unknown_fields, default)]
struct Watcher {
    what: String,
}

impl PolicyConfig for Watcher {
    const NAME: &'static str = "watcher";
    const SUMMARY: &'static str = "looks and keeps all";
    type Policy = Self;

    fn bind(self, _: &Geometry, _: Budget) -> Result<Self, ConfigError> {
        Ok(self)
    }
}

impl Policy for Watcher {
    fn needs(&self) -> Needs {
        let observation = match self.what.as_str() {
            "window" => Observation::Window { queries: 8 },
            "accumulated" => Observation::Accumulated,
            "rows" => Observation::Rows,
            "norms" => Observation::KeyNorms,
            _ => Observation::None,
        };
        Needs {
            observation,
            reduction: Reduction {
                queries: Reduce::Sum,
                ..Reduction::MEAN
            },
            ..Needs::NONE
        }
    }

    fn plan(&self, view: &LayerView<'_>, _: &mut KeepPlan) {
        if self.what != "nothing" {
            for head in 0..view.heads() {
                assert_eq!(
                    view.scores(head).len(),
                    view.prompt,
                    "a score for each token"
                );
            }
        }
    }
}

/// Kernel calls for two prompts of their own and then two decode steps of both together.
fn calls(machine: Machine, what: &str) -> KernelCalls {
    let mut registry = Registry::default();
    registry.add::<Watcher>();
    let config = CacheConfig::new("watcher")
        .registry(registry)
        .set("what", what);
    let mut host = Host::on(machine, config, DType::F32, 1);
    let mut sequences = vec![remembered(1), remembered(2)];
    for sequence in &mut sequences {
        host.pass(std::slice::from_mut(sequence), 20, true);
    }
    for _ in 0..2 {
        host.pass(&mut sequences, 1, false);
    }
    host.runtime.stats().expect("open").kernels
}

fn nothing_is_computed_that_the_policy_did_not_name(machine: Machine) {
    let layers = u64::try_from(LAYERS).expect("few");
    let (prompts, steps) = (2 * layers, 2 * layers);
    let bare = KernelCalls {
        write: prompts + steps,
        attend: steps,
        attend_prompt: match machine {
            Machine::Cpu => prompts,
            Machine::EmulatedGpu => 0,
        },
        // One for each of the two steps, whatever the layers.
        tables: match machine {
            Machine::Cpu => 0,
            Machine::EmulatedGpu => 2,
        },
        ..KernelCalls::default()
    };
    assert_eq!(calls(machine, "nothing"), bare);
    let window = KernelCalls {
        observe_window: prompts,
        ..bare
    };
    assert_eq!(calls(machine, "window"), window);
    let accumulated = KernelCalls {
        observe_accumulated: prompts,
        ..bare
    };
    assert_eq!(calls(machine, "accumulated"), accumulated);
    let norms = KernelCalls {
        key_norms: prompts,
        ..bare
    };
    assert_eq!(calls(machine, "norms"), norms);
    let rows = KernelCalls {
        attend: 0,
        attend_observed: steps,
        ..accumulated
    };
    assert_eq!(calls(machine, "rows"), rows);
}

/// Every token of a tail sees what its head holds when it comes, itself included, and all before it sees dense attention: on a device
/// the engine's own, which is ones here.
fn a_tail_sees_the_cache(
    machine: Machine,
    config: CacheConfig,
    tail: usize,
    prompt: usize,
    held: impl Fn(usize) -> Vec<usize>,
) {
    let seed: u64 = rand::random();
    let mut host = Host::on(machine, config.prompt_tail(tail), DType::F32, seed);
    let mut sequence = [remembered(5)];
    let passes = host.pass(&mut sequence, prompt, true);
    for (layer, pass) in passes.iter().enumerate() {
        for head in 0..HEADS * GROUP {
            for token in 0..prompt {
                let row = &pass.output[(head * prompt + token) * DIM..][..DIM];
                let is_tail = token >= prompt - tail;
                if !is_tail && machine == Machine::EmulatedGpu {
                    assert!(
                        row.iter().all(|&x| x == 1.0),
                        "token {token} is the engine's"
                    );
                    continue;
                }
                let seen = if is_tail {
                    held(token)
                } else {
                    (0..=token).collect()
                };
                let query = &pass.queries[(head * prompt + token) * DIM..][..DIM];
                let want = expected(&sequence[0], layer, head / GROUP, &seen, query);
                let error = relative_error(row, &want);
                assert!(
                    error <= 1e-5,
                    "token {token} of head {head}: {error} (seed {seed})"
                );
            }
        }
    }
    let report = host.runtime.open_sequences().pop().expect("open");
    assert_eq!(
        report.prompt_tokens, prompt,
        "the tail is a part of the prompt"
    );
}

fn a_tail_is_read_through_what_was_kept(machine: Machine) {
    a_tail_sees_the_cache(machine, CacheConfig::new("keep-all"), 9, 40, |token| {
        (0..=token).collect()
    });
    let window = CacheConfig::new("streaming-llm").budget(Budget::Tokens(12));
    a_tail_sees_the_cache(machine, window.clone(), 9, 40, |token| {
        (0..4).chain(token - 7..=token).collect()
    });
    // A tail as long as the prompt leaves one token to compress.
    a_tail_sees_the_cache(machine, window, 29, 30, |token| match token {
        0..12 => (0..=token).collect(),
        _ => (0..4).chain(token - 7..=token).collect(),
    });
}

/// The engine's attention is used where its mask is not known to be the plain causal one, and on a device.
fn without_a_tail_the_prompt_is_dense(machine: Machine) {
    a_tail_sees_the_cache(machine, CacheConfig::new("keep-all"), 0, 40, |_| Vec::new());
    let mut host = Host::on(machine, CacheConfig::new("keep-all"), DType::F32, 1);
    host.is_causal = false;
    let passes = host.pass(&mut [remembered(1)], 30, true);
    assert!(
        passes
            .iter()
            .all(|pass| pass.output.iter().all(|&x| x == 1.0))
    );
}

/// Every other head streams: it sees sinks and a window while the prompt is read, where the runtime reads it, and elsewhere the policy is
/// refused.
fn streaming_heads_see_sinks_and_a_window(machine: Machine) {
    const PROMPT: usize = 70;
    let config = CacheConfig::new("duo-attention")
        .set("prompt", "streaming")
        .set("sinks", 3)
        .set("recent", 9);
    if machine == Machine::EmulatedGpu {
        let runtime = Runtime::on_device(config, EmulatedGpu::new());
        let error = runtime.open_pool(&spec(DType::F32)).expect_err("refused");
        let text = error.to_string();
        assert!(
            text.contains("duo-attention") && text.contains("`dense`"),
            "{text}"
        );
        return;
    }
    let seed: u64 = rand::random();
    let mut host = Host::on(machine, config, DType::F32, seed);
    let mut sequence = [remembered(4)];
    let passes = host.pass(&mut sequence, PROMPT, true);
    for (layer, pass) in passes.iter().enumerate() {
        for head in 0..HEADS * GROUP {
            let streams = !(layer + head / GROUP).is_multiple_of(2);
            for token in 0..PROMPT {
                let is_seen = |&at: &usize| !streams || at < 3 || token - at < 9;
                let seen: Vec<usize> = (0..=token).filter(is_seen).collect();
                let at = (head * PROMPT + token) * DIM..(head * PROMPT + token + 1) * DIM;
                let query = &pass.queries[at.clone()];
                let want = expected(&sequence[0], layer, head / GROUP, &seen, query);
                let error = relative_error(&pass.output[at], &want);
                assert!(
                    error <= 1e-5,
                    "token {token} of head {head}: {error} (seed {seed})"
                );
            }
        }
    }
}

/// H2O as the paper says it, on one head: scores of all tokens held, in `f64`.
struct HeavyHitters {
    heavy: usize,
    recent: usize,
    /// Position and accumulated attention, oldest first.
    held: Vec<(usize, f64)>,
}

impl HeavyHitters {
    /// Keeps the `recent` newest and the `heavy` best others.
    fn evict(&mut self) {
        if self.held.len() <= self.heavy + self.recent {
            return;
        }
        let window = self.held.split_off(self.held.len() - self.recent);
        self.held
            .sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        self.held.truncate(self.heavy);
        self.held.sort_by_key(|&(position, _)| position);
        self.held.extend(window);
    }

    fn positions(&self) -> Vec<usize> {
        self.held.iter().map(|&(position, _)| position).collect()
    }
}

/// One sequence, what its heads should hold, and the cap on its logits.
struct Paper<'a> {
    sequence: &'a Remembered,
    softcap: Option<f32>,
}

impl Paper<'_> {
    /// The query heads of a KV head at one token.
    fn queries(&self, layer: usize, head: usize, token: usize) -> Vec<&[f32]> {
        (head * GROUP..(head + 1) * GROUP)
            .map(|q| &self.sequence.queries[layer][q][token * DIM..(token + 1) * DIM])
            .collect()
    }

    fn rows(rows: &[f32], positions: &[usize]) -> Vec<f32> {
        let rows = positions
            .iter()
            .flat_map(|&p| &rows[p * DIM..(p + 1) * DIM]);
        rows.copied().collect()
    }

    /// Softmax weights of one query over the keys at `positions`.
    fn weights(&self, layer: usize, head: usize, query: &[f32], positions: &[usize]) -> Vec<f64> {
        let keys = Self::rows(&self.sequence.keys[layer][head], positions);
        let scores = oracle::scores(&keys, query, SCALE, self.softcap);
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - highest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|w| w / sum).collect()
    }

    /// A head after the dense part of a prompt.
    fn after_prompt(&self, layer: usize, head: usize, prompt: usize) -> HeavyHitters {
        let mut held: Vec<(usize, f64)> = (0..prompt).map(|position| (position, 0.0)).collect();
        for token in 0..prompt {
            let seen: Vec<usize> = (0..=token).collect();
            for query in self.queries(layer, head, token) {
                let weights = self.weights(layer, head, query, &seen);
                for (entry, weight) in held.iter_mut().zip(weights) {
                    entry.1 += weight;
                }
            }
        }
        let mut head = HeavyHitters {
            heavy: 8,
            recent: 8,
            held,
        };
        head.evict();
        head
    }

    /// One token more: what each query head should see, and the head after it.
    fn step(
        &self,
        layer: usize,
        head: usize,
        token: usize,
        model: &mut HeavyHitters,
    ) -> Vec<Vec<f64>> {
        model.held.push((token, 0.0));
        let seen = model.positions();
        let (keys, values) = (
            Self::rows(&self.sequence.keys[layer][head], &seen),
            Self::rows(&self.sequence.values[layer][head], &seen),
        );
        let mut outputs = Vec::new();
        for query in self.queries(layer, head, token) {
            outputs.push(oracle::attend(&keys, &values, query, SCALE, self.softcap));
            let weights = self.weights(layer, head, query, &seen);
            for (entry, weight) in model.held.iter_mut().zip(weights) {
                entry.1 += weight;
            }
        }
        model.evict();
        outputs
    }
}

/// Evicting after each step, as the authors do, and evicting when the next token needs the slot, as we do, show every step
/// the same keys; and so do the tokens of a prompt's tail.
fn h2o_attends_to_what_the_paper_keeps(
    machine: Machine,
    prompt: usize,
    tail: usize,
    softcap: Option<f32>,
) {
    const BUDGET: usize = 17;
    const STEPS: usize = 40;
    let seed: u64 = rand::random();
    let config = CacheConfig::new("h2o").budget(Budget::Tokens(BUDGET));
    let mut host = Host::on(machine, config.prompt_tail(tail), DType::F32, seed);
    host.softcap = softcap;
    let mut sequences = [remembered(3)];
    let read = host.pass(&mut sequences, prompt, true);
    let steps: Vec<_> = (0..STEPS)
        .map(|_| host.pass(&mut sequences, 1, false))
        .collect();
    let paper = Paper {
        sequence: &sequences[0],
        softcap,
    };
    let mut most = 0;
    for (layer, head) in (0..LAYERS).flat_map(|layer| (0..HEADS).map(move |head| (layer, head))) {
        let dense = prompt - tail;
        let mut model = paper.after_prompt(layer, head, dense);
        for token in dense..prompt + STEPS {
            let wanted = paper.step(layer, head, token, &mut model);
            most = most.max(model.held.len());
            for (group, want) in wanted.iter().enumerate() {
                let query_head = head * GROUP + group;
                let row = match token.checked_sub(prompt) {
                    None => &read[layer].output[(query_head * prompt + token) * DIM..][..DIM],
                    Some(step) => &steps[step][layer].output[query_head * DIM..][..DIM],
                };
                let error = relative_error(row, want);
                assert!(
                    error <= 1e-5,
                    "token {token}, layer {layer}, head {head}: {error} (prompt {prompt}, tail {tail}, {softcap:?}, seed {seed})"
                );
            }
        }
    }
    assert_eq!(most, BUDGET - 1, "evictions were met");
}

/// Prompts of different lengths in one padded batch are compressed as each would be alone.
fn padding_is_never_observed(machine: Machine) {
    for policy in ["h2o", "ada-kv", "snap-kv"] {
        let config = CacheConfig::new(policy).budget(Budget::Tokens(40));
        let seed: u64 = rand::random();
        let lens = [70, 45];
        let together =
            Host::on(machine, config.clone(), DType::F32, seed).padded(&lens, seed, &[0, 1]);
        for (index, output) in together.iter().enumerate() {
            let alone =
                Host::on(machine, config.clone(), DType::F32, seed).padded(&lens, seed, &[index]);
            assert_eq!(
                &alone[0], output,
                "{policy}, sequence {index} (seed {seed})"
            );
        }
    }
}

on_each_machine! {
    nothing_is_computed_that_nobody_named: nothing_is_computed_that_the_policy_did_not_name;
    a_tail_reads_what_was_kept: a_tail_is_read_through_what_was_kept;
    a_prompt_without_a_tail_is_dense: without_a_tail_the_prompt_is_dense;
    h2o_is_the_papers: |machine| h2o_attends_to_what_the_paper_keeps(machine, 40, 0, None);
    h2o_is_the_papers_under_a_soft_cap: |machine| {
        h2o_attends_to_what_the_paper_keeps(machine, 40, 0, Some(2.0));
    };
    h2o_is_the_papers_over_a_prompts_tail: |machine| {
        h2o_attends_to_what_the_paper_keeps(machine, 46, 9, None);
    };
    // Such a prompt comes to the runtime as a decode step.
    h2o_is_the_papers_after_a_prompt_of_one_token: |machine| {
        h2o_attends_to_what_the_paper_keeps(machine, 1, 0, None);
    };
    no_padding_is_observed: padding_is_never_observed;
    duo_attention_streams_its_prompt: streaming_heads_see_sinks_and_a_window;
}

/// Whoever watches is told of every decoded token, layer by layer, how each query head weighs all tokens before it, of every sequence of a
/// batch; the attention is what it is when nobody watches.
#[test]
fn rows_are_told_of_every_query_head() {
    const PROMPT: usize = 30;
    const STEPS: usize = 3;
    let seed: u64 = rand::random();
    let run = |watched: bool| {
        let mut host = Host::new(CacheConfig::new("keep-all"), DType::F32, seed);
        let told: Arc<Mutex<Vec<Told>>> = Arc::default();
        if watched {
            let told = told.clone();
            host.runtime.watch_rows(move |seen| {
                let told = &mut told.lock().expect("one thread");
                told.push((seen.layer, seen.position, seen.rows.to_vec()));
            });
        }
        let mut sequences = [remembered(1), remembered(2)];
        host.pass(&mut sequences, PROMPT, true);
        let mut out = Vec::new();
        for _ in 0..STEPS {
            let steps = host.pass(&mut sequences, 1, false);
            out.extend(steps.into_iter().map(|step| step.output));
        }
        host.runtime.stop_watching();
        host.pass(&mut sequences, 1, false);
        let told = told.lock().expect("one thread").clone();
        (out, told, sequences)
    };
    let (out, told, sequences) = run(true);
    assert_eq!(run(false).0, out, "seed {seed}");
    assert_eq!(told.len(), STEPS * LAYERS * sequences.len());
    for (index, (layer, position, rows)) in told.iter().enumerate() {
        let sequence = &sequences[index % sequences.len()];
        let step = index / (LAYERS * sequences.len());
        assert_eq!((*position, rows.len()), (PROMPT + step, HEADS * GROUP));
        for (head, row) in rows.iter().enumerate() {
            let query = &sequence.queries[*layer][head][position * DIM..(position + 1) * DIM];
            let keys = &sequence.keys[*layer][head / GROUP][..(position + 1) * DIM];
            let wanted = oracle::attention_row(keys, query, DIM, SCALE, None, Reduce::Mean);
            assert_eq!(row.len(), wanted.len());
            for (found, wanted) in row.iter().zip(wanted) {
                let off = (f64::from(*found) - wanted).abs();
                assert!(
                    off <= 1e-5 * wanted.max(1e-3),
                    "seed {seed}: {found} instead of {wanted}"
                );
            }
        }
    }
}

/// Layer, position and rows.
type Told = (usize, usize, Vec<Vec<f32>>);

/// Where rows cannot be told, a token fails instead of being passed over.
#[test]
fn nobody_watches_a_device_or_positions_of_the_cache() {
    let relative = CacheConfig::new("streaming-llm")
        .budget(Budget::Tokens(16))
        .set("positions", "cache-relative");
    for (machine, config, wanted) in [
        (
            Machine::EmulatedGpu,
            CacheConfig::new("keep-all"),
            "in the host's memory only",
        ),
        (Machine::Cpu, relative, "of positions in the text only"),
    ] {
        let mut host = Host::on(machine, config, DType::F32, 1);
        let mut sequence = [remembered(1)];
        host.pass(&mut sequence, 20, true);
        host.runtime.watch_rows(|_| ());
        let fails = std::panic::AssertUnwindSafe(|| host.pass(&mut sequence, 1, false));
        let panic = std::panic::catch_unwind(fails).err().expect("fails");
        let text = panic.downcast_ref::<String>().expect("a text");
        assert!(text.contains(wanted), "{text}");
    }
}
