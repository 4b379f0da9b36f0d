//! Choosing the best by one rule for ties.
use std::cmp::Ordering;

use crate::Position;

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

/// A number that is the larger the higher a score ranks, and the same for scores that [`rank`] takes to be equal.
pub(crate) fn key_of(score: f32) -> i32 {
    let value = if score.is_nan() {
        f32::NEG_INFINITY
    } else {
        score
    };
    // Adding zero makes -0.0 and 0.0 the same score.
    let bits = (value + 0.0).to_bits().cast_signed();
    bits ^ ((bits >> 31) & i32::MAX)
}

/// The same, turned round: the best score has the smallest number.
fn worse(score: f32) -> u32 {
    // From the order of signed numbers to that of unsigned ones, and back to front.
    !(key_of(score).cast_unsigned() ^ (1 << 31))
}

/// Indices of the `count` best scores, ascending, in `O(n)`.
///
/// ```
/// assert_eq!(kv_core::top(&[0.5, f32::NAN, 0.5, 0.9], 2), [0, 3]);
/// ```
#[must_use]
pub fn top(scores: &[f32], count: usize) -> Vec<usize> {
    if count == 0 || count >= scores.len() {
        return (0..scores.len().min(count)).collect();
    }
    let mut keys: Vec<u32> = scores.iter().map(|&score| worse(score)).collect();
    let (last, mut ties) = last_of(&mut keys, count);
    let mut best = Vec::with_capacity(count);
    for (index, &score) in scores.iter().enumerate() {
        let key = worse(score);
        if key < last || (key == last && ties > 0) {
            ties -= usize::from(key == last);
            best.push(index);
        }
    }
    best
}

/// The `count`-th smallest number, and how many of the `count` smallest are the same as it. Leaves the numbers parted there.
fn last_of(keys: &mut [u32], count: usize) -> (u32, usize) {
    let (before, &mut last, _) = keys.select_nth_unstable(count - 1);
    let smaller = before.iter().filter(|&&key| key < last).count();
    (last, count - smaller)
}

/// What a token is ranked by, the best first: its score, of equal scores its position. No key is zero.
pub(crate) fn key(score: f32, position: Position) -> u64 {
    u64::from(worse(score)) << 32 | u64::from(position.0)
}

/// Which of some keys are the `count` smallest, in `O(n)`; of equal ones all or none.
pub(crate) fn smallest(keys: &[u64], count: usize) -> Vec<bool> {
    if count == 0 || count >= keys.len() {
        return vec![count > 0; keys.len()];
    }
    let last = *keys.to_vec().select_nth_unstable(count - 1).1;
    keys.iter().map(|&key| key <= last).collect()
}

/// How many of each row are kept if each keeps its `floor` best, and then the best of all that is left are taken until
/// `total` are kept. Equal scores go to the lower row.
///
/// Rows are the heads of a layer, or, for a ranking across layers, those of all layers, layer by layer: the lower layer
/// wins, then the lower head. A row keeps its best by [`top`].
///
/// ```
/// let heads: [&[f32]; 2] = [&[0.3, 0.25, 0.2, 0.15], &[0.4, 0.04, 0.03, 0.02]];
/// assert_eq!(kv_core::counts_across(&heads, 4, 0), [3, 1]);
/// assert_eq!(kv_core::counts_across(&heads, 4, 2), [2, 2]);
/// ```
#[must_use]
pub fn counts_across(rows: &[&[f32]], total: usize, floor: usize) -> Vec<usize> {
    let mut counts: Vec<usize> = rows.iter().map(|row| floor.min(row.len())).collect();
    let left = total.saturating_sub(counts.iter().sum());
    // Of each row what is behind its floor; which of equal scores that is makes no difference to a count.
    let (mut rest, mut ends) = (Vec::new(), Vec::with_capacity(rows.len()));
    let mut keys = Vec::new();
    for (row, &safe) in rows.iter().zip(&counts) {
        keys.clear();
        keys.extend(row.iter().map(|&score| worse(score)));
        if 0 < safe && safe < keys.len() {
            keys.select_nth_unstable(safe - 1);
        }
        rest.extend_from_slice(&keys[safe..]);
        ends.push(rest.len());
    }
    if left >= rest.len() {
        return rows.iter().map(|row| row.len()).collect();
    }
    if left == 0 {
        return counts;
    }
    let (last, mut ties) = last_of(&mut rest.clone(), left);
    let mut start = 0;
    for (count, end) in counts.iter_mut().zip(ends) {
        let row = &rest[start..end];
        start = end;
        let equal = row.iter().filter(|&&key| key == last).count().min(ties);
        ties -= equal;
        *count += row.iter().filter(|&&key| key < last).count() + equal;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn across_layers_the_lower_layer_and_then_the_lower_head_wins() {
        let (high, low, nan) = ([0.5, 0.5, 0.1], [0.5, 0.2, 0.1], [f32::NAN, 0.5, f32::NAN]);
        let rows: [&[f32]; 4] = [&low, &high, &nan, &high];
        assert_eq!(counts_across(&rows, 1, 0), [1, 0, 0, 0]);
        assert_eq!(counts_across(&rows, 3, 0), [1, 2, 0, 0]);
        assert_eq!(counts_across(&rows, 4, 0), [1, 2, 1, 0]);
        assert_eq!(counts_across(&rows, 4, 1), [1, 1, 1, 1]);
        assert_eq!(counts_across(&rows, 99, 1), [3; 4]);
        assert_eq!(counts_across(&rows, 0, 2), [2; 4], "the floor is never cut");
    }

    proptest! {
        /// Sorting everything beyond the floors gives the same counts.
        #[test]
        fn counts_agree_with_sorting_everything(
            rows in prop::collection::vec(prop::collection::vec(prop_oneof![
                8 => (0_u8..9).prop_map(f32::from),
                1 => Just(f32::NAN),
                1 => Just(f32::INFINITY),
                1 => Just(f32::NEG_INFINITY),
                1 => Just(-0.0_f32),
            ], 0..20), 1..7),
            total in 0_usize..140,
            floor in 0_usize..6,
        ) {
            let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
            let mut rest = Vec::new();
            let mut slow = vec![0; rows.len()];
            for (owner, row) in rows.iter().enumerate() {
                let mut order: Vec<usize> = (0..row.len()).collect();
                order.sort_by(|&a, &b| rank((row[a], a), (row[b], b)));
                slow[owner] = floor.min(row.len());
                rest.extend(order.iter().skip(floor).map(|&index| (row[index], owner, index)));
            }
            rest.sort_by(|a, b| rank((a.0, a.1), (b.0, b.1)).then(a.2.cmp(&b.2)));
            let left = total.saturating_sub(slow.iter().sum());
            for &(_, owner, _) in rest.iter().take(left) {
                slow[owner] += 1;
            }
            prop_assert_eq!(counts_across(&rows, total, floor), slow);
        }

        #[test]
        fn agrees_with_sorting_everything(
            scores in prop::collection::vec(prop_oneof![
                4 => (0_u8..6).prop_map(f32::from),
                1 => Just(f32::NAN),
                1 => Just(f32::NEG_INFINITY),
                1 => Just(f32::INFINITY),
                1 => Just(-0.0_f32),
                1 => any::<f32>(),
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
