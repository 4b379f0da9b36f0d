//! `TOVA`: a layer keeps the tokens that the newest query attends to, and drops the least attended one at every step.
//!
//! Oren et al., *Transformers are Multi-State RNNs*, EMNLP 2024, <https://arxiv.org/abs/2401.06104>.
//!
//! A token's score is its attention from the newest query alone, averaged over all query heads of the layer: nothing is
//! added up, and all heads keep the same tokens. After the prompt the best stay; then at every step the lowest score goes,
//! whatever its age.
//!
//! The authors drop a token after the attention of a step, which so sees one key more than stays. Here, as in `h2o`, it
//! leaves when the next token needs its slot: both give every step the same keys, and that slot is part of the budget. The
//! authors may drop the newest token of the prompt at once, by its own row; here, as in kvpress, it stays until the next.
#![forbid(unsafe_code)]

use kv_core::{
    Budget, ConfigError, Geometry, Growth, KeepPlan, LayerView, Needs, Observation, Policy,
    PolicyConfig, Reduction, Scorer, schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

/// What happens to the tokens that come after the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(crate = "kv_core::schemars")]
pub enum Decode {
    /// Each drives out the lowest score, as in the paper.
    #[default]
    Evict,
    /// All are kept: only the prompt is compressed, as in kvpress.
    Append,
}

/// Configuration of [`Tova`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct TovaConfig {
    /// What happens to the tokens that come after the prompt. With `"evict"` the budget is at least 2 tokens per KV head: one is
    /// the newcomer's.
    pub decode: Decode,
}

/// The tokens that the newest query attends to, the same in all heads of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tova {
    decode: Decode,
    /// No budget: nothing is dropped.
    is_unlimited: bool,
}

impl PolicyConfig for TovaConfig {
    const NAME: &'static str = "tova";
    const SUMMARY: &'static str =
        "the tokens that the newest query attends to, one set for a layer (Oren et al. 2024)";
    type Policy = Tova;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<Tova, ConfigError> {
        let policy = Tova {
            decode: self.decode,
            is_unlimited: budget == Budget::Full,
        };
        let least = 1 + policy.newcomer();
        if budget
            .fixed_tokens(geometry)
            .is_some_and(|most| most < least)
        {
            return Err(ConfigError::Budget {
                value: budget.to_string(),
                allowed: format!(
                    "at least {least} tokens per KV head: one and a slot for the newcomer"
                ),
            });
        }
        Ok(policy)
    }
}

impl Tova {
    /// Slots for the newcomer: a head that evicts holds the next victim until then.
    const fn newcomer(&self) -> usize {
        match self.decode {
            Decode::Evict => 1,
            Decode::Append => 0,
        }
    }
}

impl Policy for Tova {
    fn needs(&self) -> Needs {
        let observation = match self.decode {
            _ if self.is_unlimited => Observation::None,
            Decode::Evict => Observation::Latest,
            // Nothing goes while decoding, and nothing is watched.
            Decode::Append => Observation::Window { queries: 1 },
        };
        Needs {
            observation,
            reduction: Reduction {
                shared: true,
                ..Reduction::MEAN
            },
            appends: self.decode == Decode::Append,
            min_tokens: 1 + self.newcomer(),
            ..Needs::NONE
        }
    }

    fn scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        if self.is_unlimited {
            return;
        }
        for head in 0..view.heads() {
            if view.len(head) > view.budget {
                keep.top(head, view.budget.saturating_sub(1 + self.newcomer()), 1);
            }
            if self.decode == Decode::Evict {
                let limit = view.budget;
                keep.grow(head, Growth::EvictLowest { limit, recent: 0 });
            }
        }
    }
}

impl Scorer for Tova {
    fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
        if self.is_unlimited {
            return vec![vec![f32::INFINITY; view.prompt]; view.heads()];
        }
        let row = |head| {
            let mut row = view.scores(head).to_vec();
            if let Some(newest) = row.last_mut() {
                *newest = f32::INFINITY;
            }
            row
        };
        (0..view.heads()).map(row).collect()
    }
}
