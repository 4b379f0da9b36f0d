//! What the queries to come are expected to be.
use kv_core::Rotation;

/// From a query's own position to those to come: undoes its rotation, and does the mean of theirs.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    rotation: &'a Rotation,
    /// Two dimensions, and the mean cosine and sine of their angles.
    pairs: Vec<(usize, usize, f64, f64)>,
}

impl<'a> Turn<'a> {
    /// To the `future` positions from `next` on, as far as the tables go; past their end, to their last position.
    pub(crate) fn to(next: usize, future: usize, rotation: &'a Rotation) -> Self {
        let end = next.saturating_add(future).min(rotation.positions());
        let positions = next.min(end.saturating_sub(1))..end;
        #[expect(clippy::cast_precision_loss, reason = "positions are far below 2^52")]
        let count = positions.len() as f64;
        let mut pairs: Vec<(usize, usize, f64, f64)> = (0..rotation.pairs())
            .map(|pair| rotation.dims(pair))
            .map(|(a, b)| (a, b, 0.0, 0.0))
            .collect();
        for position in positions {
            let (cosines, sines) = rotation.angles(position);
            for (pair, (cos, sin)) in pairs.iter_mut().zip(cosines.iter().zip(sines)) {
                pair.2 += f64::from(*cos) / count;
                pair.3 += f64::from(*sin) / count;
            }
        }
        Self { rotation, pairs }
    }

    fn apply(&self, row: &mut [f64]) {
        for &(a, b, cos, sin) in &self.pairs {
            let (x, y) = (row[a], row[b]);
            row[a] = x * cos - y * sin;
            row[b] = y * cos + x * sin;
        }
    }
}

/// The distribution of one head's queries to come.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// `[D]`.
    mean: Vec<f64>,
    /// `[D, D]`, if it counts.
    covariance: Option<Vec<f64>>,
}

impl Ahead {
    /// That of `queries`, `[n, D]`, the first of which stands at position `first`, once they are turned.
    pub(crate) fn of(
        queries: &[f32],
        dim: usize,
        first: usize,
        turn: &Turn<'_>,
        has_covariance: bool,
    ) -> Self {
        let mut queries = queries.to_vec();
        for (query, position) in queries.chunks_exact_mut(dim).zip(first..) {
            turn.rotation.turn_back(position, query);
        }
        let mut mean = mean(&queries, dim);
        let covariance = has_covariance.then(|| turned(covariance(&queries, &mean), dim, turn));
        turn.apply(&mut mean);
        Self { mean, covariance }
    }

    /// Attention to each of `keys`, `[n, D]`, that these queries are expected to pay: softmax over the keys.
    pub(crate) fn attention(&self, keys: &[f32], scale: f64) -> Vec<f64> {
        let dim = self.mean.len();
        let (mut key, mut product) = (vec![0.0; dim], vec![0.0; dim]);
        let mut weights = Vec::with_capacity(keys.len() / dim);
        for row in keys.chunks_exact(dim) {
            for (wide, &number) in key.iter_mut().zip(row) {
                *wide = f64::from(number);
            }
            let mut logit = scale * dot(&self.mean, &key);
            if let Some(covariance) = &self.covariance {
                // Symmetric: what is above the diagonal counts twice.
                product.fill(0.0);
                for (i, row) in covariance.chunks_exact(dim).enumerate() {
                    product[i] += row[i] * key[i];
                    add(&mut product[i + 1..], &row[i + 1..], 2.0 * key[i]);
                }
                logit += scale * scale * dot(&product, &key) / 2.0;
            }
            weights.push(logit);
        }
        let highest = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for weight in &mut weights {
            *weight = (*weight - highest).exp();
        }
        let total: f64 = weights.iter().sum();
        for weight in &mut weights {
            *weight /= total;
        }
        weights
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Adds `row * factor`.
fn add(sum: &mut [f64], row: &[f64], factor: f64) {
    for (sum, number) in sum.iter_mut().zip(row) {
        *sum += number * factor;
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a prompt is far below 2^52 tokens"
)]
fn mean(rows: &[f32], dim: usize) -> Vec<f64> {
    let count = (rows.len() / dim) as f64;
    let mut mean = vec![0.0; dim];
    for row in rows.chunks_exact(dim) {
        for (sum, &number) in mean.iter_mut().zip(row) {
            *sum += f64::from(number) / count;
        }
    }
    mean
}

/// `[D, D]`, of all rows: divided by their number.
#[expect(
    clippy::cast_precision_loss,
    reason = "a prompt is far below 2^52 tokens"
)]
fn covariance(rows: &[f32], mean: &[f64]) -> Vec<f64> {
    let dim = mean.len();
    let count = (rows.len() / dim) as f64;
    let mut covariance = vec![0.0; dim * dim];
    let mut apart = vec![0.0; dim];
    for row in rows.chunks_exact(dim) {
        for (apart, (&number, mean)) in apart.iter_mut().zip(row.iter().zip(mean)) {
            *apart = f64::from(number) - mean;
        }
        for (i, line) in covariance.chunks_exact_mut(dim).enumerate() {
            add(&mut line[i..], &apart[i..], apart[i] / count);
        }
    }
    for a in 0..dim {
        for b in 0..a {
            covariance[a * dim + b] = covariance[b * dim + a];
        }
    }
    covariance
}

