//! What a policy may read when it plans: one layer of one sequence.
use std::{borrow::Cow, fmt};

use crate::{Observation, Position, PromptAttention, PromptRows, Rotation, TokenClass};

/// Scores that a host fetches from its device only if a policy reads them itself, instead of saying what to do with them.
pub trait ScoreSource: fmt::Debug {
    /// The scores, `[H][T]`. Called more than once, and fetches once.
    fn rows(&self) -> &[Vec<f32>];
}

#[derive(Debug, Clone, Copy)]
enum Scores<'a> {
    Rows(&'a [&'a [f32]]),
    Source(&'a dyn ScoreSource),
}

/// What the layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Its prompt, just read: slot `i` of every head is position `i`. Of a prompt that comes in chunks, what earlier chunks left and the
    /// chunk just read: slot `i` is the `i`-th oldest token held.
    Prefill,
    /// What earlier plans kept of the prompt, and what has come since: slots stand in no particular order.
    Decode,
}

/// A read-only view of one layer of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct LayerView<'a> {
    /// The layer, `0..L`.
    pub layer: usize,
    /// What it holds.
    pub phase: Phase,
    /// Tokens of the prompt, `n`; of one that comes in chunks, those read so far.
    pub prompt: usize,
    /// Tokens per KV head that this layer may hold, as an average over its heads; `usize::MAX` for no limit.
    pub budget: usize,
    heads: usize,
    positions: Option<&'a [&'a [Position]]>,
    scores: Option<(Observation, Scores<'a>)>,
    rows: Option<&'a PromptRows<'a>>,
    reports: Option<&'a [f64]>,
}

impl<'a> LayerView<'a> {
    /// A layer whose `heads` heads have just read a prompt of `prompt` tokens.
    #[must_use]
    pub const fn prefill(layer: usize, heads: usize, prompt: usize, budget: usize) -> Self {
        Self {
            layer,
            phase: Phase::Prefill,
            prompt,
            budget,
            heads,
            positions: None,
            scores: None,
            rows: None,
            reports: None,
        }
    }

