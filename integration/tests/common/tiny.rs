//! A tiny Llama with random 32-bit weights and a tokenizer of single letters, written as a GGUF file.
use std::{fs::File, path::Path};

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file, gguf_file::Value},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const LAYERS: u32 = 2;
const QUERY_HEADS: u32 = 4;
const KV_HEADS: u32 = 2;
const HEAD_DIM: u32 = 16;
const HIDDEN: u32 = QUERY_HEADS * HEAD_DIM;
const FEED_FORWARD: u32 = 128;
const CONTEXT: u32 = 4096;

/// Tokens of the vocabulary.
pub(crate) const VOCABULARY: u32 = 64;

/// Writes the model for `seed`.
pub(crate) fn write(path: &Path, seed: u64) {
    write_layers(path, seed, LAYERS);
}

/// Writes the model with so many layers.
pub(crate) fn write_layers(path: &Path, seed: u64, layers: u32) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut tensors = vec![
        (
            "token_embd.weight".to_owned(),
            random(&mut rng, &[VOCABULARY, HIDDEN], 1.0),
        ),
        (
            "output.weight".to_owned(),
            random(&mut rng, &[VOCABULARY, HIDDEN], 0.5),
        ),
        (
            "output_norm.weight".to_owned(),
            random(&mut rng, &[HIDDEN], 1.0),
        ),
    ];
    for layer in 0..layers {
        let shapes: [(&str, &[u32]); 9] = [
            ("attn_q", &[HIDDEN, HIDDEN]),
            ("attn_k", &[KV_HEADS * HEAD_DIM, HIDDEN]),
            ("attn_v", &[KV_HEADS * HEAD_DIM, HIDDEN]),
            ("attn_output", &[HIDDEN, HIDDEN]),
            ("ffn_gate", &[FEED_FORWARD, HIDDEN]),
            ("ffn_up", &[FEED_FORWARD, HIDDEN]),
            ("ffn_down", &[HIDDEN, FEED_FORWARD]),
            ("attn_norm", &[HIDDEN]),
            ("ffn_norm", &[HIDDEN]),
        ];
        for (name, shape) in shapes {
            tensors.push((
                format!("blk.{layer}.{name}.weight"),
                random(&mut rng, shape, 0.3),
            ));
        }
    }
    let metadata = metadata(layers);
    let metadata: Vec<(&str, &Value)> = metadata
        .iter()
        .map(|(name, value)| (*name, value))
        .collect();
    let tensors: Vec<(&str, &QTensor)> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let mut file = File::create(path).expect("creates the model's file");
    gguf_file::write(&mut file, &metadata, &tensors).expect("writes the model");
}

fn random(rng: &mut ChaCha8Rng, shape: &[u32], scale: f32) -> QTensor {
    let dims: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
    let values: Vec<f32> = (0..dims.iter().product())
        .map(|_| rng.random_range(-scale..scale))
        .collect();
    let tensor = Tensor::from_vec(values, dims, &Device::Cpu).expect("a tensor");
    QTensor::quantize(&tensor, GgmlDType::F32).expect("32 bits")
}

fn metadata(layers: u32) -> Vec<(&'static str, Value)> {
    let letters = ('a'..='z')
        .chain('A'..='Z')
        .chain('0'..='8')
        .map(String::from);
    let tokens: Vec<Value> = letters
        .chain(["ab", "Ġ", "<eos>"].map(String::from))
        .map(Value::String)
        .collect();
    assert_eq!(tokens.len(), VOCABULARY as usize, "the vocabulary is full");
    vec![
        ("general.architecture", Value::String("llama".into())),
        ("llama.attention.head_count", Value::U32(QUERY_HEADS)),
        ("llama.attention.head_count_kv", Value::U32(KV_HEADS)),
        ("llama.block_count", Value::U32(layers)),
        ("llama.embedding_length", Value::U32(HIDDEN)),
        ("llama.feed_forward_length", Value::U32(FEED_FORWARD)),
        ("llama.rope.dimension_count", Value::U32(HEAD_DIM)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama.context_length", Value::U32(CONTEXT)),
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.tokens", Value::Array(tokens)),
        (
            "tokenizer.ggml.merges",
            Value::Array(vec![Value::String("a b".into())]),
        ),
        ("tokenizer.ggml.eos_token_id", Value::U32(VOCABULARY - 1)),
    ]
}
