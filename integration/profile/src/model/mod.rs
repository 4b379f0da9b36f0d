//! A Llama-type model in 32 bits, as far as its heads need it.
mod folder;
mod gguf;
mod layer;
#[cfg(test)]
pub(crate) mod random;

use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};

use crate::{ProfileError, Window};
pub(crate) use layer::{Layer, Linear, Mixed};

/// Numbers of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Layers, `L`.
    pub layers: usize,
    /// KV heads of a layer, `H`.
    pub kv_heads: usize,
    /// Query heads of a KV head, `G`.
    pub group: usize,
    /// Dimension of a head, `D`.
    pub head_dim: usize,
    /// Positions that the model was built for.
    pub max_positions: usize,
    /// What is added to the mean square under a norm's root.
    pub(crate) eps: f64,
    /// Base of the rotation's angles.
    pub(crate) rope_theta: f64,
    /// Whether the rotation turns neighbours, instead of the halves of a head.
    pub(crate) is_adjacent: bool,
}

/// A model whose weights stay as they are.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) shape: Shape,
    /// `[V, E]`.
    pub(crate) embedding: Tensor,
    pub(crate) layers: Vec<Layer>,
    /// `[E]`.
    pub(crate) norm: Tensor,
    /// `[V, E]`.
    pub(crate) output: Tensor,
    /// Divides the angles of each pair, `[D / 2]`, where the model's context was stretched.
    pub(crate) factors: Option<Vec<f32>>,
}

/// Where each position of a text turns queries and keys: `[T, D / 2]` each.
#[derive(Debug, Clone)]
pub(crate) struct Angles {
    pub(crate) cos: Tensor,
    pub(crate) sin: Tensor,
    pub(crate) is_adjacent: bool,
}

impl Model {
    /// Reads a GGUF file, whose weights are brought to 32 bits, or a folder with `config.json` and safetensors.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, and a model that is not of Llama's type; by the name of what is missing or different.
    pub fn load(path: &Path) -> std::result::Result<Self, ProfileError> {
        let model = if path.is_dir() {
            folder::load(path)?
        } else {
            gguf::load(path)?
        };
        let (pairs, factors) = (model.shape.head_dim / 2, &model.factors);
        if let Some(factors) = factors.as_ref().filter(|factors| factors.len() != pairs) {
            let found = format!("{} factors", factors.len());
            return Err(other_kind(
                path,
                "`rope_freqs.weight`",
                found,
                &format!("{pairs}"),
            ));
        }
        for (index, layer) in model.layers.iter().enumerate() {
            if let Some(wrong) = layer.misfit(&model.shape, model.embedding.dim(1)?)? {
                return Err(ProfileError::file(path, format!("layer {index}: {wrong}")));
            }
        }
        Ok(model)
    }

    /// Its numbers.
    #[must_use]
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What every layer is read with.
    ///
    /// # Errors
    ///
    /// What candle reports.
    pub(crate) fn angles(&self, tokens: usize) -> Result<Angles> {
        let Shape {
            head_dim,
            rope_theta,
            is_adjacent,
            ..
        } = self.shape;
        let mut angles = Vec::with_capacity(tokens * head_dim / 2);
        for position in 0..tokens {
            for pair in 0..head_dim / 2 {
                #[expect(clippy::cast_precision_loss, reason = "a few thousand positions")]
                let (position, exponent) = (position as f64, 2.0 * pair as f64 / head_dim as f64);
                let factor = self
                    .factors
                    .as_ref()
                    .map_or(1.0, |all| f64::from(all[pair]));
                angles.push(position / rope_theta.powf(exponent) / factor);
            }
        }
        let angles = Tensor::from_vec(angles, (tokens, head_dim / 2), &Device::Cpu)?;
        let dtype = self.embedding.dtype();
        Ok(Angles {
            cos: angles.cos()?.to_dtype(dtype)?,
            sin: angles.sin()?.to_dtype(dtype)?,
            is_adjacent,
        })
    }

    /// What enters the first layer, `[T, E]`.
    pub(crate) fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        self.embedding
            .index_select(&Tensor::new(tokens, &Device::Cpu)?, 0)
    }

    /// The last hidden states of rows that come out of the last layer, `[T, E]`.
    pub(crate) fn last_hidden(&self, rows: &Tensor) -> Result<Tensor> {
        layer::norm(rows, &self.norm, self.shape.eps)
    }

    /// What comes out of the last layer where every head sees all tokens, `[T, E]`.
    pub(crate) fn after(&self, tokens: &[u32], angles: &Angles) -> Result<Tensor> {
        let first = self.embed(tokens)?;
        self.layers.iter().try_fold(first, |rows, layer| {
            layer.forward(&self.shape, &rows, angles, None)
        })
    }

    /// What enters each layer where heads are mixed by `gates`, `[L, H]`, and at last what comes out: `L + 1` times `[T, E]`.
    pub(crate) fn inputs(
        &self,
        tokens: &[u32],
        angles: &Angles,
        (gates, window): (&Tensor, Window),
    ) -> Result<Vec<Tensor>> {
        let mut rows = vec![self.embed(tokens)?];
        for (index, layer) in self.layers.iter().enumerate() {
            let gates = &gates.get(index)?;
            let mixed = Mixed { gates, window };
            rows.push(layer.forward(&self.shape, &rows[index], angles, Some(mixed))?);
        }
        Ok(rows)
    }

    /// The logits behind each token, `[T, V]`.
    ///
    /// # Errors
    ///
    /// A token that the model does not have.
    pub fn logits(&self, tokens: &[u32]) -> std::result::Result<Tensor, ProfileError> {
        let angles = self.angles(tokens.len())?;
        let rows = self.after(tokens, &angles)?;
        Ok(self.last_hidden(&rows)?.matmul(&self.output.t()?)?)
    }

    /// Tells one model from another: a sum over some of its weights.
    pub(crate) fn fingerprint(&self) -> f64 {
        let sum = |tensor: &Tensor| {
            let values = tensor
                .flatten_all()?
                .to_dtype(DType::F32)?
                .to_vec1::<f32>()?;
            Ok::<_, candle_core::Error>(values.iter().map(|&x| f64::from(x)).sum::<f64>())
        };
        let layers = self.layers.iter().map(|layer| &layer.queries.matrix);
        let all = layers.chain([&self.norm]).map(sum);
        // A tensor that cannot be read has been reported when it was loaded.
        all.sum::<Result<f64>>().unwrap_or(f64::NAN)
    }
}

/// The number format of everything.
const DTYPE: DType = DType::F32;

/// Says that a model cannot be read since it is of another kind.
fn other_kind(path: &Path, what: &str, found: impl ToString, allowed: &str) -> ProfileError {
    let found = found.to_string();
    ProfileError::file(path, format!("{what} is {found}; allowed: {allowed}"))
}

impl Shape {
    /// A shape that makes no sense, by name.
    fn check(&self, path: &Path) -> std::result::Result<(), ProfileError> {
        for (name, number) in [
            ("layers", self.layers),
            ("KV heads", self.kv_heads),
            ("query heads of a KV head", self.group),
            ("head dimension", self.head_dim),
        ] {
            if number == 0 {
                return Err(other_kind(
                    path,
                    &format!("the number of {name}"),
                    0,
                    "at least 1",
                ));
            }
        }
        if self.head_dim % 2 == 1 {
            return Err(other_kind(
                path,
                "the dimension of a head",
                self.head_dim,
                "an even number: a rotation turns pairs",
            ));
        }
        Ok(())
    }
}
