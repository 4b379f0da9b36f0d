//! What the last queries of a prompt attend to.
use kv_core::LayerView;

use crate::CakeConfig;

/// Attention of the window's queries to the tokens before the window, of one query head: `[w][n - w]`.
struct Watched(Vec<Vec<f32>>);

impl Watched {
    fn of(view: &LayerView<'_>, query_head: usize, window: usize) -> Self {
        let before = view.prompt - window;
        let row = |query| {
            let mut row = view.attention(query_head).row(query);
            row.truncate(before);
            row
        };
        Self((before..view.prompt).map(row).collect())
    }

    /// Mean and unbiased variance of what each token gets, over the queries.
    fn moments(&self) -> impl Iterator<Item = (f64, f64)> {
        let queries = as_float(self.0.len());
        let tokens = self.0.first().map_or(0, Vec::len);
        (0..tokens).map(move |token| {
            let column = || self.0.iter().map(|row| f64::from(row[token]));
            let mean = column().sum::<f64>() / queries;
            let squares: f64 = column().map(|seen| (seen - mean).powi(2)).sum();
            (mean, squares / (queries - 1.0))
        })
    }

    /// How far the attention spreads, summed over the queries.
    fn entropy(&self) -> f64 {
        let all = self.0.iter().flatten().map(|&seen| f64::from(seen));
        all.map(|seen| -seen * (seen + 1e-10).ln()).sum()
    }
}

impl CakeConfig {
    /// How much a layer asks for: entropy and variance, both summed over all query heads.
    pub(crate) fn preference(&self, view: &LayerView<'_>) -> f64 {
        let (mut entropy, mut variance) = (0.0, 0.0);
        for query_head in 0..view.heads() * view.group() {
            let watched = Watched::of(view, query_head, self.window);
            entropy += watched.entropy();
            variance += watched.moments().map(|(_, variance)| variance).sum::<f64>();
        }
        // Attention to one token alone has an entropy just below zero.
        entropy.max(0.0).powf(1.0 / self.tau1) * variance.powf(1.0 / self.tau2)
    }

    /// What a head ranks the prompt by, `[n]`; infinity for the window.
    pub(crate) fn scores(&self, view: &LayerView<'_>, head: usize) -> Vec<f32> {
        let group = view.group();
        let before = view.prompt.saturating_sub(self.window);
        let mut sums = vec![0.0; before];
        if before > 0 {
            for query_head in head * group..(head + 1) * group {
                let watched = Watched::of(view, query_head, self.window);
                for (sum, (mean, variance)) in sums.iter_mut().zip(watched.moments()) {
                    *sum += (mean + self.gamma * variance) / as_float(group);
                }
            }
        }
        // Average pooling and the group's mean are both sums: their order means nothing.
        let mut scores = self.pooled(&sums);
        scores.resize(view.prompt, f32::INFINITY);
        scores
    }

    /// The mean of `kernel` neighbours; the edges count zeros.
    fn pooled(&self, scores: &[f64]) -> Vec<f32> {
        let reach = self.kernel / 2;
        let mean = |at: usize| {
            let end = scores.len().min(at + reach + 1);
            let sum: f64 = scores[at.saturating_sub(reach)..end].iter().sum();
            narrow(sum / as_float(self.kernel))
        };
        (0..scores.len()).map(mean).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
const fn as_float(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, reason = "a score, rounded once")]
const fn narrow(score: f64) -> f32 {
    (score as f32).min(f32::MAX)
}
