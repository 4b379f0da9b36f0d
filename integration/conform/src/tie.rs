//! Whether another answer is as right as ours.
use crate::{bound::Bound, shown::Shown};

/// How far a score may be moved, as a share of itself. Two scores that are moved towards each other so meet if they are within
/// 1e-5: the bound that the observing kernels state for themselves.
const NUDGE: f32 = 5e-6;

/// Whether `expected` is as right as `ours` of a layer's prompt: for observed scores moved by rounding's worth, for those that the
/// policy ranks by, or for those that the reference chose by.
pub(crate) fn is_as_right(
    bound: &Bound,
    (layer, tokens): (usize, usize),
    shown: &Shown<'_>,
    rows: Rows<'_>,
    reference: Option<&[Vec<f32>]>,
) -> bool {
    let is_shared = bound.is_shared(layer, tokens);
    let ranks = || bound.ranks(layer, tokens, shown);
    leaning(bound, layer, tokens, shown, rows.expected).is_some()
        || ranks().is_some_and(|ranks| rows.is_best_by(&ranks, is_shared))
        || reference.is_some_and(|scores| rows.are_best_by(scores))
}

/// What is shown, its scores leaning towards `expected` by rounding's worth, if the policy keeps just that of a layer's prompt for
/// them.
///
/// It is the policy itself that answers, with its own rule for heads that compete. So a set that the rule would never give, whatever the
/// ties, is no tie.
pub(crate) fn leaning<'a>(
    bound: &Bound,
    layer: usize,
    tokens: usize,
    shown: &Shown<'a>,
    expected: &[Vec<u32>],
) -> Option<Shown<'a>> {
    let scores = shown.scores.as_ref()?;
    let rows = scores.iter().zip(expected);
    let leaning = shown.with_scores(rows.map(|(row, kept)| lean(row, kept)).collect());
    let kept = bound.kept(layer, tokens, Some(&leaning));
    (kept == expected).then_some(leaning)
}

/// Two answers for the heads of a layer, `[H][..]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) ours: &'a [Vec<u32>],
    pub(crate) expected: &'a [Vec<u32>],
}

impl Rows<'_> {
    /// Whether `expected` keeps as many tokens as `ours` and the best by the policy's ranks: in each head, or among all heads where
    /// they compete.
    fn is_best_by(self, ranks: &[Vec<f32>], is_shared: bool) -> bool {
        let heads = || self.ours.iter().zip(self.expected);
        let cuts = ranks.iter().zip(self.expected);
        let mut cuts = cuts.map(|(row, kept)| Cut::of(row, kept));
        if is_shared {
            let count = |rows: &[Vec<u32>]| rows.iter().map(Vec::len).sum::<usize>();
            count(self.ours) == count(self.expected) && cuts.fold(Cut::NONE, Cut::and).is_clean()
        } else {
            heads().all(|(ours, expected)| ours.len() == expected.len()) && cuts.all(Cut::is_clean)
        }
    }

    /// Whether, in each head in which they differ, both answers keep as many tokens and the best by the reference's scores. Where
    /// those are not all that it goes by, they do not explain its own answer.
    fn are_best_by(self, scores: &[Vec<f32>]) -> bool {
        let heads = scores.iter().zip(self.ours.iter().zip(self.expected));
        heads
            .filter(|(_, (ours, expected))| ours != expected)
            .all(|(row, (ours, expected))| {
                ours.len() == expected.len()
                    && Cut::of(row, expected).is_clean()
                    && Cut::of(row, ours).is_clean()
            })
    }
}

/// Where an answer cuts a row of scores.
#[derive(Debug, Clone, Copy)]
struct Cut {
    lowest_kept: f32,
    highest_gone: f32,
}

impl Cut {
    const NONE: Self = Self {
        lowest_kept: f32::INFINITY,
        highest_gone: f32::NEG_INFINITY,
    };

    /// The newest token may stay whatever its score is, since a host keeps it. So it may go though it is ranked above everything.
    fn of(row: &[f32], kept: &[u32]) -> Self {
        let mut cut = Self::NONE;
        let newest = row.len().saturating_sub(1);
        for (slot, (&score, token)) in row.iter().zip(0_u32..).enumerate() {
            match kept.binary_search(&token) {
                Ok(_) if slot != newest => cut.lowest_kept = cut.lowest_kept.min(number(score)),
                Err(_) if slot != newest || score < f32::INFINITY => {
                    cut.highest_gone = cut.highest_gone.max(number(score));
                }
                _ => {}
            }
        }
        cut
    }

