//! Two tiny models with random weights, so that tests start an engine in no time and with more than one architecture.
//!
//! Each is a folder as Hugging Face has them. They say nothing that means anything, but every part of a real model is
//! there: several layers, query heads that share KV heads, a tokenizer that takes any text, a chat template.

mod tokenizer;
mod weights;

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use crate::workspace::{Workspace, write_if_different};

/// What the two do not have in common.
#[derive(Debug)]
struct Model {
    name: &'static str,
    architecture: &'static str,
    model_type: &'static str,
    layers: usize,
    hidden: usize,
    query_heads: usize,
    kv_heads: usize,
    /// Whether the projections to queries, keys and values add something.
    biased: bool,
    seed: u64,
}

const LLAMA: Model = Model {
    name: "tiny-llama",
    architecture: "LlamaForCausalLM",
    model_type: "llama",
    layers: 4,
    hidden: 128,
    query_heads: 4,
    kv_heads: 2,
    biased: false,
    seed: 1,
};

const QWEN2: Model = Model {
    name: "tiny-qwen2",
    architecture: "Qwen2ForCausalLM",
    model_type: "qwen2",
    layers: 3,
    hidden: 96,
    query_heads: 6,
    kv_heads: 2,
    biased: true,
    seed: 2,
};

const INTERMEDIATE: usize = 256;
/// Tokens of prompt and answer together.
const CONTEXT: usize = 2048;

impl Model {
    fn head_dim(&self) -> usize {
        self.hidden / self.query_heads
    }

    fn config(&self) -> Value {
        let mut config = json!({
            "architectures": [self.architecture],
            "attention_dropout": 0.0,
            "eos_token_id": tokenizer::END_OF_TURN,
            "head_dim": self.head_dim(),
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": INTERMEDIATE,
            "max_position_embeddings": CONTEXT,
            "model_type": self.model_type,
            "num_attention_heads": self.query_heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "tie_word_embeddings": false,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": tokenizer::VOCABULARY,
        });
        // Qwen2 always has biases and says nothing of them. Its `sliding_window` stays out: the engine follows it even
        // where it is not used.
        let (field, value) = match self.biased {
            true => ("use_sliding_window", false),
            false => ("attention_bias", false),
        };
        config[field] = json!(value);
        config
    }

    /// Every file of the folder.
    fn files(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let mut files = vec![("model.safetensors", weights::of(self)?)];
        for (name, value) in [
            ("config.json", self.config()),
            ("generation_config.json", tokenizer::generation_config()),
            ("tokenizer.json", tokenizer::tokenizer()),
            ("tokenizer_config.json", tokenizer::config(CONTEXT)),
        ] {
            files.push((name, format!("{value:#}\n").into_bytes()));
        }
        Ok(files)
    }
}

