//! Changes the number format of a model's weights; everything else in the file stays.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufWriter, Cursor, Write},
    path::Path,
};

use anyhow::{Context, Result};
use candle_core::{
    Device,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{self, Content, TensorInfo, Value},
    },
};

use super::Dtype;
use crate::{progress::Progress, workspace::cannot_write};

const FILE_TYPE: &str = "general.file_type";

impl Dtype {
    fn ggml(self) -> GgmlDType {
        match self {
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::F32 => GgmlDType::F32,
        }
    }

    /// llama.cpp's number for a file that is mostly of this format.
    fn file_type(self) -> u32 {
        match self {
            Self::Q8_0 => 7,
            Self::F32 => 0,
        }
    }
}

/// Writes the model in `source` to `file` with its matrices as `dtype`.
///
/// Vectors (norms) become F32, as in llama.cpp; tensors that have the right format already are copied as they are.
/// The order is fixed, so that the same source always gives the same bytes.
pub(crate) fn convert(source: &[u8], dtype: Dtype, file: &Path) -> Result<()> {
    let mut reader = Cursor::new(source);
    let mut content = Content::read(&mut reader).context("the published model cannot be read")?;
    let tensors = requantise(&content, &mut reader, dtype)?;
    if let Some(value) = content.metadata.get_mut(FILE_TYPE) {
        *value = Value::U32(dtype.file_type());
    }
    let mut writer = BufWriter::new(File::create(file).with_context(|| cannot_write(file))?);
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    gguf_file::write(&mut writer, &sorted(&content.metadata), &tensors)
        .with_context(|| cannot_write(file))?;
    writer.flush().with_context(|| cannot_write(file))?;
    writer
        .get_ref()
        .sync_all()
        .with_context(|| cannot_write(file))
}

fn requantise(
    content: &Content,
    reader: &mut Cursor<&[u8]>,
    dtype: Dtype,
) -> Result<Vec<(String, QTensor)>> {
    let mut infos: Vec<(&String, &TensorInfo)> = content.tensor_infos.iter().collect();
    infos.sort_by_key(|(_, info)| info.offset);
    let total = infos
        .iter()
        .map(|(_, info)| info.shape.elem_count() as u64)
        .sum::<u64>();
    let what = format!("model: converting to {}", dtype.name());
    let mut progress = Progress::bytes(&what, total * size_of::<f32>() as u64);
    let mut tensors = Vec::with_capacity(infos.len());
    for (name, info) in infos {
        let tensor =
            one(content, reader, name, info, dtype).with_context(|| format!("tensor `{name}`"))?;
        progress.advance((info.shape.elem_count() * size_of::<f32>()) as u64);
        tensors.push((name.clone(), tensor));
    }
    Ok(tensors)
}

fn one(
    content: &Content,
    reader: &mut Cursor<&[u8]>,
    name: &str,
    info: &TensorInfo,
    dtype: Dtype,
) -> candle_core::Result<QTensor> {
    let tensor = content.tensor(reader, name, &Device::Cpu)?;
    let wanted = match info.shape.dims() {
        [] | [_] => GgmlDType::F32,
        [.., last] if last % dtype.ggml().block_size() != 0 => GgmlDType::F32,
        _ => dtype.ggml(),
    };
    if tensor.dtype() == wanted {
        return Ok(tensor);
    }
    QTensor::quantize(&tensor.dequantize(&Device::Cpu)?, wanted)
}

fn sorted(metadata: &HashMap<String, Value>) -> Vec<(&str, &Value)> {
    let mut sorted: Vec<_> = metadata
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    sorted.sort_by_key(|(name, _)| *name);
    sorted
}

#[cfg(test)]
pub(super) mod tests {
    use candle_core::Tensor;

    use super::*;

    const ROWS: usize = 4;
    const COLUMNS: usize = 64;

    fn weights() -> Vec<f32> {
        (0..ROWS * COLUMNS)
            .map(|i| ((i * 37 % 101) as f32 - 50.0) / 100.0)
            .collect()
    }

    fn norm() -> Vec<f32> {
        (0..COLUMNS).map(|i| 1.0 + i as f32 / 1000.0).collect()
    }

