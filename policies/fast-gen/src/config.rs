//! What a user may set, and what is refused.
use kv_core::{Budget, ConfigError, Geometry, PolicyConfig, schemars::JsonSchema};
use serde::{Deserialize, Serialize};

use crate::FastGen;

/// Configuration of [`FastGen`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct FastGenConfig {
    /// Share of a KV head's attention on the prompt that its strategy must recover, from 0 to 1: the paper's `T`. More makes
    /// more heads keep more.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub recovery: f64,
    /// Heavy hitters that the strategies with any keep, as a share of the prompt, from 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub heavy_share: f64,
    /// Newest tokens that the strategy with a window keeps, as a share of the prompt, from 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub local_share: f64,
}

impl Default for FastGenConfig {
    /// The shares of the paper, and the upper end of the recovery that it calls harmless.
    fn default() -> Self {
        Self {
            recovery: 0.9,
            heavy_share: 0.3,
            local_share: 0.3,
        }
    }
}

impl PolicyConfig for FastGenConfig {
    const NAME: &'static str = "fast-gen";
    const SUMMARY: &'static str =
        "every head the leanest strategy that recovers its attention (Ge et al. 2024)";
    type Policy = FastGen;

    fn bind(self, geometry: &Geometry, _: Budget) -> Result<FastGen, ConfigError> {
        for (field, share, of) in [
            ("recovery", self.recovery, "a head's attention"),
            ("heavy_share", self.heavy_share, "the prompt"),
            ("local_share", self.local_share, "the prompt"),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err(ConfigError::out_of_range(
                    Self::NAME,
                    field,
                    ConfigError::written(share),
                    format!("from 0 to 1: a share of {of}"),
                ));
            }
        }
        Ok(FastGen::new(self, geometry.kv_heads))
    }
}
