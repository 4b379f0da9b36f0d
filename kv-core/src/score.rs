//! The scores that several methods share: what a prompt's tokens are ranked by.
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Budget, ConfigError, Geometry, Needs, Observation, Pool, Reduce, Reduction, ReductionOrder,
};

/// What ranks the tokens of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreKind {
    /// Attention of the last prompt queries, the observation window: `SnapKV`'s score.
    #[default]
    Window,
    /// Attention accumulated over all prompt queries: H2O's score.
    Accumulated,
}

/// How scores are pooled along the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// Not at all.
    None,
    /// Mean of the neighbours; the edges count zeros and are damped.
    Average,
    /// The largest of the neighbours.
    Max,
}

/// A score over the prompt and the window of newest tokens that is kept without being scored: what `SnapKV`,
/// `PyramidKV`, Ada-KV and `HeadKV` have in common.
///
/// Each of them shows these fields to its users under the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowedScore {
    /// What ranks the tokens.
    pub kind: ScoreKind,
    /// Newest tokens, always kept, `w`; with [`ScoreKind::Window`], their queries are the ones observed.
    pub window: usize,
    /// Neighbours that are pooled, odd; 1 for none.
    pub kernel: usize,
    /// How they are pooled.
    pub pooling: Pooling,
    /// How the `G` query heads of a KV head become one.
    pub group: Reduce,
    /// Whether the group or the pool comes first.
    pub order: ReductionOrder,
}

impl WindowedScore {
    /// Refuses a window that leaves no room, and a kernel that has no middle.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`] for `window` or `kernel`.
    pub fn check(
        &self,
        policy: &'static str,
        geometry: &Geometry,
        budget: Budget,
    ) -> Result<(), ConfigError> {
        let most = budget
            .fixed_tokens(geometry)
            .unwrap_or(geometry.max_positions);
        if self.window == 0 {
            return Err(ConfigError::out_of_range(
                policy,
                "window",
                0,
                "at least 1: the newest token is always kept",
            ));
        }
        if self.window > most {
            return Err(ConfigError::out_of_range(
                policy,
                "window",
                self.window,
                format!("at most the {most} tokens that a head may hold"),
            ));
        }
        if self.kernel.is_multiple_of(2) || self.kernel > geometry.max_positions {
            return Err(ConfigError::out_of_range(
                policy,
                "kernel",
                self.kernel,
                format!(
                    "odd, from 1 (no pooling) to {}",
                    geometry.max_positions.max(1)
                ),
            ));
        }
        Ok(())
    }

    /// What a policy with this score needs that chooses among the prompt's tokens and appends what follows; under no
    /// limit there is nothing to choose, and nothing is observed.
    #[must_use]
    pub fn needs(&self, is_unlimited: bool) -> Needs {
        let observation = match self.kind {
            _ if is_unlimited => Observation::None,
            ScoreKind::Window => Observation::Window {
                queries: self.window,
            },
            ScoreKind::Accumulated => Observation::Accumulated,
        };
        Needs {
            observation,
            reduction: self.reduction(),
            appends: true,
            min_tokens: self.window,
            ..Needs::NONE
        }
    }

    fn reduction(&self) -> Reduction {
        Reduction {
            queries: match self.kind {
                ScoreKind::Window => Reduce::Mean,
                ScoreKind::Accumulated => Reduce::Sum,
            },
            group: self.group,
            pool: match self.pooling {
                Pooling::Average if self.kernel > 1 => Pool::Average(self.kernel),
                Pooling::Max if self.kernel > 1 => Pool::Max(self.kernel),
                _ => Pool::None,
            },
            order: self.order,
            shared: false,
        }
    }

    /// Tokens of a prompt of `prompt` that are ranked, `n - w`.
    #[must_use]
    pub const fn ranked(&self, prompt: usize) -> usize {
        prompt.saturating_sub(self.window)
    }

    /// Of `budget` tokens per KV head, those left for ranked tokens, `cap - w`; no limit stays none.
    #[must_use]
    pub const fn base(&self, budget: usize) -> usize {
        match budget {
            usize::MAX => usize::MAX,
            budget => budget.saturating_sub(self.window),
        }
    }
}
