//! Models as Hugging Face has them.
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use candle_core::{Device, Tensor};
use serde_json::Value;

use super::{DTYPE, Layer, Linear, Model, Shape, other_kind};
use crate::ProfileError;

const CONFIG: &str = "config.json";
/// Values of `model_type` that are a Llama.
const KNOWN: [&str; 3] = ["llama", "mistral", "qwen2"];

/// Reads a folder's `config.json` and all its safetensors.
pub(super) fn load(folder: &Path) -> Result<Model, ProfileError> {
    let path = folder.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(|error| ProfileError::file(&path, error))?;
    let config = Config {
        fields: serde_json::from_str(&text).map_err(|error| ProfileError::file(&path, error))?,
        path,
    };
    let shape = config.shape()?;
    shape.check(&config.path)?;
    let tensors = Tensors::read(folder)?;
    let layers = (0..shape.layers).map(|index| tensors.layer(index));
    let layers = layers.collect::<Result<_, _>>()?;
    let embedding = tensors.get("model.embed_tokens.weight")?;
    let output = match tensors.all.contains_key("lm_head.weight") {
        true => tensors.get("lm_head.weight")?,
        false => embedding.clone(),
    };
    Ok(Model {
        norm: tensors.get("model.norm.weight")?,
        embedding,
        layers,
        output,
        factors: None,
        shape,
    })
}

struct Config {
    path: PathBuf,
    fields: Value,
}

impl Config {
    fn shape(&self) -> Result<Shape, ProfileError> {
        let kind = self.fields["model_type"].as_str().unwrap_or("missing");
        if !KNOWN.contains(&kind) {
            return Err(other_kind(
                &self.path,
                "`model_type`",
                kind,
                &KNOWN.join(", "),
            ));
        }
        // Qwen2 names a window that it does not use.
        let unused = self.fields["use_sliding_window"] == false;
        for field in ["rope_scaling", "rope_parameters", "sliding_window"] {
            let found = &self.fields[field];
            let is_unused = found.is_null() || unused && field == "sliding_window";
            if !is_unused {
                return Err(other_kind(&self.path, &format!("`{field}`"), found, "none"));
            }
        }
        let activation = self.fields["hidden_act"].as_str().unwrap_or("silu");
        if activation != "silu" {
            return Err(other_kind(&self.path, "`hidden_act`", activation, "silu"));
        }
        let heads = self.number("num_attention_heads")?;
        let kv_heads = self.number("num_key_value_heads").unwrap_or(heads);
        let head_dim = match self.number("head_dim") {
            Ok(dim) => dim,
            Err(_) => self.number("hidden_size")? / heads.max(1),
        };
        Ok(Shape {
            layers: self.number("num_hidden_layers")?,
            kv_heads,
            group: heads.checked_div(kv_heads).unwrap_or(0),
            head_dim,
            max_positions: self.number("max_position_embeddings")?,
            eps: self.fields["rms_norm_eps"].as_f64().unwrap_or(1e-6),
            rope_theta: self.fields["rope_theta"].as_f64().unwrap_or(10_000.0),
            is_adjacent: false,
        })
    }

    fn number(&self, field: &str) -> Result<usize, ProfileError> {
        let number = self.fields[field]
            .as_u64()
            .and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| {
            let found = &self.fields[field];
            other_kind(&self.path, &format!("`{field}`"), found, "a whole number")
        })
    }
}

struct Tensors {
    folder: PathBuf,
    all: HashMap<String, Tensor>,
}

impl Tensors {
    fn read(folder: &Path) -> Result<Self, ProfileError> {
        let wrong = |error: &dyn ToString| ProfileError::file(folder, error.to_string());
        let mut all = HashMap::new();
        for entry in fs::read_dir(folder).map_err(|error| wrong(&error))? {
            let path = entry.map_err(|error| wrong(&error))?.path();
            if path.extension().is_some_and(|end| end == "safetensors") {
                let tensors = candle_core::safetensors::load(&path, &Device::Cpu);
                all.extend(tensors.map_err(|error| ProfileError::file(&path, error))?);
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            all,
        })
    }

    fn get(&self, name: &str) -> Result<Tensor, ProfileError> {
        match self.all.get(name) {
            Some(tensor) => Ok(tensor.to_dtype(DTYPE)?),
            None => {
                let reason = format!("none of its safetensors has `{name}`");
                Err(ProfileError::file(&self.folder, reason))
            }
        }
    }

    fn layer(&self, index: usize) -> Result<Layer, ProfileError> {
        let full = |name: &str| format!("model.layers.{index}.{name}");
        let linear = |name: &str| {
            let bias = full(&format!("{name}.bias"));
            Ok::<_, ProfileError>(Linear {
                matrix: self.get(&full(&format!("{name}.weight")))?,
                bias: match self.all.contains_key(&bias) {
                    true => Some(self.get(&bias)?),
                    false => None,
                },
            })
        };
        Ok(Layer {
            attention_norm: self.get(&full("input_layernorm.weight"))?,
            queries: linear("self_attn.q_proj")?,
            keys: linear("self_attn.k_proj")?,
            values: linear("self_attn.v_proj")?,
            output: linear("self_attn.o_proj")?,
            mlp_norm: self.get(&full("post_attention_layernorm.weight"))?,
            gate: linear("mlp.gate_proj")?,
            up: linear("mlp.up_proj")?,
            down: linear("mlp.down_proj")?,
        })
    }
}
