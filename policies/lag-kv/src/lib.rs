//! `LagKV`: a head keeps the tokens whose keys and values stand out against the tokens that follow.
//!
//! Liang et al., *LagKV: Lag-Relative Information of the KV Cache Tells Which Tokens Are Important*, 2025,
//! <https://arxiv.org/abs/2504.04704>.
//!
//! Behind the `sinks` first tokens a prompt is cut into partitions of `lag` tokens. The keys of a partition are brought, channel by
//! channel, to the range of the next partition's keys; a token that then differs much from channel to channel stands out.
//! So do the values, and the mean of both, each a softmax over the partition, ranks its tokens. The sinks, the last whole
//! partition and what is left behind it are not ranked: they stay.
//!
//! The score is the one of kvpress' `LagKVPress`. The authors' code adds keys and values where this takes their mean, which
//! ranks alike; it keeps a fixed share of every partition, where this fills the budget with the best of all, and it compresses
//! while decoding too, where this appends. A channel that does not vary in the next partition, by which they divide, is
//! left out here.
#![forbid(unsafe_code)]

mod score;

use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Policy, PolicyConfig, Reads, Scorer,
    schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

/// Configuration of [`LagKv`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct LagKvConfig {
    /// First tokens of the prompt that every KV head keeps. The newest token has to fit into the budget beside them.
    pub sinks: usize,
    /// Tokens of a partition, at least 1. Each partition is compared with the next, so that a prompt is ranked from `sinks` and
    /// two partitions on; of a shorter one the newest tokens stay.
    #[schemars(range(min = 1))]
    pub lag: usize,
    /// Whether tokens of different partitions are compared by their scores, or by their rank within the partition.
    pub cross_scoring: bool,
}

impl Default for LagKvConfig {
    /// As kvpress: 4 sinks, partitions of 128, by rank.
    fn default() -> Self {
        Self {
            sinks: 4,
            lag: 128,
            cross_scoring: false,
        }
    }
}

/// Sinks, the tokens that stand out and the newest, equally many in every head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LagKv {
    config: LagKvConfig,
    /// No budget: nothing is dropped.
    is_unlimited: bool,
}

impl PolicyConfig for LagKvConfig {
    const NAME: &'static str = "lag-kv";
    const SUMMARY: &'static str =
        "the prompt tokens that stand out against those that follow (Liang et al. 2025)";
    type Policy = LagKv;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<LagKv, ConfigError> {
        let most = budget
            .fixed_tokens(geometry)
            .unwrap_or(geometry.max_positions);
        if self.sinks >= most {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "sinks",
                self.sinks,
                format!(
                    "at most {}: {most} tokens per head less the newest",
                    most - 1
                ),
            ));
        }
        if self.lag == 0 {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "lag",
                0,
                "at least 1",
            ));
        }
        Ok(LagKv {
            config: self,
            is_unlimited: budget == Budget::Full,
        })
    }
}

impl Policy for LagKv {
    fn needs(&self) -> Needs {
        Needs {
            reads: Reads {
                keys: !self.is_unlimited,
                values: !self.is_unlimited,
                ..Reads::NONE
            },
            appends: true,
            min_tokens: self.config.sinks + 1,
            ..Needs::NONE
        }
    }

    fn scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        if view.prompt <= view.budget {
            return;
        }
        for (head, scores) in self.scores(view).into_iter().enumerate() {
            keep.top_by(head, scores, view.budget, 0);
        }
    }
}

impl Scorer for LagKv {
    fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
        if self.is_unlimited {
            let row = |head| vec![f32::INFINITY; view.len(head)];
            return (0..view.heads()).map(row).collect();
        }
        let dims = view.head_dim();
        let row = |head| {
            let n = view.len(head);
            let mut row = score::unranked(self.config.sinks, n);
            let ranked = score::ranked(&self.config, view.keys(head), view.values(head), dims);
            row[self.config.sinks.min(n)..][..ranked.len()].copy_from_slice(&ranked);
            row
        };
        (0..view.heads()).map(row).collect()
    }
}
