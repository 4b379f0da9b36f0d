//! Means with their uncertainty.
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2000;
/// Two-sided normal quantile of 95 %.
const Z: f64 = 1.959_964;

/// A figure and the interval that holds it with 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// The interval's lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl Estimate {
    /// The same figure on another scale, which must not fall.
    #[must_use]
    pub fn map(self, scale: impl Fn(f64) -> f64) -> Self {
        Self {
            value: scale(self.value),
            low: scale(self.low),
            high: scale(self.high),
        }
    }
}

/// A share of successes, with Wilson's interval ([Wilson 1927](https://doi.org/10.1080/01621459.1927.10502953)); `None` of nothing.
///
/// ```
/// let share = kv_eval::stats::share(18, 20).expect("20 trials");
/// assert_eq!(share.value, 0.9);
/// assert!(share.low > 0.69 && share.high < 0.98);
/// ```
#[must_use]
pub fn share(successes: usize, trials: usize) -> Option<Estimate> {
    if trials == 0 {
        return None;
    }
    let (n, value) = (float(trials), float(successes) / float(trials));
    let scale = 1.0 / (1.0 + Z * Z / n);
    let middle = scale * (value + Z * Z / (2.0 * n));
    let half = scale * Z * (value * (1.0 - value) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some(Estimate {
        value,
        low: (middle - half).max(0.0),
        high: (middle + half).min(1.0),
    })
}

/// A mean over numbers that come in runs of which neighbours are alike, such as the tokens of a text: whole blocks of `block` neighbours are
/// drawn again ([Kuensch 1989](https://doi.org/10.1214/aos/1176347265)). The draws depend on `seed` only. `None` of no numbers.
///
/// # Panics
///
/// Where `block` is 0.
#[must_use]
pub fn mean(numbers: &[f64], block: usize, seed: u64) -> Option<Estimate> {
    assert!(block > 0, "a block of no numbers");
    if numbers.is_empty() {
        return None;
    }
    let blocks: Vec<(f64, usize)> = numbers
        .chunks(block)
        .map(|block| (block.iter().sum(), block.len()))
        .collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let (mut sum, mut count) = (0.0, 0);
            for _ in 0..blocks.len() {
                let (block, len) = blocks[rng.random_range(0..blocks.len())];
                sum += block;
                count += len;
            }
            sum / float(count)
        })
        .collect();
    means.sort_by(f64::total_cmp);
    Some(Estimate {
        value: numbers.iter().sum::<f64>() / float(numbers.len()),
        low: means[RESAMPLES / 40],
        high: means[RESAMPLES - 1 - RESAMPLES / 40],
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
pub(crate) const fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_by_the_formula() {
        assert_eq!(share(0, 0), None);
        let none = share(0, 20).expect("20 trials");
        // With no success the upper end is z^2 / (n + z^2).
        assert!((none.high - Z * Z / (20.0 + Z * Z)).abs() < 1e-12 && none.low == 0.0);
        let all = share(20, 20).expect("20 trials");
        assert!((all.low - 20.0 / (20.0 + Z * Z)).abs() < 1e-12 && all.high == 1.0);
    }

    #[test]
    fn means_hold_their_value_and_repeat() {
        assert_eq!(mean(&[], 4, 1), None);
        let numbers: Vec<f64> = (0..1000).map(|n| f64::from(n % 10)).collect();
        let estimate = mean(&numbers, 10, 1).expect("numbers");
        // Every block is the same, so nothing is uncertain.
        assert_eq!(
            (estimate.value, estimate.low, estimate.high),
            (4.5, 4.5, 4.5)
        );
        let uneven = mean(&numbers, 7, 1).expect("numbers");
        assert!(uneven.low < 4.5 && uneven.high > 4.5 && uneven.high - uneven.low < 0.4);
        assert_eq!(mean(&numbers, 7, 1), Some(uneven), "the same seed");
        assert_ne!(mean(&numbers, 7, 2), Some(uneven), "another");
    }

    /// The interval of independent numbers is about two standard errors to each side.
    #[test]
    fn interval_is_as_wide_as_theory_says() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let numbers: Vec<f64> = (0..4000).map(|_| rng.random_range(0.0..1.0)).collect();
        let estimate = mean(&numbers, 1, 5).expect("numbers");
        let half = Z * (1.0_f64 / 12.0 / 4000.0).sqrt();
        let width = (estimate.high - estimate.low) / 2.0;
        assert!((width / half - 1.0).abs() < 0.1, "{width} for {half}");
    }
}
