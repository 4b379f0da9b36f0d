//! What a method has to beat: tokens taken at random, and the newest ones. Neither looks at the text.
use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Policy, PolicyConfig, Registry,
    schemars::JsonSchema,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Adds both to the policies of a registry.
pub fn add(registry: &mut Registry) {
    registry.add::<RandomConfig>().add::<RecencyConfig>();
}

/// Nothing to observe; what is generated is appended.
const NEEDS: Needs = Needs {
    appends: true,
    ..Needs::NONE
};

/// Configuration of [`Random`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct RandomConfig {
    /// Seed of the choice; prompts of one length keep the same slots.
    pub seed: u64,
}

/// The newest prompt token, and others at random, other ones in every head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Random {
    seed: u64,
}

impl PolicyConfig for RandomConfig {
    const NAME: &'static str = "random";
    const SUMMARY: &'static str = "prompt tokens at random, other ones in every head: a baseline";
    type Policy = Random;

    fn bind(self, _: &Geometry, _: Budget) -> Result<Random, ConfigError> {
        Ok(Random { seed: self.seed })
    }
}

impl Policy for Random {
    fn needs(&self) -> Needs {
        NEEDS
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        for head in 0..view.heads() {
            let len = view.len(head);
            if len <= view.budget {
                continue;
            }
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            // A stream of its own for each head of each layer.
            rng.set_stream(((view.layer as u64) << 32) | head as u64);
            let scores = (0..len).map(|_| rng.random()).collect();
            keep.top_by(head, scores, view.budget.saturating_sub(1), 1);
        }
    }
}

/// Configuration of [`Recency`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct RecencyConfig {}

/// The newest prompt tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recency;

impl PolicyConfig for RecencyConfig {
    const NAME: &'static str = "recency";
    const SUMMARY: &'static str = "the newest prompt tokens, without sinks: a baseline";
    type Policy = Recency;

    fn bind(self, _: &Geometry, _: Budget) -> Result<Recency, ConfigError> {
        Ok(Recency)
    }
}

impl Policy for Recency {
    fn needs(&self) -> Needs {
        NEEDS
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        for head in 0..view.heads() {
            keep.window(head, 0, view.budget);
        }
    }
}
