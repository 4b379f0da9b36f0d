//! What a policy may read of a model besides its activations: from the model's own files, for the engine has no field for it.
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{
    DType, Device, Result, Tensor,
    quantized::{QTensor, gguf_file},
};
use kv_core::{Geometry, TokenClass};
use serde_json::Value;

use crate::{
    StartError,
    model::{ModelFiles, Safetensors},
};

/// A token of this kind stands for no text, in GGUF's numbering.
const CONTROL: i64 = 3;

/// The output projections of a model's layers, as its file holds them.
#[derive(Debug)]
pub(crate) struct OutputProjections {
    /// `[L]`, each of shape `[E, H * G * D]`.
    layers: Vec<Weight>,
}

#[derive(Debug, Clone)]
enum Weight {
    Quantized(Arc<QTensor>),
    Plain(Tensor),
}

impl OutputProjections {
    /// Reads all of them.
    ///
    /// # Errors
    ///
    /// [`StartError::File`] if the file has none of the expected name and shape.
    pub(crate) fn read(
        files: &ModelFiles,
        geometry: &Geometry,
    ) -> std::result::Result<Self, StartError> {
        let heads = geometry.heads() / geometry.layers * geometry.group;
        let width = heads * geometry.head_dim;
        let layers = if files.is_gguf() {
            read_gguf(files.path(), geometry.layers)
        } else {
            read_safetensors(files.weights(), geometry.layers)
        };
        let layers = layers.map_err(|reason| refuse(files.path(), reason))?;
        for (layer, weight) in layers.iter().enumerate() {
            let dims = weight.dims();
            if dims.len() != 2 || dims[1] != width {
                let reason = format!(
                    "the output projection of layer {layer} has the shape {dims:?}, must have {width} columns"
                );
                return Err(refuse(files.path(), reason));
            }
        }
        Ok(Self { layers })
    }

    /// What the values of one sequence weigh in the layer's output, `[H, n]`, from values `[H, n, D]`: the sum of magnitudes of
    /// each value behind the projection, as the mean over the query heads that read it.
    pub(crate) fn norms(&self, layer: usize, values: &Tensor) -> Result<Vec<f32>> {
        let (heads, tokens, dim) = values.dims3()?;
        let values = values.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        let weight = self.layers[layer].dense()?;
        let query_heads = weight.dim(1)? / dim;
        let group = query_heads / heads;
        let mut norms = Vec::with_capacity(heads * tokens);
        for head in 0..heads {
            let values = values.narrow(0, head, 1)?.squeeze(0)?;
            let of = |query_head: usize| {
                let slice = weight.narrow(1, query_head * dim, dim)?;
                values.matmul(&slice.t()?)?.abs()?.sum(1)
            };
            let mut sum = of(head * group)?;
            for query_head in head * group + 1..(head + 1) * group {
                sum = (sum + of(query_head)?)?;
            }
            #[expect(clippy::cast_precision_loss, reason = "a few query heads")]
            let mean = (sum / group as f64)?;
            norms.extend(mean.to_vec1::<f32>()?);
        }
        Ok(norms)
    }
}

impl Weight {
    fn dims(&self) -> Vec<usize> {
        match self {
            Self::Quantized(weight) => weight.shape().dims().to_vec(),
            Self::Plain(weight) => weight.dims().to_vec(),
        }
    }

    fn dense(&self) -> Result<Tensor> {
        match self {
            Self::Quantized(weight) => weight.dequantize(&Device::Cpu),
            Self::Plain(weight) => weight.to_dtype(DType::F32),
        }
    }
}

