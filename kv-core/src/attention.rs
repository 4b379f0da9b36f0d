//! Attention over a prompt, for policies that read all of it.

/// Queries and keys of one query head of a prompt.
#[derive(Debug, Clone, Copy)]
pub struct PromptAttention<'a> {
    /// `[n, D]`.
    pub(crate) queries: &'a [f32],
    /// `[n, D]`.
    pub(crate) keys: &'a [f32],
    pub(crate) head_dim: usize,
    pub(crate) scale: f32,
    pub(crate) softcap: Option<f32>,
}

impl PromptAttention<'_> {
    /// Attention of one query to the keys up to its own, `[query + 1]`: softmax of the scaled products, with the model's soft
    /// cap.
    ///
    /// # Panics
    ///
    /// If the prompt has no such query.
    #[must_use]
    pub fn row(&self, query: usize) -> Vec<f32> {
        let row = &self.queries[query * self.head_dim..][..self.head_dim];
        let logit = |key: &[f32]| {
            let logit = dot(row, key) * self.scale;
            self.softcap.map_or(logit, |cap| cap * (logit / cap).tanh())
        };
        let keys = self.keys.chunks_exact(self.head_dim);
        let mut weights: Vec<f32> = keys.take(query + 1).map(logit).collect();
        let highest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut total = 0.0_f64;
        for weight in &mut weights {
            *weight = (*weight - highest).exp();
            total += f64::from(*weight);
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a sum of weights, rounded once"
        )]
        let total = total as f32;
        for weight in &mut weights {
            *weight /= total;
        }
        weights
    }
}

/// In eight lanes, so that the compiler can use the machine's vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut lanes = [0.0_f32; LANES];
    let (a_whole, a_rest) = a.as_chunks::<LANES>();
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_whole.iter().zip(b_whole) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}
