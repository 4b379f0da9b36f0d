//! What a strategy keeps of a head, of the prompt and afterwards.
use kv_core::{Growth, LayerView, Protected, top};

use crate::FastGenConfig;

/// The strategies, each of which keeps what the one before it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    /// Special tokens.
    Special,
    /// And punctuation.
    Punctuation,
    /// And heavy hitters.
    Heavy,
    /// And a window of the newest.
    Local,
    /// Everything.
    Full,
}

impl Strategy {
    /// The leanest first.
    pub const ALL: [Self; 5] = [
        Self::Special,
        Self::Punctuation,
        Self::Heavy,
        Self::Local,
        Self::Full,
    ];

    /// Classes that it keeps.
    #[must_use]
    pub fn classes(self) -> Protected {
        Protected {
            special: true,
            punctuation: self >= Self::Punctuation,
        }
    }
}

/// A strategy with its sizes for one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) strategy: Strategy,
    /// Heavy hitters.
    heavy: usize,
    /// Newest tokens. There is always one.
    local: usize,
}

impl Rule {
    pub(crate) fn new(config: &FastGenConfig, strategy: Strategy, prompt: usize) -> Self {
        let size = |share, from| {
            if strategy < from {
                0
            } else {
                share_of(prompt, share)
            }
        };
        Self {
            strategy,
            heavy: size(config.heavy_share, Strategy::Heavy),
            local: size(config.local_share, Strategy::Local).max(1),
        }
    }

    /// Heavy hitters.
    pub(crate) const fn heavy(&self) -> usize {
        self.heavy
    }

    /// Newest tokens.
    pub(crate) const fn local(&self) -> usize {
        self.local
    }

    /// Heavy and newest tokens that go into `left` slots: in their proportion where they have to be fewer, or where the
    /// strategy would keep everything.
    fn sizes(&self, left: usize) -> (usize, usize) {
        let all = self.heavy + self.local;
        if all <= left && self.strategy != Strategy::Full {
            return (self.heavy, self.local);
        }
        // `left * local / all`, rounded down, without overflow.
        let local = (left / all * self.local + left % all * self.local / all).max(1);
        (left - local, local)
    }

    /// Tokens of its classes that a head of `room` tokens keeps: what heavy hitters and window leave, and a third where they
    /// would leave less. The window has one slot at least, so the newest token always has its own.
    fn of_class_at_most(&self, room: usize) -> usize {
        let left = room.saturating_sub(self.heavy + self.local);
        left.max(room / 3)
    }

    /// Slots that a head of `room` tokens keeps of the prompt, ascending: the first of its classes, the newest, and the best
    /// scores of the others.
    pub(crate) fn kept(&self, view: &LayerView<'_>, head: usize, room: usize) -> Vec<usize> {
        let tokens = view.prompt;
        if self.strategy == Strategy::Full && room >= tokens {
            return (0..tokens).collect();
        }
        let (classes, named) = (view.classes(), self.strategy.classes());
        let of_class = (0..tokens).filter(|&token| named.names(classes[token]));
        let mut kept = vec![false; tokens];
        let mut left = room;
        for token in of_class.take(self.of_class_at_most(room)) {
            kept[token] = true;
            left -= 1;
        }
        let (heavy, local) = self.sizes(left);
        let window = tokens - local.min(tokens);
        kept[window..].fill(true);
        let others: Vec<usize> = (0..window).filter(|&token| !kept[token]).collect();
        for token in best(view, head, &others, heavy) {
            kept[token] = true;
        }
        (0..tokens).filter(|&token| kept[token]).collect()
    }

    /// How a head of `room` tokens grows.
    pub(crate) fn growth(&self, room: usize) -> Growth {
        let is_full = self.strategy == Strategy::Full;
        if is_full && room == usize::MAX {
            return Growth::Append;
        }
        let (heavy, local) = if is_full {
            self.sizes(room)
        } else {
            (self.heavy, self.local)
        };
        Growth::Protect {
            classes: self.strategy.classes(),
            limit: heavy + local,
            // The newcomer is one of the window.
            recent: local - 1,
            most: room,
        }
    }
}

/// Of these tokens the `count` with the highest accumulated attention.
pub(crate) fn best(
    view: &LayerView<'_>,
    head: usize,
    tokens: &[usize],
    count: usize,
) -> impl Iterator<Item = usize> {
    let all = view.scores(head);
    let scores: Vec<f32> = tokens.iter().map(|&token| all[token]).collect();
    top(&scores, count).into_iter().map(|index| tokens[index])
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "token counts are far below 2^52 and the share is between 0 and 1"
)]
fn share_of(tokens: usize, share: f64) -> usize {
    // A share is rarely a binary fraction: 0.29 of 100 must be 29, not 28.999.
    (tokens as f64 * share + 1e-9) as usize
}