/// The covariance of rows that are turned: `R Sigma R^T`.
fn turned(mut covariance: Vec<f64>, dim: usize, turn: &Turn<'_>) -> Vec<f64> {
    for _ in 0..2 {
        for line in covariance.chunks_exact_mut(dim) {
            turn.apply(line);
        }
        for a in 0..dim {
            for b in 0..a {
                covariance.swap(a * dim + b, b * dim + a);
            }
        }
    }
    covariance
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One pair that turns by a quarter with every position.
    fn quarters() -> Rotation {
        let (cos, sin) = ([1.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, -1.0]);
        Rotation::new(1, cos.repeat(4), sin.repeat(4), false)
    }

    fn is_near(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn queries_are_turned_back_and_to_the_positions_to_come() {
        let rotation = quarters();
        // Position 2 is half a turn and position 3 three quarters: both were (1, 0), and at position 5 are (0, 1).
        let queries = [-1.0, 0.0, 0.0, -1.0];
        let ahead = Ahead::of(&queries, 2, 2, &Turn::to(5, 1, &rotation), true);
        is_near(&ahead.mean, &[0.0, 1.0]);
        is_near(ahead.covariance.as_deref().unwrap_or_default(), &[0.0; 4]);
        // Half a turn apart, positions 5 and 7 cancel; with position 6 between, a third is left of it.
        let ahead = Ahead::of(&queries, 2, 2, &Turn::to(5, 3, &rotation), false);
        is_near(&ahead.mean, &[-1.0 / 3.0, 0.0]);
        assert!(ahead.covariance.is_none());
    }

    #[test]
    fn the_covariance_is_turned_on_both_sides() {
        let rotation = quarters();
        // (1, 0) and (-1, 0) vary along the first dimension; a quarter turn on, along the second.
        let at = |next| {
            let queries = [1.0, 0.0, 0.0, -1.0];
            Ahead::of(&queries, 2, 0, &Turn::to(next, 1, &rotation), true)
        };
        let along = |next| at(next).covariance.unwrap_or_default();
        is_near(&at(4).mean, &[0.0, 0.0]);
        is_near(&along(4), &[1.0, 0.0, 0.0, 0.0]);
        is_near(&along(5), &[0.0, 0.0, 0.0, 1.0]);
        // An eighth of a turn on, along both.
        let half = 0.5_f32.sqrt();
        let eighth = Rotation::new(1, vec![1.0, half], vec![0.0, half], false);
        let queries = [1.0, 0.0, -half, -half];
        let ahead = Ahead::of(&queries, 2, 0, &Turn::to(1, 1, &eighth), true);
        is_near(
            ahead.covariance.as_deref().unwrap_or_default(),
            &[0.5, 0.5, 0.5, 0.5],
        );
    }

    #[test]
    fn past_the_tables_end_positions_do_not_count() {
        let rotation = quarters();
        let mean = |next, future| {
            Ahead::of(&[1.0, 0.0], 2, 0, &Turn::to(next, future, &rotation), false).mean
        };
        is_near(&mean(15, 1), &[0.0, -1.0]);
        is_near(&mean(15, 512), &mean(15, 1));
        is_near(&mean(16, usize::MAX), &mean(15, 1));
    }

    #[test]
    fn attention_is_a_softmax_of_mean_and_spread() {
        let ahead = Ahead {
            mean: vec![2.0, 0.0],
            covariance: Some(vec![0.0, 0.0, 0.0, 8.0]),
        };
        let two = std::f32::consts::LN_2;
        // Logits with a scale of a half: ln 2 by the mean, (1/4) 8 / 2 = 1 times ln 2 by the spread, and 0.
        let keys = [two, 0.0, 0.0, two.sqrt(), 0.0, 0.0];
        is_near(&ahead.attention(&keys, 0.5), &[0.4, 0.4, 0.2]);
        // Dimensions that vary together: half of (1/4) 4 x y twice is x y.
        let together = Ahead {
            mean: vec![0.0, 0.0],
            covariance: Some(vec![0.0, 4.0, 4.0, 0.0]),
        };
        is_near(
            &together.attention(&[two, 1.0, 0.0, 1.0], 0.5),
            &[2.0 / 3.0, 1.0 / 3.0],
        );
        let mean_alone = Ahead {
            covariance: None,
            ..ahead
        };
        is_near(&mean_alone.attention(&keys, 0.5), &[0.5, 0.25, 0.25]);
    }
}
