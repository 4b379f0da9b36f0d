//! `HeadKV`: heads that matter more for retrieval and reasoning keep more tokens.
//!
//! Fu et al., *Not All Heads Matter: A Head-Level KV Cache Compression Method with Integrated Retrieval and Reasoning*,
//! ICLR 2025, <https://arxiv.org/abs/2410.19258>.
//!
//! How much a head matters is measured beforehand, for each of the model's query heads, and read from a profile in the
//! authors' format. Every head is guaranteed a part of the budget; the rest is split over all heads of all layers in
//! proportion to what they matter. After the prompt a head keeps its best tokens by the attention of the last queries, and
//! the window of those queries; what is generated is appended.
#![forbid(unsafe_code)]

mod capacities;
mod config;
mod profile;

use capacities::Capacities;
pub use config::{HeadGroup, HeadKvConfig, NEUTRAL, Rounding};
use kv_core::{KeepPlan, LayerView, Needs, Policy, Room, WindowedScore};

/// Budgets of every head by its importance, tokens by the window's attention.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadKv {
    score: WindowedScore,
    capacities: Capacities,
    /// Whether the budget is no limit: nothing is dropped.
    is_unlimited: bool,
    /// Whether the profile is [`NEUTRAL`].
    is_neutral: bool,
}

impl HeadKv {
    /// Tokens that each head of a layer keeps of a prompt of `prompt` tokens, window included, `[H]`, under a budget of
    /// `budget` tokens per KV head; `usize::MAX` for no limit.
    ///
    /// # Panics
    ///
    /// If the model has no such layer.
    #[must_use]
    pub fn capacities(&self, layer: usize, prompt: usize, budget: usize) -> Vec<usize> {
        if self.is_unlimited || budget == usize::MAX {
            return vec![usize::MAX; self.capacities.kv_heads()];
        }
        let ranked = self.score.ranked(prompt);
        let mut tokens = self
            .capacities
            .of_layer(layer, ranked, self.score.base(budget));
        for tokens in &mut tokens {
            *tokens += self.score.window;
        }
        tokens
    }
}

impl Policy for HeadKv {
    fn needs(&self) -> Needs {
        self.score.needs(self.is_unlimited)
    }

    fn room(&self, layer: usize, prompt: usize, budget: usize) -> Room {
        Room::Heads(self.capacities(layer, prompt, budget))
    }

    fn notice(&self) -> Option<String> {
        let neutral = self.is_neutral.then(|| {
            format!(
                "the profile `{NEUTRAL}` takes all heads for equal; it was not learned from any model, so that its answers \
                 say nothing about HeadKV's"
            )
        });
        let drift = self.capacities.drifts().then(|| {
            "`rounding` = authors: the heads' budgets need not sum to the budget, and what a head cannot use is lost"
                .to_owned()
        });
        let notices: Vec<String> = neutral.into_iter().chain(drift).collect();
        (!notices.is_empty()).then(|| notices.join("; "))
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        let window = self.score.window;
        let capacities = self.capacities(view.layer, view.prompt, view.budget);
        for (head, tokens) in capacities.into_iter().enumerate() {
            if view.len(head) > tokens {
                keep.top(head, tokens.saturating_sub(window), window);
            }
        }
    }
}
