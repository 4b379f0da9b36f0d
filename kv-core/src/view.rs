//! What a policy may read when it plans: one layer of one sequence.
use std::fmt;

use crate::{Observation, Position};

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

/// Which forward pass has just finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The prompt was read; slot `i` of every head is position `i`.
    Prefill,
    /// One token was decoded; slots stand in no particular order.
    Decode,
}

/// A read-only view of one layer of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct LayerView<'a> {
    /// The layer, `0..L`.
    pub layer: usize,
    /// Which pass has just finished.
    pub phase: Phase,
    /// Tokens of the prompt, `n`.
    pub prompt: usize,
    /// Tokens per KV head that this layer may hold, as an average over its heads; `usize::MAX` for no limit.
    pub budget: usize,
    heads: usize,
    positions: Option<&'a [&'a [Position]]>,
    scores: Option<(Observation, Scores<'a>)>,
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
        }
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
}
