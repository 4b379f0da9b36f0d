//! From where heads looked to a score for each.
use std::cmp::Ordering;

use super::{Method, Run};

/// The most attended positions of a head, highest first; of equal ones the first in the text.
type Top = Vec<(usize, f32)>;

/// What was seen while one run's answer was said.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Seen {
    /// Positions of a head that are noted of each token.
    most: usize,
    /// For each token that was said: it, and before it where every head looked, `[L][H * G]`.
    steps: Vec<(u32, Vec<Vec<Top>>)>,
    /// The same of the token to come.
    now: Vec<Vec<Top>>,
}

impl Seen {
    /// Before the first token of a run.
    #[must_use]
    pub fn of(method: Method, run: &Run) -> Self {
        Self {
            most: match method {
                Method::R => 1,
                Method::R2 => run.answer.len(),
            },
            ..Self::default()
        }
    }

    /// One layer's attention, `[H * G][T]`; layers come in their order.
    pub fn layer(&mut self, rows: &[Vec<f32>]) {
        let most = self.most;
        self.now
            .push(rows.iter().map(|row| top(row, most)).collect());
    }

    /// The token that came of it.
    pub fn said(&mut self, token: u32) {
        let looked = std::mem::take(&mut self.now);
        self.steps.push((token, looked));
    }

    /// The score of every head, `[L][H * G]`.
    ///
    /// R adds `1 / A` whenever the position that a head looks at most holds the token that is said, and is one of the answer's `A`. R2 adds, of the `A`
    /// positions that it looks at most, the attention of those in the answer, over `A`.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "an answer has a few tokens")]
    pub fn scores(&self, method: Method, run: &Run) -> Vec<Vec<f64>> {
        let length = run.answer.len().max(1) as f64;
        let mut scores: Vec<Vec<f64>> = Vec::new();
        for (said, looked) in &self.steps {
            scores.resize(looked.len(), Vec::new());
            for (scores, heads) in scores.iter_mut().zip(looked) {
                scores.resize(heads.len(), 0.0);
                for (score, top) in scores.iter_mut().zip(heads) {
                    let inside = top
                        .iter()
                        .filter(|(position, _)| run.answer.contains(position));
                    let found: f64 = match method {
                        Method::R => {
                            inside.filter(|(at, _)| run.tokens[*at] == *said).count() as f64
                        }
                        Method::R2 => inside.map(|(_, weight)| f64::from(*weight)).sum(),
                    };
                    *score += found / length;
                }
            }
        }
        scores
    }
}

/// The `most` highest.
fn top(row: &[f32], most: usize) -> Top {
    let mut all: Top = row.iter().copied().enumerate().collect();
    let order = |one: &(usize, f32), other: &(usize, f32)| -> Ordering {
        other.1.total_cmp(&one.1).then(one.0.cmp(&other.0))
    };
    let most = most.min(all.len());
    if most > 0 && most < all.len() {
        all.select_nth_unstable_by(most - 1, order);
    }
    all.truncate(most);
    all.sort_unstable_by(order);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run {
            tokens: vec![10, 11, 12, 13, 14, 15],
            answer: 2..4,
            needle: 0,
        }
    }

    /// Two layers of one head: the first looks at token 12, then at 13; the second elsewhere, or at the wrong one of the answer.
    fn seen(method: Method) -> Seen {
        let mut seen = Seen::of(method, &run());
        seen.layer(&[vec![0.1, 0.1, 0.6, 0.1, 0.1, 0.0]]);
        seen.layer(&[vec![0.5, 0.1, 0.1, 0.3, 0.0, 0.0]]);
        seen.said(12);
        seen.layer(&[vec![0.0, 0.0, 0.2, 0.7, 0.1, 0.0, 0.0]]);
        seen.layer(&[vec![0.1, 0.0, 0.6, 0.3, 0.0, 0.0, 0.0]]);
        seen.said(13);
        seen
    }

    #[test]
    fn scores_by_hand() {
        let close = |found: Vec<Vec<f64>>, wanted: [f64; 2]| {
            for (found, wanted) in found.concat().iter().zip(wanted) {
                assert!((found - wanted).abs() < 1e-6, "{found} instead of {wanted}");
            }
        };
        close(seen(Method::R).scores(Method::R, &run()), [1.0, 0.0]);
        // (0.6 + 0.7 + 0.2) / 2: of the first step's two best the second is position 0. And (0.3 + 0.6 + 0.3) / 2.
        close(seen(Method::R2).scores(Method::R2, &run()), [0.75, 0.6]);
    }

    #[test]
    fn the_highest_come_first_and_equal_ones_in_order() {
        let row = [0.2, 0.3, 0.2, 0.3, 0.0];
        assert_eq!(top(&row, 3), [(1, 0.3), (3, 0.3), (0, 0.2)]);
        assert_eq!(top(&row, 9).len(), 5);
        assert!(top(&row, 0).is_empty());
    }
}
