//! What ranks the tokens of a prompt.
use crate::LagKvConfig;

/// Scores of a prompt in which nothing is ranked: infinity for the sinks and the newest token, between them from 1 to 2 in
/// the order of the text. A score of a ranked token is less than 1.
pub(crate) fn unranked(sinks: usize, n: usize) -> Vec<f32> {
    let score = |token| {
        if token < sinks || token + 1 == n {
            f32::INFINITY
        } else {
            1.0 + share(token - sinks, n - sinks)
        }
    };
    (0..n).map(score).collect()
}

/// Scores of the tokens behind the sinks that are ranked: those of all whole partitions but the last.
pub(crate) fn ranked(config: &LagKvConfig, keys: &[f32], values: &[f32], dims: usize) -> Vec<f32> {
    let one = config.lag.saturating_mul(dims);
    let whole = |rows: &'_ [f32]| -> Vec<Vec<f64>> {
        let behind = rows.get(config.sinks * dims..).unwrap_or_default();
        let partitions: Vec<&[f32]> = behind.chunks_exact(one).collect();
        let pairs = partitions.windows(2);
        pairs
            .map(|pair| standing_out(pair[0], pair[1], dims))
            .collect()
    };
    let pairs = whole(keys).into_iter().zip(whole(values));
    pairs
        .flat_map(|(keys, values)| {
            let means = keys
                .iter()
                .zip(&values)
                .map(|(key, value)| narrow(0.5 * (key + value)));
            let means: Vec<f32> = means.collect();
            if config.cross_scoring {
                means
            } else {
                ranks(&means)
            }
        })
        .collect()
}

/// How much each row of a partition stands out against the next partition: a softmax over the partition.
fn standing_out(partition: &[f32], next: &[f32], dims: usize) -> Vec<f64> {
    let mut ranges = vec![(f64::INFINITY, f64::NEG_INFINITY); dims];
    for row in next.chunks_exact(dims) {
        for ((low, high), &x) in ranges.iter_mut().zip(row) {
            *low = low.min(f64::from(x));
            *high = high.max(f64::from(x));
        }
    }
    // A channel that does not vary says nothing.
    let place = |(&x, &(low, high)): (&f32, &(f64, f64))| {
        (high > low).then(|| (f64::from(x) - low) / (high - low))
    };
    let spread = |row: &[f32]| {
        let places: Vec<f64> = row.iter().zip(&ranges).filter_map(place).collect();
        deviation(&places)
    };
    let spreads: Vec<f64> = partition.chunks_exact(dims).map(spread).collect();
    softmax(&spreads)
}

/// The standard deviation of a sample; 0 of fewer than two numbers.
fn deviation(sample: &[f64]) -> f64 {
    if sample.len() < 2 {
        return 0.0;
    }
    let count = as_float(sample.len());
    let mean = sample.iter().sum::<f64>() / count;
    let squares: f64 = sample.iter().map(|x| (x - mean) * (x - mean)).sum();
    (squares / (count - 1.0)).sqrt()
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logits.iter().map(|logit| (logit - highest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

/// Each score's rank as a share of all, 0 for the lowest. Of equal scores the earlier token's is the higher.
fn ranks(scores: &[f32]) -> Vec<f32> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| kv_core::rank((scores[b], b), (scores[a], a)));
    let mut ranks = vec![0.0; scores.len()];
    for (rank, token) in order.into_iter().enumerate() {
        ranks[token] = share(rank, scores.len());
    }
    ranks
}

fn share(part: usize, all: usize) -> f32 {
    narrow(as_float(part) / as_float(all))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "tokens and dimensions are far below 2^52"
)]
const fn as_float(number: usize) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a score from 0 to 1, rounded once"
)]
const fn narrow(number: f64) -> f32 {
    number as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: LagKvConfig = LagKvConfig {
        sinks: 1,
        lag: 2,
        cross_scoring: true,
    };

    /// Rows of two channels, the second always 0 or 1, behind a sink and before a row that fills no partition. The next
    /// partition's ranges are 0 to 2 and 0 to 1.
    const KEYS: [[f32; 2]; 6] = [
        [9.0, 9.0],
        [4.0, 0.0],
        [1.0, 1.0],
        [0.0, 0.0],
        [2.0, 1.0],
        [7.0, 7.0],
    ];

    fn scores(config: &LagKvConfig, keys: &[[f32; 2]], values: &[[f32; 2]]) -> Vec<f32> {
        ranked(config, keys.as_flattened(), values.as_flattened(), 2)
    }

    /// Places (2, 0) and (0.5, 1): deviations 2 / sqrt(2) and 0.5 / sqrt(2).
    #[test]
    fn what_differs_from_channel_to_channel_stands_out() {
        let found = scores(&CONFIG, &KEYS, &KEYS);
        let (a, b) = (2.0_f32.sqrt().exp(), 0.125_f32.sqrt().exp());
        let expected = [a / (a + b), b / (a + b)];
        assert_eq!(found.len(), 2, "the last partition is not ranked");
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn keys_and_values_count_alike() {
        // Values of which the other token stands out just as much.
        let values = KEYS.map(|[x, y]| [if y == 0.0 && x == 4.0 { 1.0 } else { x }, y]);
        let mut values = values;
        (values[1], values[2]) = ([1.0, 1.0], [4.0, 0.0]);
        let found = scores(&CONFIG, &KEYS, &values);
        assert!(
            (found[0] - 0.5).abs() < 1e-6 && (found[1] - 0.5).abs() < 1e-6,
            "{found:?}"
        );
    }

    #[test]
    fn ranks_take_the_place_of_scores_and_ties_go_to_the_earlier() {
        let config = LagKvConfig {
            cross_scoring: false,
            ..CONFIG
        };
        assert_eq!(scores(&config, &KEYS, &KEYS), [0.5, 0.0]);
        assert_eq!(ranks(&[0.1, 0.3, f32::NAN, 0.3]), [0.25, 0.75, 0.0, 0.5]);
    }

    #[test]
    fn a_channel_that_does_not_vary_is_left_out() {
        let flat = KEYS.map(|[x, _]| [x, 1.0]);
        assert_eq!(scores(&CONFIG, &flat, &flat), [0.5, 0.5]);
        let one_of_three = [1.0, 0.0, 5.0, 0.0, 0.0, 5.0];
        let next = [0.0, 0.0, 5.0, 1.0, 1.0, 5.0];
        let found = standing_out(&one_of_three, &next, 3);
        assert!(
            found.iter().all(|x| x.is_finite()) && found[0] > found[1],
            "{found:?}"
        );
    }

    #[test]
    fn a_short_prompt_is_not_ranked() {
        for n in 0..5 {
            assert_eq!(scores(&CONFIG, &KEYS[..n], &KEYS[..n]), [0.0; 0], "{n}");
        }
        let rest = unranked(2, 6);
        assert_eq!(
            rest,
            [f32::INFINITY, f32::INFINITY, 1.0, 1.25, 1.5, f32::INFINITY]
        );
        assert_eq!(unranked(4, 2), [f32::INFINITY; 2]);
        let huge = LagKvConfig {
            lag: usize::MAX,
            ..CONFIG
        };
        assert_eq!(scores(&huge, &KEYS, &KEYS), [0.0; 0]);
    }
}
