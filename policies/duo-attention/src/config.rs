//! What a user may set, and what is refused.
use kv_core::{Budget, ConfigError, Geometry, PolicyConfig, Positions, schemars::JsonSchema};
use serde::{Deserialize, Serialize};

use crate::{
    DuoAttention,
    profile::Profile,
    select::{Cut, retrieval_heads},
};

/// The profile that is built in and fits every model: head `h` of layer `l` is a retrieval head if `l + h` is even. It was
/// not learned.
pub const NEUTRAL: &str = "neutral-alternating";

/// Sinks and window where neither the user nor the profile says: what the authors evaluate with.
const DEFAULT_SINKS: usize = 64;
const DEFAULT_RECENT: usize = 256;
const DEFAULT_SPARSITY: f64 = 0.5;

/// How a share of streaming heads becomes a number of heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(crate = "kv_core::schemars")]
pub enum Selection {
    /// Just that share, rounded; heads of equal value are spread over the layers.
    #[default]
    Exact,
    /// All heads from the quantile of the values on, as in the authors' code, without the noise that they add. Heads of
    /// equal value stay together, so that there may be more retrieval heads.
    Quantile,
}

/// What a streaming head sees while the prompt is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(crate = "kv_core::schemars")]
pub enum PromptSight {
    /// Everything, as in the authors' code for a prompt that is read in one piece.
    #[default]
    Dense,
    /// Sinks and window only, as the heads were trained: its work grows with the prompt's length instead of its square. On a CPU.
    Streaming,
}

/// Configuration of [`DuoAttention`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct DuoAttentionConfig {
    /// How much each KV head retrieves: `neutral-alternating`, which is built in and was not learned, or a path to the
    /// authors' `full_attention_heads.tsv` or the folder that holds it.
    #[schemars(extend("format" = "name or path"))]
    pub profile: String,
    /// Share of the model's KV heads that stream, the authors' sparsity, from 0 to 1; 0.5 where neither it nor `threshold` is
    /// given.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sparsity: Option<f64>,
    /// Instead of a share: KV heads whose value in the profile, clipped to 0 to 1, is at least this are retrieval heads.
    /// From 0 to 1; not with `sparsity`, and not with `selection = "quantile"`.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub threshold: Option<f64>,
    /// First tokens of the text that a streaming head keeps, its attention sinks; fewer than the model's context. Left out,
    /// they are the profile's `sink_size`, else 64.
    pub sinks: Option<usize>,
    /// Latest tokens that a streaming head keeps, from 1; with the sinks at most the model's context. Left out, they are the
    /// profile's `recent_size`, else 256.
    #[schemars(range(min = 1))]
    pub recent: Option<usize>,
    /// How the share of streaming heads becomes a number of heads.
    pub selection: Selection,
    /// What a streaming head sees while the prompt is read: `dense`, everything, or `streaming`, sinks and window.
    pub prompt: PromptSight,
    /// At which positions streaming heads see their keys: `original`, where they stood in the text, or `cache-relative`, where they stand
    /// in the cache.
    pub positions: Positions,
}

impl Default for DuoAttentionConfig {
    /// Half of the heads stream, as the authors have it for models with grouped queries.
    fn default() -> Self {
        Self {
            profile: NEUTRAL.into(),
            sparsity: None,
            threshold: None,
            sinks: None,
            recent: None,
            selection: Selection::Exact,
            prompt: PromptSight::Dense,
            positions: Positions::Original,
        }
    }
}

impl PolicyConfig for DuoAttentionConfig {
    const NAME: &'static str = "duo-attention";
    const SUMMARY: &'static str =
        "retrieval heads keep everything, streaming heads sinks and a window (Xiao et al. 2025)";
    type Policy = DuoAttention;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<DuoAttention, ConfigError> {
        if budget != Budget::Full {
            return Err(ConfigError::Budget {
                value: budget.to_string(),
                allowed: "full: duo-attention's memory is set by `sparsity`, `sinks` and `recent`"
                    .into(),
            });
        }
        let cut = self.cut()?;
        self.check_window(geometry)?;
        let neutral = Profile::neutral(geometry);
        let profile = if self.profile == NEUTRAL {
            neutral.clone()
        } else {
            Profile::read(
                &self.profile,
                geometry,
                self.sinks.is_none() || self.recent.is_none(),
            )?
        };
        Ok(DuoAttention {
            prompt: self.prompt,
            positions: self.positions,
            retrieval: retrieval_heads(&profile.values, cut),
            sinks: self.sinks.or(profile.sinks).unwrap_or(DEFAULT_SINKS),
            recent: self.recent.or(profile.recent).unwrap_or(DEFAULT_RECENT),
            // Whatever the file is called.
            is_neutral: profile.values == neutral.values,
        })
    }
}

impl DuoAttentionConfig {
    /// What divides the heads.
    fn cut(&self) -> Result<Cut, ConfigError> {
        for (field, value, meaning) in [
            ("sparsity", self.sparsity, "a share of the KV heads"),
            ("threshold", self.threshold, "values are clipped to that"),
        ] {
            if let Some(value) = value.filter(|value| !(0.0..=1.0).contains(value)) {
                return Err(ConfigError::out_of_range(
                    Self::NAME,
                    field,
                    ConfigError::written(value),
                    format!("from 0 to 1: {meaning}"),
                ));
            }
        }
        match (self.sparsity, self.threshold, self.selection) {
            (Some(_), Some(threshold), _) => Err(ConfigError::out_of_range(
                Self::NAME,
                "threshold",
                threshold,
                "left out where `sparsity` is given: either of them divides the heads",
            )),
            (None, Some(_), Selection::Quantile) => Err(ConfigError::out_of_range(
                Self::NAME,
                "selection",
                "quantile",
                "exact where `threshold` is given: it divides the heads by itself",
            )),
            (None, Some(threshold), Selection::Exact) => Ok(Cut::Threshold(threshold)),
            (sparsity, None, selection) => {
                let sparsity = sparsity.unwrap_or(DEFAULT_SPARSITY);
                Ok(match selection {
                    Selection::Exact => Cut::Share(sparsity),
                    Selection::Quantile => Cut::Quantile(sparsity),
                })
            }
        }
    }

    /// Refuses a window that is none, or one longer than the model can read.
    fn check_window(&self, geometry: &Geometry) -> Result<(), ConfigError> {
        let most = geometry.max_positions;
        if self.recent == Some(0) {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "recent",
                0,
                "at least 1: the newest token is always kept",
            ));
        }
        if let Some(sinks) = self.sinks.filter(|&sinks| sinks >= most) {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "sinks",
                sinks,
                format!("below the {most} positions of the model"),
            ));
        }
        let sinks = self.sinks.unwrap_or(0);
        match self.recent {
            Some(recent) if recent > most - sinks => Err(ConfigError::out_of_range(
                Self::NAME,
                "recent",
                recent,
                format!(
                    "at most {}: {most} positions of the model less {sinks} sinks",
                    most - sinks
                ),
            )),
            _ => Ok(()),
        }
    }
}