    const fn and(self, other: Self) -> Self {
        Self {
            lowest_kept: self.lowest_kept.min(other.lowest_kept),
            highest_gone: self.highest_gone.max(other.highest_gone),
        }
    }

    /// Whether nothing that is gone scores above what is kept, but by rounding.
    fn is_clean(self) -> bool {
        let (kept, gone) = (self.lowest_kept, self.highest_gone);
        kept >= gone || are_close(kept, gone)
    }
}

/// A score that is no number ranks last.
const fn number(score: f32) -> f32 {
    if score.is_nan() {
        f32::NEG_INFINITY
    } else {
        score
    }
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

    /// Heads of five tokens; the newest is ranked above everything.
    const RANKS: [[f32; 5]; 2] = [
        [0.5, 0.3, 0.2, 0.3, f32::INFINITY],
        [0.9, 0.8, 0.1, f32::NAN, f32::INFINITY],
    ];

    fn is_best(is_shared: bool, ours: [&[u32]; 2], expected: [&[u32]; 2]) -> bool {
        let (ours, expected) = (&rows(ours), &rows(expected));
        Rows { ours, expected }.is_best_by(&RANKS.map(|row| row.to_vec()), is_shared)
    }

    fn rows(rows: [&[u32]; 2]) -> [Vec<u32>; 2] {
        rows.map(<[u32]>::to_vec)
    }

    #[test]
    fn what_is_kept_is_ranked_above_what_is_not() {
        let ours: [&[u32]; 2] = [&[0, 1, 4], &[0, 1, 4]];
        assert!(is_best(false, ours, [&[0, 3, 4], &[0, 1, 4]]));
        assert!(!is_best(false, ours, [&[0, 2, 4], &[0, 1, 4]]));
        // The newest may go; then the next best stays in its place.
        assert!(is_best(false, ours, [&[0, 1, 3], &[0, 1, 2]]));
        assert!(!is_best(false, ours, [&[0, 1, 2], &[0, 1, 2]]));
        assert!(!is_best(false, ours, [&[0, 1, 3], &[0, 1, 3]]));
        // As many tokens, in each head.
        assert!(!is_best(false, ours, [&[0, 1], &[0, 1, 4]]));
        assert!(!is_best(false, ours, [&[0, 1, 3, 4], &[0, 4]]));
    }

    #[test]
    fn heads_that_compete_are_one_ranking() {
        let ours: [&[u32]; 2] = [&[0, 1, 4], &[0, 1, 4]];
        assert!(is_best(true, ours, [&[0, 1, 3], &[0, 1, 4]]));
        // The second head lets go of its newest, and the first keeps one more.
        assert!(is_best(true, ours, [&[0, 1, 3, 4], &[0, 1]]));
        assert!(!is_best(true, ours, [&[0, 4], &[0, 1, 2, 4]]));
        assert!(!is_best(true, ours, [&[0, 1, 3, 4], &[0, 1, 4]]));
    }

    #[test]
    fn a_score_explains_both_answers_or_neither() {
        // The newest is the lowest of the first head, and tokens 1 and 2 are alike.
        let scores = [vec![0.5, 0.3, 0.3, 0.1], vec![0.5, 0.4, 0.3, 0.2]];
        let best = |ours: [&[u32]; 2], expected: [&[u32]; 2]| {
            let (ours, expected) = (&rows(ours), &rows(expected));
            Rows { ours, expected }.are_best_by(&scores)
        };
        assert!(best([&[0, 1], &[0, 1]], [&[0, 2], &[0, 1]]));
        // Ours keeps the newest in place of the lowest.
        assert!(best([&[0, 3], &[0, 1]], [&[0, 2], &[0, 1]]));
        assert!(!best([&[1, 3], &[0, 1]], [&[0, 2], &[0, 1]]));
        // Its answer is not the best by its score, or ours is not.
        assert!(!best([&[0, 1], &[0, 1]], [&[1, 2], &[0, 1]]));
        assert!(!best([&[1, 2], &[0, 1]], [&[0, 2], &[0, 1]]));
        assert!(!best([&[0], &[0, 1]], [&[0, 2], &[0, 1]]));
        // Where both are the same nothing is asked.
        assert!(best([&[0, 1], &[2, 3]], [&[0, 2], &[2, 3]]));
    }
}
