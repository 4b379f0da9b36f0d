//! A model's files: one GGUF file, or a folder in Hugging Face's layout.
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor, quantized::gguf_file};
use mistralrs_core::{
    AdapterPaths, GGUFLoaderBuilder, GGUFSpecificConfig, Loader, LocalModelPaths, ModelPaths,
    NormalLoaderBuilder, NormalSpecificConfig,
};
use serde_json::{Map, Value};

use crate::{StartError, error::first_line};

/// Model files that were found whole.
#[derive(Debug, Clone)]
pub(crate) struct ModelFiles {
    path: PathBuf,
    /// The folder's weights; none for a GGUF file, which is its own.
    weights: Vec<PathBuf>,
    /// Positions that the model was built for.
    pub(crate) context: usize,
}

impl ModelFiles {
    /// The GGUF file, or the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder's weights; none for a GGUF file.
    pub(crate) fn weights(&self) -> &[PathBuf] {
        &self.weights
    }

    pub(crate) const fn is_gguf(&self) -> bool {
        self.weights.is_empty()
    }

    /// Looks at the headers only.
    pub(crate) fn find(path: &Path) -> Result<Self, StartError> {
        let (weights, context) = if path.is_dir() {
            let weights = weights(path)?;
            for file in &weights {
                Safetensors::open(file)?;
            }
            (weights, read_config(path)?)
        } else {
            (Vec::new(), read_gguf(path)?)
        };
        Ok(Self {
            path: path.to_owned(),
            weights,
            context,
        })
    }

    pub(crate) fn loader(&self) -> Result<Box<dyn Loader>, StartError> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        if !self.weights.is_empty() {
            let config = NormalSpecificConfig::default();
            let folder = Some(text(&self.path));
            return NormalLoaderBuilder::new(config, None, None, folder, false, None)
                .build(None)
                .map_err(|error| StartError::Engine(format!("{error:#}")));
        }
        let folder = text(self.path.parent().unwrap_or(Path::new("")));
        let file = text(Path::new(self.path.file_name().unwrap_or_default()));
        let config = GGUFSpecificConfig::default();
        Ok(GGUFLoaderBuilder::new(None, None, folder, vec![file], config, false, None).build())
    }

    /// The engine is given every path and no name, so that it asks no hub.
    pub(crate) fn paths(&self) -> Box<dyn ModelPaths> {
        let mut paths = LocalModelPaths {
            tokenizer_filename: PathBuf::new(),
            config_filename: PathBuf::new(),
            template_filename: None,
            filenames: vec![self.path.clone()],
            adapter_paths: AdapterPaths::None,
            gen_conf: None,
            preprocessor_config: None,
            processor_config: None,
            chat_template_json_filename: None,
        };
        if !self.weights.is_empty() {
            let file = |name| Some(self.path.join(name)).filter(|path| path.is_file());
            paths.tokenizer_filename = self.path.join("tokenizer.json");
            paths.config_filename = self.path.join("config.json");
            paths.template_filename =
                file("chat_template.jinja").or_else(|| file("tokenizer_config.json"));
            paths.filenames.clone_from(&self.weights);
            paths.gen_conf = file("generation_config.json");
            paths.chat_template_json_filename = file("chat_template.json");
        }
        Box::new(paths)
    }
}

