//! `DuoAttention`: some heads (retrieval heads) keep everything, the others (streaming heads) a few first tokens and a
//! window.
//!
//! Xiao et al., *DuoAttention: Efficient Long-Context LLM Inference with Retrieval and Streaming Heads*, ICLR 2025,
//! <https://arxiv.org/abs/2410.10819>.
//!
//! Which head is which is learned beforehand, one number for each of the model's `L * H` KV heads, and read from a profile
//! in the authors' format. At run time nothing is observed. The prompt is read with full attention in every head, or, where
//! [`DuoAttentionConfig::prompt`] says so, by streaming heads with sinks and window only; then a streaming head keeps `[0, sinks)` and `[n - recent, n)`, and while decoding its newcomer takes the slot of the oldest
//! token of the window. Keys keep the positions they had in the text, unless [`DuoAttentionConfig::positions`] says otherwise.
//!
//! Memory is not set by a budget but by the share of streaming heads and by their window.
#![forbid(unsafe_code)]

mod config;
mod profile;
mod select;

pub use config::{DuoAttentionConfig, NEUTRAL, PromptSight, Selection};
use kv_core::{Growth, KeepPlan, LayerView, Needs, Policy, Positions, Room, Sight};

/// Retrieval heads that keep everything, and streaming heads with sinks and a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuoAttention {
    /// Which heads are retrieval heads, `[L][H]`.
    retrieval: Vec<Vec<bool>>,
    sinks: usize,
    recent: usize,
    prompt: PromptSight,
    positions: Positions,
    /// Whether the profile is [`NEUTRAL`].
    is_neutral: bool,
}

impl DuoAttention {
    /// Which heads keep everything, `[L][H]`.
    #[must_use]
    pub fn retrieval_heads(&self) -> &[Vec<bool>] {
        &self.retrieval
    }

    /// First tokens of the text that streaming heads keep.
    #[must_use]
    pub const fn sinks(&self) -> usize {
        self.sinks
    }

    /// Latest tokens that streaming heads keep.
    #[must_use]
    pub const fn recent(&self) -> usize {
        self.recent
    }
}

impl Policy for DuoAttention {
    fn needs(&self) -> Needs {
        Needs {
            positions: self.positions,
            ..Needs::NONE
        }
    }

    fn room(&self, layer: usize, _: usize, _: usize) -> Room {
        let window = self.sinks.saturating_add(self.recent);
        let head = |&is_retrieval: &bool| if is_retrieval { usize::MAX } else { window };
        Room::Heads(self.retrieval[layer].iter().map(head).collect())
    }

    fn sight(&self, layer: usize, head: usize) -> Sight {
        let Self { sinks, recent, .. } = *self;
        match self.prompt {
            PromptSight::Streaming if !self.retrieval[layer][head] => {
                Sight::Streaming { sinks, recent }
            }
            _ => Sight::Causal,
        }
    }

    fn notice(&self) -> Option<String> {
        self.is_neutral.then(|| {
            format!(
                "the profile `{NEUTRAL}` makes every other head a retrieval head; it was not learned from any model, so \
                 that its answers say nothing about DuoAttention's"
            )
        })
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        let Self { sinks, recent, .. } = *self;
        for head in 0..view.heads() {
            if !self.retrieval[view.layer][head] {
                keep.window(head, sinks, recent);
                keep.grow(head, Growth::Ring { sinks, recent });
            }
        }
    }
}
