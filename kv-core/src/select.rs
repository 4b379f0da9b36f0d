//! Choosing the best by one rule for ties.
use std::cmp::Ordering;

/// The one order: the larger score first, NaN as if minus infinity, then the lower index.
#[must_use]
pub fn rank(a: (f32, usize), b: (f32, usize)) -> Ordering {
    let value = |score: f32| {
        if score.is_nan() {
            f32::NEG_INFINITY
        } else {
            score
        }
    };
    // Adding zero makes -0.0 and 0.0 the same score.
    (value(b.0) + 0.0)
        .total_cmp(&(value(a.0) + 0.0))
        .then(a.1.cmp(&b.1))
}

/// Indices of the `count` best scores, ascending, in `O(n)`.
///
/// ```
/// assert_eq!(kv_core::top(&[0.5, f32::NAN, 0.5, 0.9], 2), [0, 3]);
/// ```
#[must_use]
pub fn top(scores: &[f32], count: usize) -> Vec<usize> {
    let mut best: Vec<usize> = (0..scores.len()).collect();
    if count == 0 {
        return Vec::new();
    }
    if count < best.len() {
        best.select_nth_unstable_by(count - 1, |&a, &b| rank((scores[a], a), (scores[b], b)));
        best.truncate(count);
    }
    best.sort_unstable();
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_sorting_everything(
            scores in prop::collection::vec(prop_oneof![
                4 => (0_u8..6).prop_map(f32::from),
                1 => Just(f32::NAN),
                1 => Just(f32::NEG_INFINITY),
                1 => Just(-0.0_f32),
            ], 0..60),
            count in 0_usize..70,
        ) {
            let mut slow: Vec<usize> = (0..scores.len()).collect();
            slow.sort_by(|&a, &b| rank((scores[a], a), (scores[b], b)));
            slow.truncate(count);
            slow.sort_unstable();
            prop_assert_eq!(top(&scores, count), slow);
        }
    }
}
