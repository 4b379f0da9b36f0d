//! Models in llama.cpp's format.
use std::{fs::File, io::BufReader, path::Path};

use candle_core::{
    Device, Tensor,
    quantized::gguf_file::{Content, Value},
};

use super::{DTYPE, Layer, Linear, Model, Shape, other_kind};
use crate::ProfileError;

/// Architectures that are a Llama, and whether theirs turns neighbours.
const KNOWN: [(&str, bool); 2] = [("llama", true), ("qwen2", false)];

/// Reads a file, every weight of it in 32 bits.
pub(super) fn load(path: &Path) -> Result<Model, ProfileError> {
    let file = File::open(path).map_err(|error| ProfileError::file(path, error))?;
    let mut reader = BufReader::new(file);
    let content = Content::read(&mut reader)
        .map_err(|error| ProfileError::file(path, format!("no GGUF file: {error}")))?;
    let mut file = Gguf {
        path,
        reader,
        content,
    };
    let shape = file.shape()?;
    shape.check(path)?;
    let mut layers = Vec::with_capacity(shape.layers);
    for index in 0..shape.layers {
        layers.push(file.layer(index)?);
    }
    let embedding = file.tensor("token_embd.weight")?;
    let output = match file.has("output.weight") {
        true => file.tensor("output.weight")?,
        false => embedding.clone(),
    };
    let factors = match file.has("rope_freqs.weight") {
        true => Some(file.tensor("rope_freqs.weight")?.to_vec1()?),
        false => None,
    };
    Ok(Model {
        norm: file.tensor("output_norm.weight")?,
        embedding,
        layers,
        output,
        factors,
        shape,
    })
}

struct Gguf<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    content: Content,
}

impl Gguf<'_> {
    fn shape(&self) -> Result<Shape, ProfileError> {
        let arch = self.value("general.architecture")?.to_string();
        let arch = arch.map_err(|error| ProfileError::file(self.path, error))?;
        let Some((_, is_adjacent)) = KNOWN.into_iter().find(|(name, _)| name == arch) else {
            let allowed = KNOWN.map(|(name, _)| name).join(", ");
            return Err(other_kind(
                self.path,
                "`general.architecture`",
                arch,
                &allowed,
            ));
        };
        for key in ["expert_count", "attention.sliding_window"] {
            let key = format!("{arch}.{key}");
            if self.content.metadata.contains_key(&key) && self.number(&key)? != 0 {
                let found = self.number(&key)?;
                return Err(other_kind(self.path, &format!("`{key}`"), found, "none"));
            }
        }
        let scaling = format!("{arch}.rope.scaling.type");
        if let Some(Value::String(kind)) = self.content.metadata.get(&scaling)
            && kind != "none"
        {
            return Err(other_kind(self.path, &format!("`{scaling}`"), kind, "none"));
        }
        let of = |key: &str| self.number(&format!("{arch}.{key}"));
        let (heads, kv_heads) = (of("attention.head_count")?, of("attention.head_count_kv")?);
        let hidden = of("embedding_length")?;
        let head_dim = of("attention.key_length").unwrap_or(hidden / heads.max(1));
        Ok(Shape {
            layers: of("block_count")?,
            kv_heads,
            group: heads.checked_div(kv_heads).unwrap_or(0),
            head_dim,
            max_positions: of("context_length")?,
            eps: self.float(&format!("{arch}.attention.layer_norm_rms_epsilon"))?,
            rope_theta: self
                .float(&format!("{arch}.rope.freq_base"))
                .unwrap_or(10_000.0),
            is_adjacent,
        })
    }

    fn layer(&mut self, index: usize) -> Result<Layer, ProfileError> {
        let mut linear = |name: &str| {
            let bias = format!("blk.{index}.{name}.bias");
            Ok::<_, ProfileError>(Linear {
                matrix: self.tensor(&format!("blk.{index}.{name}.weight"))?,
                bias: match self.has(&bias) {
                    true => Some(self.tensor(&bias)?),
                    false => None,
                },
            })
        };
        Ok(Layer {
            queries: linear("attn_q")?,
            keys: linear("attn_k")?,
            values: linear("attn_v")?,
            output: linear("attn_output")?,
            gate: linear("ffn_gate")?,
            up: linear("ffn_up")?,
            down: linear("ffn_down")?,
            attention_norm: self.tensor(&format!("blk.{index}.attn_norm.weight"))?,
            mlp_norm: self.tensor(&format!("blk.{index}.ffn_norm.weight"))?,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    fn tensor(&mut self, name: &str) -> Result<Tensor, ProfileError> {
        let read = self
            .content
            .tensor(&mut self.reader, name, &Device::Cpu)
            .and_then(|tensor| tensor.dequantize(&Device::Cpu)?.to_dtype(DTYPE));
        read.map_err(|error| ProfileError::file(self.path, format!("tensor `{name}`: {error}")))
    }

    fn value(&self, key: &str) -> Result<&Value, ProfileError> {
        let value = self.content.metadata.get(key);
        value.ok_or_else(|| ProfileError::file(self.path, format!("`{key}` is missing")))
    }

    fn number(&self, key: &str) -> Result<usize, ProfileError> {
        match self.value(key)?.to_u64() {
            Ok(number) => Ok(usize::try_from(number).unwrap_or(usize::MAX)),
            Err(error) => Err(ProfileError::file(self.path, format!("`{key}`: {error}"))),
        }
    }

    fn float(&self, key: &str) -> Result<f64, ProfileError> {
        match self.value(key)?.to_f32() {
            Ok(number) => Ok(f64::from(number)),
            Err(error) => Err(ProfileError::file(self.path, format!("`{key}`: {error}"))),
        }
    }
}
