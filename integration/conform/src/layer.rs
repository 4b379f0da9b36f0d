//! One layer's prompt.

/// The tensors of one layer, queries and keys after `RoPE`.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// `[H * G, T, D]`.
    pub(crate) queries: Vec<f32>,
    /// `[H, T, D]`.
    pub(crate) keys: Vec<f32>,
    /// `[H, T, D]`.
    pub(crate) values: Option<Vec<f32>>,
    /// The output projection, `[M, H * G * D]`: a row for each number that the layer puts out.
    pub(crate) projection: Option<Vec<f32>>,
    pub(crate) shape: LayerShape,
}

/// What all layers of a file have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerShape {
    pub(crate) query_heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) tokens: usize,
    pub(crate) head_dim: usize,
}

impl Layer {
    /// The layer as one of `H * G` KV heads, each repeated for its query heads.
    pub(crate) fn repeated(&self) -> Self {
        Self {
            queries: self.queries.clone(),
            keys: self.shape.repeat(&self.keys),
            values: self.values.as_ref().map(|rows| self.shape.repeat(rows)),
            projection: self.projection.clone(),
            shape: LayerShape {
                kv_heads: self.shape.query_heads,
                ..self.shape
            },
        }
    }

    /// The magnitudes of each value behind the output projection, summed, as the mean over the `G` query heads that read it:
    /// `[H, T]`. Computed in 64 bits and rounded once.
    pub(crate) fn output_norms(&self) -> Option<Vec<f32>> {
        let (values, projection) = (self.values.as_ref()?, self.projection.as_ref()?);
        let LayerShape {
            query_heads,
            kv_heads,
            tokens,
            head_dim,
        } = self.shape;
        let group = query_heads / kv_heads;
        let norm = |(row, value): (usize, &[f32])| {
            let head = row / tokens;
            let sums = (head * group..(head + 1) * group).map(|query_head| {
                let rows = projection.chunks_exact(query_heads * head_dim);
                let weights = rows.map(|row| &row[query_head * head_dim..][..head_dim]);
                weights.map(|weights| dot(weights, value).abs()).sum()
            });
            mean(sums, group)
        };
        Some(
            values
                .chunks_exact(head_dim)
                .enumerate()
                .map(norm)
                .collect(),
        )
    }
}

impl LayerShape {
    /// Rows of KV heads, each head once for every query head of its group.
    fn repeat(&self, rows: &[f32]) -> Vec<f32> {
        let heads = rows.chunks_exact(self.tokens * self.head_dim);
        let repeat = |head| std::iter::repeat_n(head, self.query_heads / self.kv_heads);
        let repeated: Vec<&[f32]> = heads.flat_map(repeat).collect();
        repeated.concat()
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let product = |(a, b): (&f32, &f32)| f64::from(*a) * f64::from(*b);
    a.iter().zip(b).map(product).sum()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a mean over a few heads, rounded once"
)]
fn mean(numbers: impl Iterator<Item = f64>, count: usize) -> f32 {
    (numbers.sum::<f64>() / count as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One KV head with two query heads, two tokens of one dimension, three outputs.
    fn layer() -> Layer {
        Layer {
            queries: vec![0.0; 4],
            keys: vec![0.0; 2],
            values: Some(vec![2.0, -1.0]),
            projection: Some(vec![1.0, 3.0, -1.0, 0.0, 0.5, -5.0]),
            shape: LayerShape {
                query_heads: 2,
                kv_heads: 1,
                tokens: 2,
                head_dim: 1,
            },
        }
    }

    /// The columns sum to 2.5 and 8.
    #[test]
    fn a_value_weighs_what_its_query_heads_make_of_it() {
        assert_eq!(layer().output_norms(), Some(vec![10.5, 5.25]));
        let repeated = layer().repeated().output_norms();
        assert_eq!(repeated, Some(vec![5.0, 2.5, 16.0, 8.0]));
    }

    #[test]
    fn without_values_or_a_projection_there_are_no_norms() {
        let without_values = Layer {
            values: None,
            ..layer()
        };
        let without_projection = Layer {
            projection: None,
            ..layer()
        };
        assert_eq!(without_values.output_norms(), None);
        assert_eq!(without_projection.output_norms(), None);
    }
}
