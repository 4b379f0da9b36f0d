//! The runtime driven through the hook by a host that is not the engine.
use std::sync::Arc;

use attention_kernels::oracle;
use candle_core::{DType, Device, Tensor, TensorId};
use kv_hook::{Batch, Handle, KvRuntime, LayerCall, LayerSpec, PoolSpec, RotationTables};
use mistralrs_kv::{CacheConfig, KvDtype, Runtime};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::gpu::EmulatedGpu;

pub(crate) const LAYERS: usize = 2;
pub(crate) const HEADS: usize = 3;
pub(crate) const GROUP: usize = 2;
pub(crate) const DIM: usize = 64;
pub(crate) const SCALE: f32 = 0.125;

// ANCHOR: spec
pub(crate) fn spec(dtype: DType) -> PoolSpec {
    let layer = LayerSpec {
        kv_heads: HEADS,
        key_dim: DIM,
        value_dim: DIM,
        own_cache: true,
        device: Device::Cpu,
    };
    PoolSpec {
        blocks: 64,
        block: 16,
        query_heads: HEADS * GROUP,
        latent: false,
        max_positions: 1024,
        dtype,
        layers: vec![layer; LAYERS],
    }
}
// ANCHOR_END: spec

/// One sequence as this host remembers it: every token's queries, `[L][H * G][T * D]`, keys and values,
/// `[L][H][T * D]`.
pub(crate) struct Remembered {
    pub(crate) id: usize,
    pub(crate) queries: Vec<Vec<Vec<f32>>>,
    pub(crate) keys: Vec<Vec<Vec<f32>>>,
    pub(crate) values: Vec<Vec<Vec<f32>>>,
    pub(crate) length: usize,
    /// Where the engine thought that each token stood, `[T]`.
    pub(crate) places: Vec<usize>,
}

/// Where a runtime's pages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
    /// In the host's memory.
    Cpu,
    /// In the memory of a machine that interprets the CUDA kernels.
    EmulatedGpu,
}

