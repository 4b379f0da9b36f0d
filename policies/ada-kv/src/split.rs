//! How many tokens besides the window each head of a layer is given.
use kv_core::{LayerView, apportion, counts_across, top};

/// Scores of each head's tokens outside the `window` newest, oldest first.
pub(crate) fn ranked(view: &LayerView<'_>, window: usize) -> Vec<Vec<f32>> {
    let of = |head| {
        let (slots, scores) = (view.by_age(head), view.scores(head));
        let outside = slots.len().saturating_sub(window);
        slots[..outside]
            .iter()
            .map(|&slot| scores[slot as usize])
            .collect()
    };
    (0..view.heads()).map(of).collect()
}

/// How many tokens each head has if it keeps its `floor` best, and the best of all that is left fill up to `total`.
///
/// Equal scores go to the lower head, as in [`kv_core::KeepPlan::top_across_heads`].
pub(crate) fn counts(scores: &[Vec<f32>], total: usize, floor: usize) -> Vec<usize> {
    let rows: Vec<&[f32]> = scores.iter().map(Vec::as_slice).collect();
    counts_across(&rows, total, floor)
}

/// Multiplies every head's scores by the part of their sum that its `base` best hold.
pub(crate) fn weigh(scores: &mut [Vec<f32>], base: usize) {
    for row in scores {
        let all = mass(row.iter().copied());
        let best = mass(top(row, base).into_iter().map(|index| row[index]));
        if all > 0.0 {
            for score in row {
                *score = scaled(*score, best / all);
            }
        }
    }
}

fn mass(scores: impl Iterator<Item = f32>) -> f64 {
    scores
        .filter(|score| score.is_finite())
        .map(f64::from)
        .sum()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a score, rounded once more"
)]
fn scaled(score: f32, share: f64) -> f32 {
    (f64::from(score) * share) as f32
}

/// The counts mixed with `bases`, the even shares, `alpha` of the latter, by largest remainder: as many as the bases in
/// all, and at most `limits[h]` for head `h`.
#[expect(
    clippy::cast_precision_loss,
    reason = "token counts are far below 2^52"
)]
pub(crate) fn mix(counts: &[usize], bases: &[usize], alpha: f64, limits: &[usize]) -> Vec<usize> {
    let weight =
        |(&count, &base): (&usize, &usize)| count as f64 * (1.0 - alpha) + base as f64 * alpha;
    let weights: Vec<f64> = counts.iter().zip(bases).map(weight).collect();
    apportion(bases.iter().sum(), &weights, limits)
}

/// The same as the authors round it: the even part down, every head to the nearest (half to even, in `f32`). The sum is
/// at most half a token per head above the bases'.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "token counts, of the precision that the authors' code has"
)]
pub(crate) fn mix_as_authors(counts: &[usize], bases: &[usize], alpha: f64) -> Vec<usize> {
    let head = |(&count, &base): (&usize, &usize)| {
        let floor = (base as f64 * alpha).floor() as f32;
        (count as f32 * (1.0 - alpha) as f32 + floor).round_ties_even() as usize
    };
    counts.iter().zip(bases).map(head).collect()
}

/// Tokens of a head that the guarantee keeps besides the window: `alpha` of `cap`, at least one, the window first.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the budget"
)]
pub(crate) fn guaranteed(cap: usize, alpha: f64, window: usize) -> usize {
    let safe = (cap as f64 * alpha).floor() as usize;
    safe.max(1).saturating_sub(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Vec<Vec<f32>> {
        vec![
            vec![0.30, 0.25, 0.20, 0.15, 0.05, 0.01],
            vec![0.40, 0.04, 0.03, 0.02, 0.01, 0.01],
        ]
    }

    /// Two heads, three tokens each: counts (5, 1) become (4, 2) or (4, 1) in the authors' rounding.
    #[test]
    fn the_two_heads_of_the_method_page() {
        let counts = counts(&page(), 2 * 3, 0);
        assert_eq!(counts, [5, 1]);
        assert_eq!(mix_as_authors(&counts, &[3; 2], 0.5), [4, 2]);
        assert_eq!(mix_as_authors(&counts, &[3; 2], 0.2), [4, 1]);
        assert_eq!(mix(&counts, &[3; 2], 0.5, &[6, 6]), [4, 2]);
        // 4.6 and 1.4: the token that the authors lose goes to the larger remainder.
        assert_eq!(mix(&counts, &[3; 2], 0.2, &[6, 6]), [5, 1]);
    }

    #[test]
    fn a_guarantee_of_one_token_leaves_the_counts() {
        assert_eq!(counts(&page(), 6, 1), [5, 1]);
        assert_eq!(counts(&page(), 6, 2), [4, 2]);
        assert_eq!(counts(&page(), 6, 3), [3, 3]);
    }

    #[test]
    fn the_window_counts_as_guaranteed() {
        assert_eq!(guaranteed(100, 0.2, 8), 12);
        assert_eq!(guaranteed(100, 0.2, 32), 0);
        assert_eq!(guaranteed(100, 1.0, 32), 68);
        assert_eq!(guaranteed(3, 0.0, 0), 1);
        assert_eq!(guaranteed(3, 0.0, 1), 0);
    }

    #[test]
    fn alpha_runs_from_the_counts_to_even_shares() {
        let counts = [9, 3, 0];
        assert_eq!(mix(&counts, &[4; 3], 0.0, &[20; 3]), counts);
        assert_eq!(mix(&counts, &[4; 3], 1.0, &[20; 3]), [4, 4, 4]);
        assert_eq!(mix_as_authors(&counts, &[4; 3], 0.0), counts);
        assert_eq!(mix_as_authors(&counts, &[4; 3], 1.0), [4, 4, 4]);
    }

    #[test]
    fn no_head_is_given_more_than_it_has_and_nothing_is_lost() {
        assert_eq!(mix(&[9, 3, 0], &[4; 3], 0.1, &[5, 20, 20]), [5, 6, 1]);
    }

    #[test]
    fn the_authors_drift_by_at_most_half_a_token_per_head() {
        for alpha in [0.0, 0.05, 0.2, 0.3, 0.5, 0.75, 1.0] {
            for base in 1..60 {
                for first in 0..=2 * base {
                    let counts = [first, 2 * base - first, base, base];
                    let sum: usize = mix_as_authors(&counts, &[base; 4], alpha).iter().sum();
                    assert!(sum <= 4 * base + 2, "{counts:?}, {alpha}");
                    let exact: usize = mix(&counts, &[base; 4], alpha, &[2 * base; 4]).iter().sum();
                    assert_eq!(exact, 4 * base, "{counts:?}, {alpha}");
                }
            }
        }
    }

    #[test]
    fn of_equal_scores_the_lower_head_gets_the_token() {
        let rows = vec![vec![0.5, 0.1, 0.5], vec![0.5, 0.5, f32::NAN]];
        assert_eq!(counts(&rows, 3, 0), [2, 1]);
        assert_eq!(counts(&rows, 1, 0), [1, 0]);
        assert_eq!(counts(&rows, 5, 0), [3, 2]);
        assert_eq!(counts(&rows, 99, 1), [3, 3]);
    }

    #[test]
    fn a_head_whose_mass_is_spread_weighs_less() {
        let mut rows = vec![vec![0.4, 0.4, 0.1, 0.1], vec![0.25; 4], vec![0.0, f32::NAN]];
        weigh(&mut rows, 2);
        assert_eq!(rows[0], [0.32, 0.32, 0.08, 0.08]);
        assert_eq!(rows[1], [0.125; 4]);
        assert_eq!(rows[2][0], 0.0);
    }
}
