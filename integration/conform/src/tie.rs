//! Whether another answer is as right as ours.
use crate::bound::Bound;

/// How far a score may be moved, as a share of itself. Two scores that are moved towards each other so meet if they are within
/// 1e-5: the bound that the observing kernels state for themselves.
const NUDGE: f32 = 5e-6;

/// Scores that lean towards `expected` by rounding's worth, if the policy keeps just that of a layer's prompt for them.
///
/// It is the policy itself that answers, with its own rule for heads that compete. So a set that the rule would never give, whatever the
/// ties, is no tie.
pub(crate) fn leaning(
    bound: &Bound,
    layer: usize,
    tokens: usize,
    scores: &[Vec<f32>],
    expected: &[Vec<u32>],
) -> Option<Vec<Vec<f32>>> {
    let rows = scores.iter().zip(expected);
    let leaning: Vec<Vec<f32>> = rows.map(|(row, kept)| lean(row, kept)).collect();
    let kept = bound.kept(layer, tokens, Some(&leaning));
    (kept == expected).then_some(leaning)
}

fn lean(row: &[f32], kept: &[u32]) -> Vec<f32> {
    let mut leaning: Vec<f32> = row.iter().map(|&score| score - step(score)).collect();
    for &slot in kept {
        let slot = slot as usize;
        leaning[slot] = row[slot] + step(row[slot]);
    }
    leaning
}

fn step(score: f32) -> f32 {
    if score.is_finite() {
        // A score of nothing at all, where a weight was too small for a number, moves too.
        (score.abs() * NUDGE).max(f32::MIN_POSITIVE)
    } else {
        0.0
    }
}

/// Whether two scores are the same but for rounding.
pub(crate) fn are_close(a: f32, b: f32) -> bool {
    (a - b).abs() <= step(a) + step(b)
}

/// Two close scores, lower and higher, apart by rounding's worth: equal ones would still be told apart by position.
pub(crate) fn apart(a: f32, b: f32) -> (f32, f32) {
    let (low, high) = (a.min(b), a.max(b));
    (low - step(low), high + step(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_meet_within_the_kernels_bound_and_no_further() {
        assert!(are_close(0.01, 0.01));
        assert!(are_close(0.0, 0.0));
        assert!(are_close(1.0, 1.0 + 8e-6));
        assert!(!are_close(1.0, 1.0 + 2e-5));
        assert!(!are_close(0.01, 0.010_001));
        let row = [1.0, 1.0 + 8e-6, f32::INFINITY, 0.0, 0.0];
        let leaning = lean(&row, &[0, 4]);
        assert!(leaning[0] > leaning[1] && leaning[4] > leaning[3]);
        assert_eq!(leaning[2], f32::INFINITY);
    }
}
