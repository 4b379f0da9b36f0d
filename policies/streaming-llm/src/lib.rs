//! `StreamingLLM`: every head keeps the first tokens of the text (attention sinks) and a window of recent ones.
//!
//! Xiao et al., *Efficient Streaming Language Models with Attention Sinks*, ICLR 2024,
//! <https://arxiv.org/abs/2309.17453>.
//!
//! The prompt is read with full attention and trimmed to `[0, sinks)` and `[n - recent, n)`; while decoding, the
//! newcomer takes the slot of the oldest token outside the sinks. Nothing is observed, and all heads are alike.
//! Keys keep the positions they had in the text, or with `positions = "cache-relative"` stand where they do in the cache, as in the paper;
//! see the method's page in `docs/`.
#![forbid(unsafe_code)]

use kv_core::{
    Budget, ConfigError, Geometry, Growth, KeepPlan, LayerView, Needs, Policy, PolicyConfig,
    Positions, Room, schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

/// The window where neither a budget nor a window is given: the authors' class default.
const DEFAULT_RECENT: usize = 512;

/// Configuration of [`StreamingLlm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct StreamingLlmConfig {
    /// First tokens of the text that every KV head keeps, the paper's attention sinks; fewer than the budget.
    pub sinks: usize,
    /// Latest tokens that every KV head keeps, from 1; with the sinks at most the budget. Left out, it is the budget less
    /// the sinks, and 512 without a budget.
    #[schemars(range(min = 1))]
    pub recent: Option<usize>,
    /// At which positions attention sees the keys: `original`, where they stood in the text, or `cache-relative`, where they stand in the
    /// cache, as in the paper; then a text may go on past the model's context.
    pub positions: Positions,
}

impl Default for StreamingLlmConfig {
    /// The authors' defaults: four sinks, and a window that the budget decides.
    fn default() -> Self {
        Self {
            sinks: 4,
            recent: None,
            positions: Positions::Original,
        }
    }
}

/// Sinks and a window, the same in every layer and head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamingLlm {
    sinks: usize,
    /// `None`: what the budget leaves, which for a share of the prompt is known with the prompt only.
    recent: Option<usize>,
    positions: Positions,
}

impl PolicyConfig for StreamingLlmConfig {
    const NAME: &'static str = "streaming-llm";
    const SUMMARY: &'static str =
        "attention sinks and a window of recent tokens in every head (Xiao et al. 2024)";
    type Policy = StreamingLlm;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<StreamingLlm, ConfigError> {
        let Self {
            sinks,
            recent,
            positions,
        } = self;
        let budget_tokens = budget.fixed_tokens(geometry);
        let most = budget_tokens.unwrap_or(geometry.max_positions);
        if sinks >= most {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "sinks",
                sinks,
                format!("below the {most} tokens that a head may hold"),
            ));
        }
        match recent {
            Some(0) => Err(ConfigError::out_of_range(
                Self::NAME,
                "recent",
                0,
                "at least 1: the newest token is always kept",
            )),
            Some(recent) if recent > most - sinks => Err(ConfigError::out_of_range(
                Self::NAME,
                "recent",
                recent,
                format!(
                    "at most {}: {most} tokens per head less {sinks} sinks",
                    most - sinks
                ),
            )),
            Some(_) => Ok(StreamingLlm {
                sinks,
                recent,
                positions,
            }),
            None if budget == Budget::Full => {
                let recent = DEFAULT_RECENT.min(most - sinks);
                Ok(StreamingLlm {
                    sinks,
                    recent: Some(recent),
                    positions,
                })
            }
            None => Ok(StreamingLlm {
                sinks,
                recent: budget_tokens.map(|tokens| tokens - sinks),
                positions,
            }),
        }
    }
}

impl StreamingLlm {
    fn recent(&self, budget: usize) -> usize {
        self.recent
            .unwrap_or_else(|| budget.saturating_sub(self.sinks).max(1))
    }
}

impl Policy for StreamingLlm {
    fn needs(&self) -> Needs {
        Needs {
            min_tokens: self.sinks + self.recent.unwrap_or(1),
            positions: self.positions,
            ..Needs::NONE
        }
    }

    fn room(&self, _: usize, _: usize, budget: usize) -> Room {
        Room::Each(self.recent.map_or(budget, |recent| self.sinks + recent))
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        let (sinks, recent) = (self.sinks, self.recent(view.budget));
        for head in 0..view.heads() {
            keep.window(head, sinks, recent);
            keep.grow(head, Growth::Ring { sinks, recent });
        }
    }
}