    fn metadata() -> Vec<(&'static str, Value)> {
        let words = ["a", "b"].map(|word| Value::String(word.to_owned()));
        vec![
            ("general.architecture", Value::String("llama".to_owned())),
            (FILE_TYPE, Value::U32(3)),
            ("llama.block_count", Value::U32(1)),
            ("llama.rope.freq_base", Value::F32(100_000.0)),
            ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
            ("tokenizer.ggml.tokens", Value::Array(words.into())),
        ]
    }

    /// A model of one Q4_1 matrix, one Q8_0 matrix and one norm.
    pub(in crate::model) fn tiny() -> Vec<u8> {
        let matrix = Tensor::from_vec(weights(), (ROWS, COLUMNS), &Device::Cpu).unwrap();
        let norm = Tensor::from_vec(norm(), COLUMNS, &Device::Cpu).unwrap();
        let coarse = QTensor::quantize(&matrix, GgmlDType::Q4_1).unwrap();
        let fine = QTensor::quantize(&matrix, GgmlDType::Q8_0).unwrap();
        let norm = QTensor::quantize(&norm, GgmlDType::F32).unwrap();
        let metadata = metadata();
        let metadata: Vec<_> = metadata
            .iter()
            .map(|(name, value)| (*name, value))
            .collect();
        let mut file = Cursor::new(Vec::new());
        let tensors = [
            ("token_embd.weight", &fine),
            ("blk.0.attn_k.weight", &coarse),
            ("norm.weight", &norm),
        ];
        gguf_file::write(&mut file, &metadata, &tensors).unwrap();
        file.into_inner()
    }

    fn converted(dtype: Dtype) -> (Content, Cursor<Vec<u8>>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.gguf");
        convert(&tiny(), dtype, &path).unwrap();
        let mut reader = Cursor::new(std::fs::read(&path).unwrap());
        (Content::read(&mut reader).unwrap(), reader)
    }

    fn values(tensor: &QTensor) -> Vec<f32> {
        tensor
            .dequantize(&Device::Cpu)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap()
    }

    fn farthest(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        a.iter()
            .zip(b)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max)
    }

    #[test]
    fn matrices_change_and_stay_close_and_norms_stay_exact() {
        // Steps over [-0.5, 0.5]: Q4_1 has 15 per block, Q8_0 254. Half a step, and some for the f16 scales.
        for (dtype, own_step) in [(Dtype::Q8_0, 0.5 / 127.0), (Dtype::F32, 0.0)] {
            let source = tiny();
            let mut before = Cursor::new(source.as_slice());
            let old = Content::read(&mut before).unwrap();
            let (new, mut after) = converted(dtype);
            for (name, source_step) in [
                ("blk.0.attn_k.weight", 1.0 / 15.0),
                ("token_embd.weight", 0.5 / 127.0),
            ] {
                let old = old.tensor(&mut before, name, &Device::Cpu).unwrap();
                let new = new.tensor(&mut after, name, &Device::Cpu).unwrap();
                assert_eq!(new.dtype(), dtype.ggml(), "{name}");
                assert_eq!(new.shape(), old.shape(), "{name}");
                assert!(
                    farthest(&values(&new), &values(&old)) <= 0.51 * own_step,
                    "{name} {dtype:?}"
                );
                let error = farthest(&values(&new), &weights());
                assert!(
                    error <= 0.51 * (own_step + source_step),
                    "{name} {dtype:?}: {error}"
                );
            }
            let kept = new.tensor(&mut after, "norm.weight", &Device::Cpu).unwrap();
            assert_eq!(kept.dtype(), GgmlDType::F32);
            assert_eq!(values(&kept), norm());
        }
    }

    #[test]
    fn metadata_is_kept_but_for_the_file_type() {
        for dtype in [Dtype::Q8_0, Dtype::F32] {
            let (content, _) = converted(dtype);
            assert_eq!(content.metadata.len(), metadata().len());
            for (name, value) in metadata() {
                let wanted = if name == FILE_TYPE {
                    Value::U32(dtype.file_type())
                } else {
                    value
                };
                assert_eq!(
                    format!("{:?}", content.metadata[name]),
                    format!("{wanted:?}"),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn the_same_source_gives_the_same_bytes() {
        let (_, first) = converted(Dtype::Q8_0);
        let (_, second) = converted(Dtype::Q8_0);
        assert!(first.into_inner() == second.into_inner());
    }
}
