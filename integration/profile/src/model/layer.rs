//! One layer, forward; candle takes the gradient back through it.
use candle_core::{Result, Tensor};

use super::{Angles, Shape};
use crate::{Sight, Window, ops};

/// A matrix `[out, in]`, and what is added, `[out]`.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) matrix: Tensor,
    pub(crate) bias: Option<Tensor>,
}

/// The weights of one layer.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// `[E]`.
    pub(crate) attention_norm: Tensor,
    pub(crate) queries: Linear,
    pub(crate) keys: Linear,
    pub(crate) values: Linear,
    pub(crate) output: Linear,
    /// `[E]`.
    pub(crate) mlp_norm: Tensor,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

/// Heads that see all tokens by one part, and a window by the rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mixed<'a> {
    /// The part of each KV head, `[H]`.
    pub(crate) gates: &'a Tensor,
    pub(crate) window: Window,
}

impl Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = ops::linear(x, &self.matrix)?;
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }
}

impl Layer {
    /// What has another shape than the model's numbers say, if anything has.
    pub(super) fn misfit(&self, shape: &Shape, hidden: usize) -> Result<Option<String>> {
        let keys = shape.kv_heads * shape.head_dim;
        let queries = keys * shape.group;
        let inner = self.gate.matrix.dim(0)?;
        let wrong = [
            ("queries", &self.queries, [queries, hidden]),
            ("keys", &self.keys, [keys, hidden]),
            ("values", &self.values, [keys, hidden]),
            ("output", &self.output, [hidden, queries]),
            ("MLP's gate", &self.gate, [inner, hidden]),
            ("MLP's way up", &self.up, [inner, hidden]),
            ("MLP's way down", &self.down, [hidden, inner]),
        ]
        .into_iter()
        .find(|(_, linear, wanted)| linear.matrix.dims() != wanted);
        Ok(wrong.map(|(name, linear, wanted)| {
            let found = linear.matrix.dims();
            format!("the matrix of the {name} is {found:?}; allowed: {wanted:?}")
        }))
    }

    /// From `[T, E]` to `[T, E]`.
    pub(crate) fn forward(
        &self,
        shape: &Shape,
        rows: &Tensor,
        angles: &Angles,
        mixed: Option<Mixed<'_>>,
    ) -> Result<Tensor> {
        let attention = self.attention(shape, rows, angles, mixed)?;
        let rows = (rows + self.output.forward(&attention)?)?;
        let normed = norm(&rows, &self.mlp_norm, shape.eps)?;
        let gate = self.gate.forward(&normed)?.silu()?;
        let inner = (gate * self.up.forward(&normed)?)?;
        rows + self.down.forward(&inner)?
    }

    /// What the heads bring, `[T, H * G * D]`.
    fn attention(
        &self,
        shape: &Shape,
        rows: &Tensor,
        angles: &Angles,
        mixed: Option<Mixed<'_>>,
    ) -> Result<Tensor> {
        let Shape {
            kv_heads,
            group,
            head_dim,
            ..
        } = *shape;
        let tokens = rows.dim(0)?;
        let normed = norm(rows, &self.attention_norm, shape.eps)?;
        let heads = |linear: &Linear, heads: usize| {
            let rows = linear
                .forward(&normed)?
                .reshape((tokens, heads, head_dim))?;
            rows.transpose(0, 1)?.contiguous()
        };
        let turned = |linear: &Linear, count: usize| {
            let rows = heads(linear, count)?.unsqueeze(0)?;
            ops::rotate(&rows, &angles.cos, &angles.sin, angles.is_adjacent)
        };
        #[expect(clippy::cast_precision_loss, reason = "a head has a few dimensions")]
        let scale = (head_dim as f64).sqrt().recip();
        let queries = (turned(&self.queries, kv_heads * group)? * scale)?;
        let queries = queries.reshape((kv_heads, group, tokens, head_dim))?;
        let keys = turned(&self.keys, kv_heads)?.squeeze(0)?;
        let values = heads(&self.values, kv_heads)?;
        let full = ops::attend(&queries, &keys, &values, Sight::Full)?;
        let seen = match mixed {
            None => full,
            Some(Mixed { gates, window }) => {
                let streaming = ops::attend(&queries, &keys, &values, Sight::Streaming(window))?;
                let gates = gates.reshape((kv_heads, 1, 1, 1))?;
                // `gate * full + (1 - gate) * streaming`.
                (&streaming + (full - &streaming)?.broadcast_mul(&gates)?)?
            }
        };
        let seen = seen.reshape((kv_heads * group, tokens, head_dim))?;
        seen.transpose(0, 1)?
            .contiguous()?
            .reshape((tokens, kv_heads * group * head_dim))
    }
}

/// Root-mean-square norm of each row, times `weight`.
pub(super) fn norm(rows: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let mean = rows.sqr()?.mean_keepdim(1)?;
    let root = (mean + eps)?.sqrt()?;
    rows.broadcast_div(&root)?.broadcast_mul(weight)
}