    /// A layer whose heads hold the tokens at `positions`, `[H][T]`.
    #[must_use]
    pub const fn decode(
        layer: usize,
        positions: &'a [&'a [Position]],
        prompt: usize,
        budget: usize,
    ) -> Self {
        let heads = positions.len();
        Self {
            layer,
            phase: Phase::Decode,
            prompt,
            budget,
            heads,
            positions: Some(positions),
            scores: None,
            rows: None,
            reports: None,
        }
    }

    /// The same view of heads that hold the tokens at `positions`, `[H][T]`, each head's oldest first: what earlier chunks of the prompt
    /// left, and the chunk just read. To be said before scores.
    ///
    /// # Panics
    ///
    /// If there is another number of heads.
    #[must_use]
    pub const fn with_positions(mut self, positions: &'a [&'a [Position]]) -> Self {
        assert!(
            positions.len() == self.heads,
            "one list of positions for each head"
        );
        self.positions = Some(positions);
        self
    }

    /// Whether slots stand for positions that have to be looked up, for the heads do not hold the whole prompt in its order.
    #[must_use]
    pub const fn has_positions(&self) -> bool {
        self.positions.is_some()
    }

    /// The same view with what was observed, `[H][T]`; higher keeps.
    ///
    /// # Panics
    ///
    /// If the shape differs from the slots.
    #[must_use]
    pub fn with_scores(mut self, observation: Observation, scores: &'a [&'a [f32]]) -> Self {
        assert_eq!(scores.len(), self.heads, "one row of scores for each head");
        for (head, row) in scores.iter().enumerate() {
            assert_eq!(
                row.len(),
                self.len(head),
                "one score for each slot of head {head}"
            );
        }
        self.scores = Some((observation, Scores::Rows(scores)));
        self
    }

    /// As [`LayerView::with_scores`], for scores that are somewhere else until a policy reads them.
    #[must_use]
    pub const fn with_score_source(
        mut self,
        observation: Observation,
        source: &'a dyn ScoreSource,
    ) -> Self {
        self.scores = Some((observation, Scores::Source(source)));
        self
    }

    /// The same view with what [`Needs::reads`](crate::Needs::reads) names of the prompt.
    #[must_use]
    pub const fn with_rows(mut self, rows: &'a PromptRows<'a>) -> Self {
        self.rows = Some(rows);
        self
    }

    /// The same view with what the layers have reported so far.
    #[must_use]
    pub const fn with_reports(mut self, reports: &'a [f64]) -> Self {
        self.reports = Some(reports);
        self
    }

    /// What the layers have reported so far ([`Policy::report`](crate::Policy::report)), the first layer's first: after a
    /// layer's prompt its own report is the last.
    ///
    /// # Panics
    ///
    /// If the policy does not ask for [`Cadence::Cascade`](crate::Cadence::Cascade), or if the view is the one that a layer
    /// reports from.
    #[must_use]
    pub fn reports(&self) -> &'a [f64] {
        match self.reports {
            Some(reports) => reports,
            None => panic!("reports were read, but `needs()` does not name `Cadence::Cascade`"),
        }
    }

    /// Tokens of the text so far: the newest one is always held.
    #[must_use]
    pub fn seen(&self) -> usize {
        let newest = |positions: &'a [&'a [Position]]| positions.iter().copied().flatten().max();
        self.positions.map_or(self.prompt, |positions| {
            newest(positions).map_or(0, |position| position.index() + 1)
        })
    }

    /// KV heads of the layer, `H`.
    #[must_use]
    pub const fn heads(&self) -> usize {
        self.heads
    }

    /// Tokens that a head holds now, `T`.
    ///
    /// # Panics
    ///
    /// If there is no such head.
    #[must_use]
    pub fn len(&self, head: usize) -> usize {
        assert!(
            head < self.heads,
            "head {head} of a layer with {}",
            self.heads
        );
        self.positions
            .map_or(self.prompt, |positions| positions[head].len())
    }

    /// Whether no head holds a token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        (0..self.heads).all(|head| self.len(head) == 0)
    }

    /// The position held by a slot.
    ///
    /// # Panics
    ///
    /// If there is no such slot.
    #[must_use]
    pub fn position(&self, head: usize, slot: usize) -> Position {
        assert!(
            slot < self.len(head),
            "slot {slot} of a head with {}",
            self.len(head)
        );
        self.positions
            .map_or_else(|| Position::new(slot), |positions| positions[head][slot])
    }

    /// A head's slots, oldest token first.
    #[must_use]
    pub fn by_age(&self, head: usize) -> Vec<u32> {
        let mut slots: Vec<u32> = (0..self.len(head))
            .map(|slot| crate::Slot::new(slot).0)
            .collect();
        if let Some(positions) = self.positions {
            slots.sort_unstable_by_key(|&slot| positions[head][slot as usize]);
        }
        slots
    }

    /// The positions of a head, by slot.
    pub(crate) fn positions(&self, head: usize) -> Cow<'a, [Position]> {
        match self.positions {
            Some(positions) => positions[head].into(),
            None => (0..self.len(head)).map(Position::new).collect(),
        }
    }

    /// The position of the `recent`-th newest token of a head, in `O(T)`; the oldest one's if it holds no more, none if nobody
    /// is asked for.
    pub(crate) fn nth_newest(&self, head: usize, recent: usize) -> Option<Position> {
        let first = self.len(head).saturating_sub(recent);
        (recent > 0).then(|| self.nth_oldest(head, first)).flatten()
    }

    /// The position of the token of a head that `older` others are older than, in `O(T)`, if there is one.
    pub(crate) fn nth_oldest(&self, head: usize, older: usize) -> Option<Position> {
        if older >= self.len(head) {
            return None;
        }
        let Some(positions) = self.positions else {
            return Some(Position::new(older));
        };
        Some(*positions[head].to_vec().select_nth_unstable(older).1)
    }

    /// Whether anything was observed.
    pub(crate) const fn is_observed(&self) -> bool {
        self.scores.is_some()
    }

    /// What was observed of a head, `[T]`; higher keeps.
    ///
    /// # Panics
    ///
    /// If the policy did not ask for it in its [`Needs`](crate::Needs).
    #[must_use]
    pub fn scores(&self, head: usize) -> &'a [f32] {
        let Some((_, scores)) = self.scores else {
            panic!("scores were read, but `needs()` names `Observation::None`");
        };
        match scores {
            Scores::Rows(rows) => rows[head],
            Scores::Source(source) => &source.rows()[head],
        }
    }

    /// What was observed of all heads, `[H][T]`, with positive infinity for the `recent` newest tokens: the scores of a method that
    /// never drops those.
    ///
    /// # Panics
    ///
    /// As [`LayerView::scores`].
    #[must_use]
    pub fn scores_with_window(&self, recent: usize) -> Vec<Vec<f32>> {
        let row = |head| {
            let mut row = self.scores(head).to_vec();
            if let Some(first) = self.nth_newest(head, recent) {
                for (score, &position) in row.iter_mut().zip(&*self.positions(head)) {
                    if position >= first {
                        *score = f32::INFINITY;
                    }
                }
            }
            row
        };
        (0..self.heads).map(row).collect()
    }

    fn rows(&self) -> &'a PromptRows<'a> {
        asked(self.rows, "parts of the prompt")
    }

    /// The first `tokens` rows of one head of `part`.
    fn rows_of(
        &self,
        (part, name): (Option<&'a [f32]>, &str),
        head: usize,
        (tokens, width): (usize, usize),
    ) -> &'a [f32] {
        let first = head * self.rows().rows * width;
        &asked(part, name)[first..first + tokens * width]
    }

    /// Dimension of a row, `D`.
    ///
    /// # Panics
    ///
    /// If the policy reads nothing of the prompt in its [`Needs`](crate::Needs). So do all that follow, each if the policy
    /// does not read what it returns, or if there is no such head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.rows().head_dim
    }

    /// Query heads per KV head, `G`: those of KV head `h` are `h * G .. (h + 1) * G`.
    #[must_use]
    pub fn group(&self) -> usize {
        self.rows().group
    }

    /// Factor on the logits.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.rows().scale
    }

    /// Cap on the logits, `cap * tanh(logit / cap)`, if the model has one.
    #[must_use]
    pub fn softcap(&self) -> Option<f32> {
        self.rows().softcap
    }

    /// Queries of one query head of the prompt after `RoPE`, `[n, D]`. A prompt that comes in chunks is not shown to policies that
    /// read them.
    #[must_use]
    pub fn queries(&self, query_head: usize) -> &'a [f32] {
        let rows = self.rows();
        let shape = (self.prompt, rows.head_dim);
        self.rows_of((rows.queries, "queries"), query_head, shape)
    }

    /// Keys of one head after `RoPE`, `[T, D]`, by slot: of the prompt, or of what is held while it comes in chunks.
    #[must_use]
    pub fn keys(&self, head: usize) -> &'a [f32] {
        let rows = self.rows();
        let shape = (self.len(head), rows.head_dim);
        self.rows_of((rows.keys, "keys"), head, shape)
    }

    /// Values of one head, `[T, D]`, as the keys.
    #[must_use]
    pub fn values(&self, head: usize) -> &'a [f32] {
        let rows = self.rows();
        let shape = (self.len(head), rows.head_dim);
        self.rows_of((rows.values, "values"), head, shape)
    }

    /// What each value of a head weighs in the layer's output, `[T]`: the sum of the magnitudes of the value behind the
    /// output projection, `|W_O v|_1`, as the mean over the `G` query heads that read it.
    #[must_use]
    pub fn output_norms(&self, head: usize) -> &'a [f32] {
        let norms = self.rows().output_norms;
        self.rows_of((norms, "output norms"), head, (self.len(head), 1))
    }

    /// How the model turns queries and keys.
    #[must_use]
    pub fn rotation(&self) -> &'a Rotation {
        asked(self.rows().rotation, "rotations")
    }

    /// What kind of text each token of the prompt is, `[n]`.
    #[must_use]
    pub fn classes(&self) -> &'a [TokenClass] {
        &asked(self.rows().classes, "token classes")[..self.prompt]
    }

    /// Attention of the queries of one query head of the prompt, to be worked out row by row, by any thread. Reads queries
    /// and keys.
    #[must_use]
    pub fn attention(&self, query_head: usize) -> PromptAttention<'a> {
        PromptAttention {
            queries: self.queries(query_head),
            keys: self.keys(query_head / self.group()),
            head_dim: self.head_dim(),
            scale: self.scale(),
            softcap: self.softcap(),
        }
    }
}