fn refuse(path: &Path, reason: impl Into<String>) -> StartError {
    StartError::File {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

fn read_gguf(path: &Path, layers: usize) -> std::result::Result<Vec<Weight>, String> {
    let mut file = File::open(path).map_err(|e| e.to_string())?;
    let content = gguf_file::Content::read(&mut file).map_err(|e| e.to_string())?;
    let one = |layer| {
        let name = format!("blk.{layer}.attn_output.weight");
        let weight = content.tensor(&mut file, &name, &Device::Cpu);
        let weight = weight.map_err(|_| format!("it has no tensor `{name}`"))?;
        Ok(Weight::Quantized(Arc::new(weight)))
    };
    (0..layers).map(one).collect()
}

fn read_safetensors(files: &[PathBuf], layers: usize) -> std::result::Result<Vec<Weight>, String> {
    let open = |file: &PathBuf| Safetensors::open(file).map_err(|e| e.to_string());
    let mut files: Vec<Safetensors> = files
        .iter()
        .map(open)
        .collect::<std::result::Result<_, _>>()?;
    let one = |layer| {
        let name = format!("model.layers.{layer}.self_attn.o_proj.weight");
        for file in &mut files {
            if let Some(weight) = file.tensor(&name).map_err(|e| e.to_string())? {
                return Ok(Weight::Plain(weight));
            }
        }
        Err(format!("it has no tensor `{name}` of 16 or 32 bits"))
    };
    (0..layers).map(one).collect()
}

/// What kind of text every token of a model's tokenizer is, by its number.
///
/// # Errors
///
/// [`StartError::File`] if the file holds no tokenizer that is understood.
pub(crate) fn token_classes(
    files: &ModelFiles,
) -> std::result::Result<Vec<TokenClass>, StartError> {
    let classes = if files.is_gguf() {
        classes_of_gguf(files.path())
    } else {
        classes_of_json(&files.path().join("tokenizer.json"))
    };
    classes.map_err(|reason| refuse(files.path(), reason))
}

fn classes_of_gguf(path: &Path) -> std::result::Result<Vec<TokenClass>, String> {
    let mut file = File::open(path).map_err(|e| e.to_string())?;
    let content = gguf_file::Content::read(&mut file).map_err(|e| e.to_string())?;
    let list = |name: &str| content.metadata.get(name).and_then(|v| v.to_vec().ok());
    let name = "tokenizer.ggml.tokens";
    let tokens = list(name).ok_or_else(|| format!("its metadata has no list `{name}`"))?;
    // A file need not say the type of each token, but it names those with a task.
    let kinds = list("tokenizer.ggml.token_type").map_or(&[][..], Vec::as_slice);
    let tasks = ["bos", "eos", "eot", "unknown", "padding", "separator"].map(|task| {
        let id = content
            .metadata
            .get(&format!("tokenizer.ggml.{task}_token_id"));
        id.and_then(|id| id.to_u32().ok())
    });
    let class = |(id, token): (u32, &gguf_file::Value)| {
        let kind = kinds.get(id as usize).and_then(|kind| kind.to_i32().ok());
        let is_control = kind.is_some_and(|kind| i64::from(kind) == CONTROL);
        let text = token.to_string().map_or("", String::as_str);
        class(text, is_control || tasks.contains(&Some(id)))
    };
    Ok((0..).zip(tokens).map(class).collect())
}

fn classes_of_json(path: &Path) -> std::result::Result<Vec<TokenClass>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("tokenizer.json: {e}"))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| format!("tokenizer.json: {e}"))?;
    let mut classes = Vec::new();
    let mut set = |id: usize, class| {
        if classes.len() <= id {
            classes.resize(id + 1, TokenClass::Plain);
        }
        classes[id] = class;
    };
    let number = |value: &Value| value.as_u64().and_then(|id| usize::try_from(id).ok());
    match &json["model"]["vocab"] {
        Value::Object(vocabulary) => {
            let numbered = vocabulary
                .iter()
                .filter_map(|(token, id)| Some((token, number(id)?)));
            numbered.for_each(|(token, id)| set(id, class(token, false)));
        }
        Value::Array(vocabulary) => {
            let tokens = vocabulary
                .iter()
                .map(|entry| entry[0].as_str().unwrap_or_default());
            tokens
                .enumerate()
                .for_each(|(id, token)| set(id, class(token, false)));
        }
        _ => return Err("tokenizer.json: it has no `model.vocab`".into()),
    }
    for added in json["added_tokens"].as_array().unwrap_or(&Vec::new()) {
        if let (Some(id), Some(token)) = (number(&added["id"]), added["content"].as_str()) {
            set(id, class(token, added["special"] == true));
        }
    }
    Ok(classes)
}

