//! The configuration, and what is refused.
use kv_core::{Budget, ConfigError, Geometry, PolicyConfig, schemars::JsonSchema};
use serde::{Deserialize, Serialize};

use crate::Cake;

/// Configuration of [`Cake`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct CakeConfig {
    /// Newest prompt tokens that every KV head keeps, from 2 to the budget. Their queries are the ones that say what a layer
    /// and a token are worth.
    #[schemars(range(min = 2))]
    pub window: usize,
    /// Tokens that are averaged into one score: odd, 1 for no pooling, at most the model's context.
    #[schemars(range(min = 1))]
    pub kernel: usize,
    /// What the variance of a token's attention counts beside its mean, from 0 (nothing).
    #[schemars(range(min = 0.0))]
    pub gamma: f64,
    /// Temperature of the entropy in a layer's preference, from 0.1 to 10: the larger, the less it counts.
    #[schemars(range(min = 0.1, max = 10.0))]
    pub tau1: f64,
    /// Temperature of the variance in a layer's preference, from 0.1 to 10.
    #[schemars(range(min = 0.1, max = 10.0))]
    pub tau2: f64,
}

impl Default for CakeConfig {
    /// The authors' settings of every model, and their temperatures for one that they have not tuned.
    fn default() -> Self {
        Self {
            window: 32,
            kernel: 5,
            gamma: 200.0,
            tau1: 1.0,
            tau2: 1.0,
        }
    }
}

impl PolicyConfig for CakeConfig {
    const NAME: &'static str = "cake";
    const SUMMARY: &'static str =
        "layers share one budget by how their attention spreads and shifts (Qin et al. 2025)";
    type Policy = Cake;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<Cake, ConfigError> {
        self.check(geometry, budget)?;
        Ok(Cake {
            config: self,
            layers: geometry.layers,
            kv_heads: geometry.kv_heads,
            is_unlimited: budget == Budget::Full,
        })
    }
}

impl CakeConfig {
    fn check(&self, geometry: &Geometry, budget: Budget) -> Result<(), ConfigError> {
        let refuse = |field, value: String, allowed: String| {
            Err(ConfigError::out_of_range(Self::NAME, field, value, allowed))
        };
        let context = geometry.max_positions;
        let most = budget.fixed_tokens(geometry).unwrap_or(context);
        if self.window < 2 || self.window > most {
            let allowed = if self.window < 2 {
                "at least 2: a variance needs two queries".into()
            } else {
                format!("at most the {most} tokens that a head may hold")
            };
            return refuse("window", self.window.to_string(), allowed);
        }
        if self.kernel.is_multiple_of(2) || self.kernel > context {
            let allowed = format!("odd, from 1 (no pooling) to {}", context.max(1));
            return refuse("kernel", self.kernel.to_string(), allowed);
        }
        if !(self.gamma >= 0.0 && self.gamma.is_finite()) {
            let allowed = "a number from 0 (the mean alone)".into();
            return refuse("gamma", ConfigError::written(self.gamma), allowed);
        }
        for (field, tau) in [("tau1", self.tau1), ("tau2", self.tau2)] {
            if !(0.1..=10.0).contains(&tau) {
                return refuse(field, ConfigError::written(tau), "from 0.1 to 10".into());
            }
        }
        Ok(())
    }
}
