//! Steps of a layer that candle's autograd would take too much memory or work for: each says itself how its gradient goes back.
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Storage, Tensor};

use crate::sight::Sight;

/// A matrix that is not learned, `[out, in]`: the gradient goes to what it is multiplied with, and none is made for the matrix.
pub(crate) fn linear(x: &Tensor, matrix: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Linear {
        matrix: matrix.clone(),
    })
}

/// Turns rows `[1, heads, T, D]` by their positions; `cos` and `sin` are `[T, D / 2]`.
pub(crate) fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor, is_adjacent: bool) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Rotate {
        cos: cos.clone(),
        sin: sin.clone(),
        is_adjacent,
    })
}

/// Attention of queries `[H, G, T, D]` over keys and values `[H, T, D]`, as far as `sight` allows; the queries are scaled.
/// Weights are worked out for a few queries at a time, and again for the gradient: they are never there all at once.
pub(crate) fn attend(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    sight: Sight,
) -> Result<Tensor> {
    let queries = queries.contiguous()?;
    queries.apply_op3(&keys.contiguous()?, &values.contiguous()?, Attend { sight })
}

struct Linear {
    matrix: Tensor,
}

struct Rotate {
    cos: Tensor,
    sin: Tensor,
    is_adjacent: bool,
}

struct Attend {
    sight: Sight,
}

impl CustomOp1 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        taken(&given(storage, layout)?.matmul(&self.matrix.t()?)?)
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        gradient.contiguous()?.matmul(&self.matrix).map(Some)
    }
}

impl Rotate {
    fn by(&self, x: &Tensor, sin: &Tensor) -> Result<Tensor> {
        let x = x.contiguous()?;
        if self.is_adjacent {
            candle_nn::rotary_emb::rope_i(&x, &self.cos, sin)
        } else {
            candle_nn::rotary_emb::rope(&x, &self.cos, sin)
        }
    }
}

impl CustomOp1 for Rotate {
    fn name(&self) -> &'static str {
        "rotate"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        taken(&self.by(&given(storage, layout)?, &self.sin)?)
    }

    /// A rotation goes back by the same angle.
    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        self.by(gradient, &self.sin.neg()?).map(Some)
    }
}

impl CustomOp3 for Attend {
    fn name(&self) -> &'static str {
        "attend"
    }

    fn cpu_fwd(
        &self,
        queries: &CpuStorage,
        of_queries: &Layout,
        keys: &CpuStorage,
        of_keys: &Layout,
        values: &CpuStorage,
        of_values: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let queries = given(queries, of_queries)?;
        let (keys, values) = (given(keys, of_keys)?, given(values, of_values)?);
        let shape = queries.dims4()?;
        let mut rows = Vec::new();
        for block in self.sight.blocks(shape.2) {
            let few = Few::of(&queries, (&keys, &values), &block)?;
            rows.push(few.unfold(&few.weights.matmul(&few.values)?)?);
        }
        taken(&Tensor::cat(&rows, 2)?)
    }

    fn bwd(
        &self,
        queries: &Tensor,
        keys: &Tensor,
        values: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        // What they were made of is not asked for here.
        let (queries, keys, values) = (&queries.detach(), &keys.detach(), &values.detach());
        let (mut of_keys, mut of_values) = (keys.zeros_like()?, values.zeros_like()?);
        let mut of_queries = Vec::new();
        for block in self.sight.blocks(queries.dim(2)?) {
            let few = Few::of(queries, (keys, values), &block)?;
            let gradient = few.fold(&gradient.narrow(2, block.first, block.queries)?)?;
            let back = few.weights.t()?.contiguous()?.matmul(&gradient)?;
            of_values = of_values.index_add(&few.index, &back, 1)?;
            // Of the softmax: each weight times how far its gradient is above the weighted mean.
            let of_weights = gradient.matmul(&few.values.t()?.contiguous()?)?;
            let weighted = (&few.weights * of_weights)?;
            let mean = weighted.sum_keepdim(2)?;
            let of_scores = (weighted - few.weights.broadcast_mul(&mean)?)?;
            of_queries.push(few.unfold(&of_scores.matmul(&few.keys)?)?);
            let back = of_scores.t()?.contiguous()?.matmul(&few.queries)?;
            of_keys = of_keys.index_add(&few.index, &back, 1)?;
        }
        let of_queries = Tensor::cat(&of_queries, 2)?;
        Ok((Some(of_queries), Some(of_keys), Some(of_values)))
    }
}

/// A few queries, what they see and how they weigh it.
struct Few {
    /// `[H, G * queries, D]`.
    queries: Tensor,
    /// The tokens that any of them sees.
    index: Tensor,
    /// `[H, tokens, D]`.
    keys: Tensor,
    values: Tensor,
    /// `[H, G * queries, tokens]`.
    weights: Tensor,
    /// `(H, G, queries, D)`.
    shape: (usize, usize, usize, usize),
}

impl Few {
    fn of(
        queries: &Tensor,
        (keys, values): (&Tensor, &Tensor),
        block: &crate::sight::Block,
    ) -> Result<Self> {
        let (heads, group, _, dim) = queries.dims4()?;
        let shape = (heads, group, block.queries, dim);
        let queries = queries.narrow(2, block.first, block.queries)?;
        let queries = queries.reshape((heads, group * block.queries, dim))?;
        let index = Tensor::new(block.tokens.as_slice(), keys.device())?;
        let keys = keys.index_select(&index, 1)?;
        let values = values.index_select(&index, 1)?;
        let scores = queries.matmul(&keys.t()?.contiguous()?)?;
        let tokens = block.tokens.len();
        let mask = Tensor::new(block.mask.as_slice(), keys.device())?;
        let mask = mask.to_dtype(keys.dtype())?;
        let mask = mask.reshape((1, 1, block.queries, tokens))?;
        let scores = scores.reshape((heads, group, block.queries, tokens))?;
        let weights = candle_nn::ops::softmax_last_dim(&scores.broadcast_add(&mask)?)?;
        Ok(Self {
            weights: weights.reshape((heads, group * block.queries, tokens))?,
            queries,
            index,
            keys,
            values,
            shape,
        })
    }

    /// `[H, G, queries, D]` to `[H, G * queries, D]`.
    fn fold(&self, rows: &Tensor) -> Result<Tensor> {
        let (heads, group, queries, dim) = self.shape;
        rows.contiguous()?.reshape((heads, group * queries, dim))
    }

    fn unfold(&self, rows: &Tensor) -> Result<Tensor> {
        rows.reshape(self.shape)
    }
}

/// What an operation was given.
fn given(storage: &CpuStorage, layout: &Layout) -> Result<Tensor> {
    let Some((0, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("an operand is not in one piece");
    };
    debug_assert_eq!(end, layout.shape().elem_count());
    let storage = Storage::Cpu(storage.clone());
    Ok(Tensor::from_storage(
        storage,
        layout.shape().clone(),
        candle_core::op::BackpropOp::none(),
        false,
    ))
}

/// What an operation gives.
fn taken(tensor: &Tensor) -> Result<(CpuStorage, Shape)> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((0, _))) => Ok((storage.clone(), layout.shape().clone())),
        _ => candle_core::bail!("a result is not on the CPU, in one piece"),
    }
}
