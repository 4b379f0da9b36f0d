//! The configuration, and what is refused.
use kv_core::{Budget, ConfigError, Geometry, PolicyConfig, schemars::JsonSchema};
use serde::{Deserialize, Serialize};

use crate::{LaCache, ladder::Ladder};

/// Configuration of [`LaCache`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct LaCacheConfig {
    /// First tokens of the text that every KV head keeps; with the model's layers below the budget.
    pub start: usize,
    /// Layers in which a token is kept on its way down the ladder, from 1 and below the model's layers. Left out, it is half
    /// of them.
    #[schemars(range(min = 1))]
    pub span: Option<usize>,
    /// Of those, how many also keep the token's neighbour; below the span.
    pub overlap: usize,
}

impl Default for LaCacheConfig {
    /// The authors' of language modelling: 4 first tokens, no overlap; their span of 16 is half the layers of their models.
    fn default() -> Self {
        Self {
            start: 4,
            span: None,
            overlap: 0,
        }
    }
}

impl PolicyConfig for LaCacheConfig {
    const NAME: &'static str = "la-cache";
    const SUMMARY: &'static str =
        "neighbouring layers keep different tokens, and older text more thinly (Shi et al. 2025)";
    type Policy = LaCache;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<LaCache, ConfigError> {
        let ladder = self.ladder(geometry.layers)?;
        let most = budget
            .fixed_tokens(geometry)
            .unwrap_or(geometry.max_positions);
        if ladder.least() < most {
            return Ok(LaCache { ladder });
        }
        let Some(start) = most.checked_sub(ladder.layers + ladder.after + 1) else {
            let least = ladder.layers + ladder.after + 1;
            return Err(ConfigError::Budget {
                value: budget.to_string(),
                allowed: format!(
                    "at least {least} tokens per KV head: {} layers, a rung of {} and the newest token",
                    ladder.layers, ladder.after
                ),
            });
        };
        let allowed = format!(
            "at most {start}: {most} tokens per head less {} layers, a rung of {} and the newest token",
            ladder.layers, ladder.after
        );
        Err(ConfigError::out_of_range(
            Self::NAME,
            "start",
            self.start,
            allowed,
        ))
    }
}

impl LaCacheConfig {
    /// Groups are as wide as a token takes to come back to the same layer.
    pub(crate) fn ladder(self, layers: usize) -> Result<Ladder, ConfigError> {
        let refuse = |field, value: usize, allowed: String| {
            Err(ConfigError::out_of_range(Self::NAME, field, value, allowed))
        };
        let span = self.span.unwrap_or((layers / 2).max(1));
        if span == 0 || span >= layers {
            let allowed = format!("from 1 and below the {layers} layers of the model");
            return refuse("span", span, allowed);
        }
        if self.overlap >= span {
            let allowed = format!("below the span of {span} layers");
            return refuse("overlap", self.overlap, allowed);
        }
        let step = span - self.overlap;
        let before = 1 + (layers - span).div_ceil(step);
        let after = span.div_ceil(step).min(before);
        if after == before {
            let allowed = format!(
                "less with a span of {span} of {layers} layers: every layer would keep every token"
            );
            return refuse("overlap", self.overlap, allowed);
        }
        Ok(Ladder {
            layers,
            start: self.start,
            before,
            after,
        })
    }
}