/// What kind of text a token is as a tokenizer writes it: a blank at its start may be a letter of its own. A tokenizer that writes
/// bytes as letters hides all marks but those of ASCII; they are plain.
fn class(token: &str, is_control: bool) -> TokenClass {
    if is_control {
        return TokenClass::Special;
    }
    let text = token.trim_start_matches(['\u{120}', '\u{2581}', ' ']);
    let is_mark = |c: char| c.is_ascii_punctuation() || ('\u{2010}'..='\u{205e}').contains(&c);
    if !text.is_empty() && text.chars().all(is_mark) {
        TokenClass::Punctuation
    } else {
        TokenClass::Plain
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn tokens_are_marks_control_or_text() {
        for (token, expected) in [
            (".", TokenClass::Punctuation),
            ("\u{120}(", TokenClass::Punctuation),
            ("\u{2581}--", TokenClass::Punctuation),
            ("\u{2019}", TokenClass::Punctuation),
            ("\u{120}", TokenClass::Plain),
            ("\u{10a}", TokenClass::Plain),
            ("a.", TokenClass::Plain),
            ("", TokenClass::Plain),
        ] {
            assert_eq!(class(token, false), expected, "{token:?}");
            assert_eq!(class(token, true), TokenClass::Special);
        }
    }

    #[test]
    fn a_tokenizer_file_is_read_in_both_forms() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokenizer.json");
        for model in [
            r#"{"vocab": {"a": 0, ",": 2}}"#,
            r#"{"vocab": [["a", 0.5], ["b", 0], [",", 1]]}"#,
        ] {
            let added = r#"[{"id": 3, "content": "<end>", "special": true}, {"id": 4, "content": "!", "special": false}]"#;
            std::fs::write(
                &path,
                format!(r#"{{"model": {model}, "added_tokens": {added}}}"#),
            )
            .expect("writes");
            let classes = classes_of_json(&path).expect("a tokenizer");
            let expected = [
                TokenClass::Plain,
                TokenClass::Plain,
                TokenClass::Punctuation,
                TokenClass::Special,
                TokenClass::Punctuation,
            ];
            assert_eq!(classes, expected);
        }
        std::fs::write(&path, "{}").expect("writes");
        assert!(
            classes_of_json(&path)
                .expect_err("no tokenizer")
                .contains("model.vocab")
        );
    }

    #[test]
    fn projections_are_read_from_whichever_file_has_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let weight = Tensor::new(&[[0.5_f32, -1.0], [2.0, 0.25]], &Device::Cpu).expect("a tensor");
        let half = weight.to_dtype(DType::BF16).expect("in 16 bits");
        let name = |layer| format!("model.layers.{layer}.self_attn.o_proj.weight");
        let files = ["a", "b"].map(|name| folder.path().join(format!("{name}.safetensors")));
        let other = ("other".to_owned(), half.clone());
        let first = HashMap::from([other.clone(), (name(1), weight.clone())]);
        candle_core::safetensors::save(&first, &files[0]).expect("writes");
        let second = HashMap::from([(name(0), half), other]);
        candle_core::safetensors::save(&second, &files[1]).expect("writes");
        let read = read_safetensors(&files, 2).expect("both are there");
        for read in read {
            let dense = read.dense().and_then(|t| t.to_vec2::<f32>());
            assert_eq!(dense.expect("dense"), [[0.5, -1.0], [2.0, 0.25]]);
        }
        let error = read_safetensors(&files, 3).expect_err("there are two");
        assert!(error.contains(&name(2)), "{error}");
    }

    /// Against the definition, in 64 bits.
    #[test]
    fn norms_are_sums_of_magnitudes_behind_the_projection() {
        let (heads, group, tokens, dim, wide) = (2, 2, 3, 4, 5);
        let number = |i: usize| ((i * 37 + 11) % 17) as f32 / 8.0 - 1.0;
        let weight: Vec<f32> = (0..wide * heads * group * dim).map(number).collect();
        let values: Vec<f32> = (0..heads * tokens * dim).map(|i| number(i + 5)).collect();
        let shape = (wide, heads * group * dim);
        let plain = Tensor::from_vec(weight.clone(), shape, &Device::Cpu).expect("a tensor");
        let projections = OutputProjections {
            layers: vec![Weight::Plain(plain)],
        };
        let shown = Tensor::from_vec(values.clone(), (heads, tokens, dim), &Device::Cpu);
        let norms = projections
            .norms(0, &shown.expect("a tensor"))
            .expect("norms");
        for head in 0..heads {
            for token in 0..tokens {
                let mut expected = 0.0;
                for query_head in head * group..(head + 1) * group {
                    for row in 0..wide {
                        let product: f64 = (0..dim)
                            .map(|d| {
                                let w = weight[row * shape.1 + query_head * dim + d];
                                let v = values[(head * tokens + token) * dim + d];
                                f64::from(w) * f64::from(v)
                            })
                            .sum();
                        expected += product.abs() / group as f64;
                    }
                }
                let got = f64::from(norms[head * tokens + token]);
                assert!(
                    (got - expected).abs() <= 1e-5 * expected.max(1.0),
                    "{got} {expected}"
                );
            }
        }
    }
}