/// Makes a test of every line for each machine.
#[allow(unused_macros, reason = "not every test program has such tests")]
macro_rules! on_each_machine {
    ($($name:ident: $test:expr;)+) => {
        mod cpu {
            use super::*;
            $(#[test] fn $name() { let test: fn(Machine) = $test; test(Machine::Cpu); })+
        }
        mod emulated_gpu {
            use super::*;
            $(#[test] fn $name() { let test: fn(Machine) = $test; test(Machine::EmulatedGpu); })+
        }
    };
}
#[allow(unused_imports, reason = "as above")]
pub(crate) use on_each_machine;

/// Tokens that are numbered from 0 on in each of some sequences, `[S, T]`.
fn numbered(sequences: usize, tokens: usize) -> Tensor {
    let row = 0..u32::try_from(tokens).expect("a few tokens");
    let all: Vec<u32> = (0..sequences).flat_map(|_| row.clone()).collect();
    Tensor::from_vec(all, (sequences, tokens), &Device::Cpu).expect("a tensor")
}

/// The tables of `RoPE` for so many positions, as an engine would have them: the first `2 * pairs` dimensions of a head are turned.
pub(crate) fn rotation(positions: usize, pairs: usize, is_adjacent: bool) -> RotationTables {
    let angle = |i: usize| {
        let (position, pair) = (i / pairs, i % pairs);
        position as f64 / 10_000_f64.powf(pair as f64 / pairs as f64)
    };
    #[expect(clippy::cast_possible_truncation, reason = "a sine, rounded once")]
    let table = |f: fn(f64) -> f64| {
        let numbers = (0..positions * pairs).map(|i| f(angle(i)) as f32);
        let numbers: Vec<f32> = numbers.collect();
        Tensor::from_vec(numbers, (positions, pairs), &Device::Cpu).expect("a tensor")
    };
    RotationTables {
        cos: table(f64::cos),
        sin: table(f64::sin),
        is_adjacent,
    }
}

/// The cache in the type of the activations, so that what is attended to is what was given.
pub(crate) fn stored_as(dtype: DType, config: CacheConfig) -> CacheConfig {
    config.cache_dtype(match dtype {
        DType::F16 => KvDtype::F16,
        DType::BF16 => KvDtype::Bf16,
        _ => KvDtype::F32,
    })
}

/// A host with random activations.
pub(crate) struct Host {
    pub(crate) runtime: Arc<Runtime>,
    /// Cap on the logits of every layer.
    pub(crate) softcap: Option<f32>,
    /// Whether it says that its prompts' mask is the plain causal one.
    pub(crate) is_causal: bool,
    /// Tokens of its prompts that later passes read.
    pub(crate) to_come: usize,
    /// How its layers say that they turn queries and keys.
    pub(crate) rotation: Option<RotationTables>,
    caches: Vec<TensorId>,
    rng: ChaCha8Rng,
    dtype: DType,
    // Kept, for a tensor's id lives as long as the tensor.
    _names: Vec<(Tensor, Tensor)>,
}

impl Host {
    pub(crate) fn new(config: CacheConfig, dtype: DType, seed: u64) -> Self {
        Self::over(Runtime::new(stored_as(dtype, config)), dtype, seed)
    }

    /// A host whose pages are on this machine.
    pub(crate) fn on(machine: Machine, config: CacheConfig, dtype: DType, seed: u64) -> Self {
        match machine {
            Machine::Cpu => Self::new(config, dtype, seed),
            Machine::EmulatedGpu => {
                let config = stored_as(dtype, config);
                let runtime = Runtime::on_device(config, EmulatedGpu::new());
                Self::over(runtime, dtype, seed)
            }
        }
    }

    // ANCHOR: open
    /// A host over a runtime that has not been opened.
    pub(crate) fn over(runtime: Arc<Runtime>, dtype: DType, seed: u64) -> Self {
        Self::of(&spec(dtype), runtime, seed)
    }

    /// A host of this shape.
    pub(crate) fn of(spec: &PoolSpec, runtime: Arc<Runtime>, seed: u64) -> Self {
        let names = runtime.open_pool(spec).expect("the pool opens");
        let caches = names.iter().map(|(key, _)| key.id()).collect();
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self {
            runtime,
            softcap: None,
            is_causal: true,
            to_come: 0,
            rotation: Some(rotation(spec.max_positions, DIM / 2, false)),
            caches,
            rng,
            dtype: spec.dtype,
            _names: names,
        }
    }
    // ANCHOR_END: open

    /// A random tensor in the host's type, and its numbers as that type holds them.
    fn random(&mut self, shape: (usize, usize, usize, usize)) -> (Tensor, Vec<f32>) {
        let (s, h, t, d) = shape;
        let numbers: Vec<f32> = (0..s * h * t * d)
            .map(|_| self.rng.random_range(-2.0..2.0))
            .collect();
        let tensor = Tensor::from_vec(numbers, shape, &Device::Cpu).expect("a tensor");
        let tensor = tensor.to_dtype(self.dtype).expect("converts");
        let held = tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all());
        (tensor, held.and_then(|t| t.to_vec1()).expect("reads back"))
    }

    /// Reads the prompts `of` those with `lens` in one padded batch, decodes a token of each, and returns each sequence's
    /// attention of that step in the last layer. The same seed makes the same prompts; the padding is no number.
    pub(crate) fn padded(self, lens: &[usize], seed: u64, of: &[usize]) -> Vec<Vec<f32>> {
        let longest = of.iter().map(|&index| lens[index]).max().expect("some");
        let mut last = Vec::new();
        for (tokens, first) in [(longest, true), (1, false)] {
            for layer in 0..LAYERS {
                let fill = |kind: u64, heads: usize| {
                    let mut numbers = Vec::new();
                    for &index in of {
                        let new = if first { lens[index] } else { 1 };
                        let stream = (index as u64) << 32 | (layer as u64) << 8 | kind;
                        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ stream ^ u64::from(first));
                        for _ in 0..heads {
                            let row = (0..new * DIM).map(|_| rng.random_range(-2.0..2.0_f32));
                            numbers.extend(row);
                            numbers.resize(numbers.len() + (tokens - new) * DIM, f32::NAN);
                        }
                    }
                    Tensor::from_vec(numbers, (of.len(), heads, tokens, DIM), &Device::Cpu)
                        .expect("a tensor")
                };
                let (queries, keys, values) =
                    (fill(1, HEADS * GROUP), fill(2, HEADS), fill(3, HEADS));
                let new = |&index: &usize| if first { lens[index] } else { 1 };
                let start = |&index: &usize| if first { 0 } else { lens[index] };
                let batch = Batch {
                    runtime: Handle::new(self.runtime.clone()),
                    seq_ids: of.to_vec(),
                    is_prompt: first,
                    positions: of.iter().map(start).collect(),
                    new_lens: of.iter().map(new).collect(),
                    tokens: numbered(of.len(), tokens),
                    to_come: 0,
                };
                for &index in of {
                    let room = self.runtime.reserve(index, start(&index) + new(&index));
                    room.expect("the pool has room");
                }
                let call = LayerCall {
                    cache: self.caches[layer],
                    batch: &batch,
                    queries: &queries,
                    keys: &keys,
                    values: &values,
                    softmax_scale: SCALE,
                    softcap: None,
                    sliding_window: None,
                    is_causal: false,
                    rotation: None,
                };
                if first {
                    let dense = self.runtime.prompt(&call, &|| Ok(queries.clone()));
                    dense.expect("the prompts are kept");
                } else {
                    let out = self.runtime.decode(&call).expect("a decode step");
                    let out = out.flatten_all().and_then(|t| t.to_vec1::<f32>());
                    let out = out.expect("reads back");
                    let one = HEADS * GROUP * DIM;
                    last = out.chunks_exact(one).map(<[f32]>::to_vec).collect();
                    assert!(last.iter().flatten().all(|x| x.is_finite()));
                }
            }
        }
        last
    }

    /// One pass over all layers for sequences of equal new length; returns each layer's attention. A prompt's dense
    /// attention is made of ones, so that what the runtime puts in its place is seen.
    pub(crate) fn pass(
        &mut self,
        sequences: &mut [Remembered],
        new: usize,
        is_prompt: bool,
    ) -> Vec<Step> {
        // ANCHOR: batch
        let batch = Batch {
            runtime: Handle::new(self.runtime.clone()),
            seq_ids: sequences.iter().map(|sequence| sequence.id).collect(),
            is_prompt,
            positions: sequences.iter().map(|sequence| sequence.length).collect(),
            new_lens: vec![new; sequences.len()],
            tokens: numbered(sequences.len(), new),
            to_come: self.to_come,
        };
        for sequence in sequences.iter_mut() {
            sequence.length += new;
            self.runtime
                .reserve(sequence.id, sequence.length + self.to_come)
                .expect("the pool has room");
        }
        // ANCHOR_END: batch
        let mut places = batch.positions.clone();
        let placed = self.runtime.place(&batch.seq_ids, new, &mut places);
        placed.expect("the text has room");
        for (sequence, place) in sequences.iter_mut().zip(places) {
            sequence.places.extend(place..place + new);
        }
        let mut steps = Vec::new();
        for layer in 0..LAYERS {
            let (queries, query_numbers) = self.random((sequences.len(), HEADS * GROUP, new, DIM));
            let (keys, key_numbers) = self.random((sequences.len(), HEADS, new, DIM));
            let (values, value_numbers) = self.random((sequences.len(), HEADS, new, DIM));
            for (index, sequence) in sequences.iter_mut().enumerate() {
                for head in 0..HEADS * GROUP {
                    let first = (index * HEADS * GROUP + head) * new * DIM;
                    sequence.queries[layer][head].extend(&query_numbers[first..first + new * DIM]);
                }
                for head in 0..HEADS {
                    let rows =
                        (index * HEADS + head) * new * DIM..(index * HEADS + head + 1) * new * DIM;
                    sequence.keys[layer][head].extend(&key_numbers[rows.clone()]);
                    sequence.values[layer][head].extend(&value_numbers[rows]);
                }
            }
            // ANCHOR: layer
            let call = LayerCall {
                cache: self.caches[layer],
                batch: &batch,
                queries: &queries,
                keys: &keys,
                values: &values,
                softmax_scale: SCALE,
                softcap: self.softcap,
                sliding_window: None,
                is_causal: self.is_causal,
                rotation: self.rotation.clone(),
            };
            let out = if new > 1 {
                let dense = || call.queries.ones_like();
                let out = self
                    .runtime
                    .prompt(&call, &dense)
                    .expect("the prompt is kept");
                assert_eq!(out.dims(), [sequences.len(), HEADS * GROUP, new, DIM]);
                out
            } else {
                let out = self.runtime.decode(&call).expect("a decode step");
                assert_eq!(out.dims(), [sequences.len(), HEADS * GROUP, DIM]);
                out
            };
            // ANCHOR_END: layer
            let out = out.to_dtype(DType::F32).and_then(|t| t.flatten_all());
            let output = out.and_then(|t| t.to_vec1()).expect("reads back");
            steps.push(Step {
                queries: query_numbers,
                output,
            });
        }
        steps
    }
}