/// Makes both models and returns their folders; writes nothing that is there already.
///
/// The caller holds the lock of the checkout.
pub(crate) fn ensure(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for model in [LLAMA, QWEN2] {
        let folder = workspace.models().join(model.name);
        let mut written = 0;
        for (name, bytes) in model.files()? {
            written += usize::from(write_if_different(&folder.join(name), &bytes)?);
        }
        println!(
            "model: ready {} (random weights, {written} files written)",
            workspace.short(&folder)
        );
        folders.push(folder);
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use candle_core::{DType, Device, Tensor};
    use sha2::{Digest, Sha256};

    use super::*;

    fn file(model: &Model, name: &str) -> Vec<u8> {
        let files = model.files().unwrap();
        files.into_iter().find(|file| file.0 == name).unwrap().1
    }

    /// What Hugging Face's classes of this configuration load: name, shape.
    fn expected(config: &Value) -> BTreeMap<String, Vec<usize>> {
        let number = |field: &str| usize::try_from(config[field].as_u64().unwrap()).unwrap();
        let (hidden, vocabulary) = (number("hidden_size"), number("vocab_size"));
        let inner = number("intermediate_size");
        let queries = number("num_attention_heads") * number("head_dim");
        let keys = number("num_key_value_heads") * number("head_dim");
        let mut all = BTreeMap::from([
            (
                "model.embed_tokens.weight".to_owned(),
                vec![vocabulary, hidden],
            ),
            ("model.norm.weight".to_owned(), vec![hidden]),
            ("lm_head.weight".to_owned(), vec![vocabulary, hidden]),
        ]);
        for layer in 0..number("num_hidden_layers") {
            let mut add = |name: &str, shape: &[usize]| {
                all.insert(format!("model.layers.{layer}.{name}"), shape.to_vec());
            };
            add("input_layernorm.weight", &[hidden]);
            add("post_attention_layernorm.weight", &[hidden]);
            add("self_attn.q_proj.weight", &[queries, hidden]);
            add("self_attn.k_proj.weight", &[keys, hidden]);
            add("self_attn.v_proj.weight", &[keys, hidden]);
            add("self_attn.o_proj.weight", &[hidden, queries]);
            if config["model_type"] == "qwen2" {
                add("self_attn.q_proj.bias", &[queries]);
                add("self_attn.k_proj.bias", &[keys]);
                add("self_attn.v_proj.bias", &[keys]);
            }
            add("mlp.gate_proj.weight", &[inner, hidden]);
            add("mlp.up_proj.weight", &[inner, hidden]);
            add("mlp.down_proj.weight", &[hidden, inner]);
        }
        all
    }

    /// Mean and standard deviation.
    fn spread(tensor: &Tensor) -> (f32, f32) {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        let n = values.len() as f32;
        let mean = values.iter().sum::<f32>() / n;
        let square = |value: &f32| (value - mean).powi(2);
        (mean, (values.iter().map(square).sum::<f32>() / n).sqrt())
    }

    #[test]
    fn tensors_are_those_of_the_configuration() {
        for model in [LLAMA, QWEN2] {
            let config: Value = serde_json::from_slice(&file(&model, "config.json")).unwrap();
            let bytes = file(&model, "model.safetensors");
            let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
            let found: BTreeMap<_, _> = tensors
                .iter()
                .map(|(name, tensor)| (name.clone(), tensor.dims().to_vec()))
                .collect();
            assert_eq!(found, expected(&config), "{}", model.name);
            for (name, tensor) in &tensors {
                assert_eq!(tensor.dtype(), DType::F32, "{name}");
                let (mean, deviation) = spread(tensor);
                let gain = if name.contains("q_proj") { 3.0 } else { 1.0 };
                let wanted = match tensor.dims() {
                    [_] if name.ends_with("norm.weight") => 0.1,
                    [_] => 0.5 * gain,
                    _ if name == "model.embed_tokens.weight" => 1.0,
                    // Checked by itself.
                    _ if name == "lm_head.weight" => continue,
                    shape => gain / (shape[1] as f32).sqrt(),
                };
                let centre = if name.ends_with("norm.weight") {
                    1.0
                } else {
                    0.0
                };
                // Five standard errors, of the mean and (half as large again) of the deviation.
                let error = 5.0 * wanted / (tensor.elem_count() as f32).sqrt();
                assert!((mean - centre).abs() < error, "{name}: mean {mean}");
                assert!((deviation - wanted).abs() < error, "{name}: {deviation}");
            }
        }
    }

    #[test]
    fn logits_are_spread_over_text_and_narrow_elsewhere() {
        for model in [LLAMA, QWEN2] {
            let bytes = file(&model, "model.safetensors");
            let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap();
            // What enters has entries around 1, so a row's length is the deviation of its logit.
            let head = tensors["lm_head.weight"].sqr().unwrap();
            let length = head.sum(1).unwrap().sqrt().unwrap();
            for (token, length) in length.to_vec1::<f32>().unwrap().into_iter().enumerate() {
                let is_text = matches!(token, 10 | 32..=126);
                let wanted = if is_text { 2.0 } else { 0.2 };
                assert!(
                    (length / wanted - 1.0).abs() < 0.4,
                    "token {token}: {length}"
                );
            }
        }
    }

    #[test]
    fn same_bytes_on_every_machine() {
        for (model, wanted) in [
            (
                LLAMA,
                "e0bf2b75976d057a4d4ae40deb8bc148f6729da4fbc2a5795223602cf2d24022",
            ),
            (
                QWEN2,
                "1589d66e612fd88397b46865d7afaba0eee2cc574d0a77761eb24b8a8c6bc165",
            ),
        ] {
            let hash = Sha256::digest(file(&model, "model.safetensors"));
            let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hash, wanted, "{}", model.name);
        }
    }

    #[test]
    fn second_making_writes_nothing_and_a_damaged_file_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(folder.path());
        let folders = ensure(&workspace).unwrap();
        let path = |index: usize| folders[index].join("model.safetensors");
        let bytes = fs::read(path(0)).unwrap();
        fs::write(path(0), &bytes[..bytes.len() - 1]).unwrap();
        let before = fs::metadata(path(1)).unwrap().modified().unwrap();
        assert_eq!(ensure(&workspace).unwrap(), folders);
        assert!(fs::read(path(0)).unwrap() == bytes);
        assert_eq!(fs::metadata(path(1)).unwrap().modified().unwrap(), before);
    }
}