/// What a policy reads must be asked for.
fn asked<T>(part: Option<T>, name: &str) -> T {
    match part {
        Some(part) => part,
        None => panic!(
            "{name} were read, but `needs()` does not name them in `Reads`, or this is no prompt"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two query heads on one KV head of three tokens.
    const ROWS: PromptRows<'static> = PromptRows {
        head_dim: 9,
        group: 2,
        rows: 4,
        scale: 0.5,
        softcap: None,
        queries: Some(&QUERIES),
        keys: Some(&KEYS),
        values: None,
        rotation: None,
        output_norms: Some(&[1.0, 2.0, 3.0, f32::NAN]),
        classes: None,
    };
    const QUERIES: [f32; 72] = numbers::<72>(3);
    const KEYS: [f32; 36] = numbers::<36>(5);

    /// Numbers from -1 to 1 in no order.
    const fn numbers<const N: usize>(step: u16) -> [f32; N] {
        let mut all = [0.0; N];
        let mut index = 0;
        let mut number: u16 = 1;
        while index < N {
            number = (number * 7 + step) % 17;
            all[index] = number as f32 / 8.0 - 1.0;
            index += 1;
        }
        all
    }

    /// In 64 bits, as it is defined.
    fn expected(query_head: usize, query: usize, softcap: Option<f32>) -> Vec<f64> {
        let row = |all: &[f32], index: usize| all[index * 9..(index + 1) * 9].to_vec();
        let q = row(&QUERIES, query_head * 4 + query);
        let logit = |key: usize| {
            let k = row(&KEYS, key);
            let dot: f64 = q
                .iter()
                .zip(k)
                .map(|(a, b)| f64::from(*a) * f64::from(b))
                .sum();
            let logit = 0.5 * dot;
            softcap.map_or(logit, |cap| {
                f64::from(cap) * (logit / f64::from(cap)).tanh()
            })
        };
        let weights: Vec<f64> = (0..=query).map(|key| logit(key).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|weight| weight / total).collect()
    }

    #[test]
    fn attention_is_the_softmax_of_a_query_over_the_keys_it_can_see() {
        for softcap in [None, Some(0.7)] {
            let rows = PromptRows { softcap, ..ROWS };
            let view = LayerView::prefill(0, 1, 3, 8).with_rows(&rows);
            for query_head in 0..2 {
                for query in 0..3 {
                    let seen = view.attention(query_head).row(query);
                    let expected = expected(query_head, query, softcap);
                    assert_eq!(seen.len(), expected.len());
                    for (seen, expected) in seen.iter().zip(expected) {
                        assert!((f64::from(*seen) - expected).abs() < 1e-6);
                    }
                }
            }
        }
    }

    #[test]
    fn a_head_has_its_own_rows_and_padding_is_not_shown() {
        let view = LayerView::prefill(0, 1, 3, 8).with_rows(&ROWS);
        assert_eq!(view.keys(0), &KEYS[..27]);
        assert_eq!(view.queries(1), &QUERIES[36..63]);
        assert_eq!(view.output_norms(0), [1.0, 2.0, 3.0]);
    }

    #[test]
    #[should_panic(expected = "values were read, but `needs()` does not name them")]
    fn what_was_not_asked_for_is_not_there() {
        let _ = LayerView::prefill(0, 1, 3, 8).with_rows(&ROWS).values(0);
    }

    #[test]
    fn a_window_scores_above_everything() {
        let positions: Vec<Position> = [4, 0, 9].map(Position).to_vec();
        let heads = [positions.as_slice()];
        let row: &[f32] = &[0.5, 0.25, 0.125];
        let rows = [row];
        let view = LayerView::decode(0, &heads, 3, 8).with_scores(Observation::Rows, &rows);
        let infinity = f32::INFINITY;
        assert_eq!(view.scores_with_window(2), [[infinity, 0.25, infinity]]);
        assert_eq!(view.scores_with_window(0), [[0.5, 0.25, 0.125]]);
    }
}