fn refuse(path: &Path, reason: impl Into<String>) -> StartError {
    StartError::File {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

fn read_json(path: &Path) -> Result<Map<String, Value>, StartError> {
    let text = fs::read_to_string(path).map_err(|e| refuse(path, e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| refuse(path, format!("not a JSON object: {e}")))
}

/// The weights of a folder: those that its index names, or else all that lie there.
fn weights(folder: &Path) -> Result<Vec<PathBuf>, StartError> {
    for name in ["config.json", "tokenizer.json"] {
        if !folder.join(name).is_file() {
            return Err(refuse(
                folder,
                format!("a model's folder must hold `{name}`"),
            ));
        }
    }
    let index = folder.join("model.safetensors.index.json");
    if index.is_file() {
        let read = read_json(&index)?;
        let map = read.get("weight_map").and_then(Value::as_object);
        let map = map.ok_or_else(|| refuse(&index, "it has no object `weight_map`"))?;
        let names: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
        return Ok(names.into_iter().map(|name| folder.join(name)).collect());
    }
    let entries = fs::read_dir(folder).map_err(|e| refuse(folder, e.to_string()))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "safetensors"))
        .collect();
    found.sort();
    if found.is_empty() {
        return Err(refuse(
            folder,
            "a model's folder must hold weights (`*.safetensors`)",
        ));
    }
    Ok(found)
}

/// A safetensors file whose header names no byte beyond its end.
#[derive(Debug)]
pub(crate) struct Safetensors {
    file: File,
    header: Map<String, Value>,
    /// Where the tensors begin.
    first: u64,
}

impl Safetensors {
    /// Reads the header only.
    pub(crate) fn open(path: &Path) -> Result<Self, StartError> {
        let damaged = |reason: &str| {
            refuse(
                path,
                format!("not a safetensors file, or a damaged one ({reason})"),
            )
        };
        let mut file = File::open(path).map_err(|e| refuse(path, e.to_string()))?;
        let length = file
            .metadata()
            .map_err(|e| refuse(path, e.to_string()))?
            .len();
        let mut size = [0; 8];
        file.read_exact(&mut size)
            .map_err(|_| damaged("no header"))?;
        let size = u64::from_le_bytes(size);
        if size > length.saturating_sub(8) {
            return Err(damaged("its header is longer than the file"));
        }
        let mut header = Vec::new();
        (&file)
            .take(size)
            .read_to_end(&mut header)
            .map_err(|e| refuse(path, e.to_string()))?;
        let header: Map<String, Value> =
            serde_json::from_slice(&header).map_err(|_| damaged("its header is no JSON object"))?;
        let first = 8 + size;
        for (name, tensor) in &header {
            let Some(end) = tensor.pointer("/data_offsets/1").and_then(Value::as_u64) else {
                continue; // metadata
            };
            let end = end.saturating_add(first);
            if end > length {
                return Err(refuse(
                    path,
                    format!(
                        "truncated: the tensor `{name}` ends at byte {end}, but the file has {length} bytes"
                    ),
                ));
            }
        }
        Ok(Self {
            file,
            header,
            first,
        })
    }

    /// One tensor, without reading the others; `None` where the header does not describe it.
    ///
    /// # Errors
    ///
    /// What the disk or candle says.
    pub(crate) fn tensor(&mut self, name: &str) -> candle_core::Result<Option<Tensor>> {
        let tensor = self.header.get(name);
        let field = |pointer: &str| tensor.and_then(|tensor| tensor.pointer(pointer));
        let number = |value: &Value| value.as_u64();
        let numbers =
            |value: &Value| -> Option<Vec<u64>> { value.as_array()?.iter().map(number).collect() };
        let (Some(dtype), Some(shape), Some(range)) = (
            field("/dtype").and_then(Value::as_str),
            field("/shape").and_then(numbers),
            field("/data_offsets").and_then(numbers),
        ) else {
            return Ok(None);
        };
        let &[start, end] = range.as_slice() else {
            return Ok(None);
        };
        let dtype = match dtype {
            "F32" => DType::F32,
            "F16" => DType::F16,
            "BF16" => DType::BF16,
            _ => return Ok(None),
        };
        let shape: Option<Vec<usize>> = shape.iter().map(|&d| usize::try_from(d).ok()).collect();
        let Some(shape) = shape else { return Ok(None) };
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(self.first + start))?;
        (&self.file)
            .take(end.saturating_sub(start))
            .read_to_end(&mut bytes)?;
        Tensor::from_raw_buffer(&bytes, dtype, &shape, &Device::Cpu).map(Some)
    }
}

/// The context length of a folder's model.
fn read_config(folder: &Path) -> Result<usize, StartError> {
    let path = folder.join("config.json");
    let config = read_json(&path)?;
    if !config.get("architectures").is_some_and(Value::is_array) {
        return Err(refuse(&path, "it has no list `architectures`"));
    }
    let field = "max_position_embeddings";
    let positions = config.get(field).and_then(Value::as_u64);
    positions
        .and_then(|positions| usize::try_from(positions).ok())
        .filter(|&positions| positions > 0)
        .ok_or_else(|| refuse(&path, format!("its `{field}` must be a number above 0")))
}

/// Checks that a file is a whole GGUF file, and returns the model's context length. Reads the header only.
fn read_gguf(path: &Path) -> Result<usize, StartError> {
    let refuse = |reason: String| refuse(path, reason);
    let mut file = File::open(path).map_err(|e| refuse(e.to_string()))?;
    let length = file.metadata().map_err(|e| refuse(e.to_string()))?.len();
    let content = gguf_file::Content::read(&mut file).map_err(|e| {
        refuse(format!(
            "not a GGUF file, or one whose header is damaged ({})",
            first_line(&e)
        ))
    })?;
    for (name, tensor) in &content.tensor_infos {
        let blocks = tensor.shape.elem_count() / tensor.ggml_dtype.block_size();
        let bytes = (blocks * tensor.ggml_dtype.type_size()) as u64;
        let end = content.tensor_data_offset + tensor.offset + bytes;
        if end > length {
            return Err(refuse(format!(
                "truncated: the tensor `{name}` ends at byte {end}, but the file has {length} bytes"
            )));
        }
    }
    let architecture = content
        .metadata
        .get("general.architecture")
        .and_then(|v| v.to_string().ok().cloned());
    let Some(architecture) = architecture else {
        return Err(refuse("its metadata has no `general.architecture`".into()));
    };
    let number = |name: &str| {
        let key = format!("{architecture}.{name}");
        let value = content.metadata.get(&key).and_then(|v| v.to_u32().ok());
        match value.filter(|&value| value > 0) {
            Some(value) => Ok(value as usize),
            None => Err(refuse(format!("its metadata has no `{key}`"))),
        }
    };
    // The engine takes it for granted.
    number("block_count")?;
    number("context_length")
}