/// Queries and attention of one layer's pass, `[S, H * G, T, D]`.
pub(crate) struct Step {
    pub(crate) queries: Vec<f32>,
    pub(crate) output: Vec<f32>,
}

pub(crate) fn remembered(id: usize) -> Remembered {
    let empty = |heads: usize| vec![vec![Vec::new(); heads]; LAYERS];
    Remembered {
        id,
        queries: empty(HEADS * GROUP),
        keys: empty(HEADS),
        values: empty(HEADS),
        length: 0,
        places: Vec::new(),
    }
}

/// The oracle's attention over the positions in `kept`.
pub(crate) fn expected(
    sequence: &Remembered,
    layer: usize,
    head: usize,
    kept: &[usize],
    query: &[f32],
) -> Vec<f64> {
    let rows = |all: &[f32]| -> Vec<f32> {
        kept.iter()
            .flat_map(|&position| &all[position * DIM..(position + 1) * DIM])
            .copied()
            .collect()
    };
    let keys = rows(&sequence.keys[layer][head]);
    let values = rows(&sequence.values[layer][head]);
    oracle::attend(&keys, &values, query, SCALE, None)
}

pub(crate) fn relative_error(got: &[f32], want: &[f64]) -> f64 {
    let difference: f64 = got
        .iter()
        .zip(want)
        .map(|(g, w)| (f64::from(*g) - w).powi(2))
        .sum();
    let norm: f64 = want.iter().map(|w| w * w).sum();
    // Random values nearly cancel now and then; a tenth of a typical value's norm keeps the measure sound.
    difference.sqrt()
        / norm
            .sqrt()
            .max(0.1 * f64::from(u32::try_from(DIM).expect("small")).sqrt())
}
