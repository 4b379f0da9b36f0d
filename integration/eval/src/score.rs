//! From logits to figures for each token.
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// What one row of logits says of the token that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// The token's negative log-likelihood, in nats.
    pub nll: f64,
    /// The most likely token; of equal ones the first.
    pub top: u32,
}

/// Reads a row of logits, `[V]`, before token `next`. A logit that is no number makes the likelihood one too.
///
/// # Panics
///
/// Where there is no such token.
#[must_use]
pub fn say(logits: &[f32], next: u32) -> Said {
    let (highest, top) = peak(logits);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - highest).exp()).sum();
    Said {
        nll: sum.ln() - f64::from(logits[next as usize] - highest),
        top,
    }
}

/// The most likely token of a row of logits; of equal ones the first.
#[must_use]
pub fn top(logits: &[f32]) -> u32 {
    peak(logits).1
}

/// Kullback-Leibler divergence of `other` from `full`, rows of logits of the same tokens, in nats: what is lost where `other` stands in for `full`.
#[must_use]
pub fn divergence(full: &[f32], other: &[f32]) -> f64 {
    let ((top, _), (other_top, _)) = (peak(full), peak(other));
    let (mut sum, mut other_sum, mut gap) = (0.0, 0.0, 0.0);
    for (&a, &b) in full.iter().zip(other) {
        let (a, b) = (f64::from(a - top), f64::from(b - other_top));
        let weight = a.exp();
        sum += weight;
        other_sum += b.exp();
        gap += weight * (a - b);
    }
    (gap / sum - sum.ln() + other_sum.ln()).max(0.0)
}

fn peak(logits: &[f32]) -> (f32, u32) {
    let mut best = (f32::NEG_INFINITY, 0);
    for (&logit, token) in logits.iter().zip(0..) {
        if logit > best.0 {
            best = (logit, token);
        }
    }
    best
}

/// Tokens that are read behind a text, and which of them are scored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turns {
    /// Questions and answers one after the other.
    pub tokens: Vec<u32>,
    /// The tokens of each answer.
    pub answers: Vec<Range<usize>>,
}

impl Turns {
    /// Adds a question and its answer.
    pub fn push(&mut self, question: &[u32], answer: &[u32]) {
        self.tokens.extend_from_slice(question);
        let start = self.tokens.len();
        self.tokens.extend_from_slice(answer);
        self.answers.push(start..self.tokens.len());
    }

    /// The tokens to read: all but the last, behind which nothing is asked.
    #[must_use]
    pub fn read(&self) -> &[u32] {
        &self.tokens[..self.tokens.len().saturating_sub(1)]
    }

    /// For every answer, its tokens with the row of the logits that says each. Row 0 is what the text says before any of the tokens is read, and
    /// row `i` stands behind the token `i - 1`.
    pub fn rows(&self) -> impl Iterator<Item = Vec<(usize, u32)>> {
        let row = |at: usize| (at, self.tokens[at]);
        self.answers
            .iter()
            .map(move |answer| answer.clone().map(row).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likelihoods_by_hand() {
        let said = say(&[0.0, 0.0, (2.0_f32).ln()], 2);
        assert!((said.nll - 2.0_f64.ln()).abs() < 1e-6);
        assert_eq!(said.top, 2);
        assert_eq!(say(&[1.0, 1.0], 1).top, 0, "of equal ones the first");
        let far = say(&[1000.0, 0.0], 1);
        assert!((far.nll - 1000.0).abs() < 1e-3, "no overflow: {}", far.nll);
        assert!(say(&[f32::NAN, 0.0], 1).nll.is_nan());
    }

    #[test]
    fn divergence_by_hand() {
        // (1/2, 1/2) against (3/4, 1/4).
        let full = [0.0, 0.0];
        let other = [3.0_f32.ln(), 0.0];
        let expected = 0.5 * (0.5_f64 / 0.75).ln() + 0.5 * (0.5_f64 / 0.25).ln();
        assert!((divergence(&full, &other) - expected).abs() < 1e-7);
        assert_eq!(divergence(&other, &other), 0.0);
        let moved = [3.0_f32.ln() + 50.0, 50.0];
        assert!(divergence(&other, &moved) < 1e-6, "a constant says nothing");
    }

    #[test]
    fn rows_say_the_token_behind_them() {
        let mut turns = Turns::default();
        turns.push(&[10, 11], &[12, 13]);
        turns.push(&[14], &[15]);
        assert_eq!(turns.read(), [10, 11, 12, 13, 14]);
        let rows: Vec<_> = turns.rows().collect();
        assert_eq!(rows, [vec![(2, 12), (3, 13)], vec![(5, 15)]]);
        let mut text = Turns::default();
        text.push(&[], &[7, 8]);
        assert_eq!(text.rows().next(), Some(vec![(0, 7), (1, 8)]));
    }
}
