//! What a user may set, and what is refused.
use kv_core::{Budget, ConfigError, Geometry, PolicyConfig, Reduce, schemars::JsonSchema};
use serde::{Deserialize, Serialize};

use crate::H2o;

const HALF: f64 = 0.5;

/// How the attention of many queries becomes one score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(crate = "kv_core::schemars")]
pub enum Score {
    /// Their sum, as in the paper: old tokens have more summands.
    #[default]
    Sum,
    /// Their sum divided by the number of queries that can see the token, as kvpress' `ObservedAttentionPress`.
    Mean,
}

/// What happens to the tokens that come after the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(crate = "kv_core::schemars")]
pub enum Decode {
    /// Each drives out the lowest score, as in the paper.
    #[default]
    Evict,
    /// All are kept: only the prompt is compressed, as in `KVCache-Factory` and kvpress.
    Append,
}

/// Configuration of [`H2o`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct H2oConfig {
    /// Tokens that every KV head keeps for their score, the paper's heavy hitters. Left out, they are what the budget has
    /// besides `recent`, or where that is left out too, `heavy_share` of the budget.
    pub heavy: Option<usize>,
    /// Latest tokens that every KV head keeps: at least 1, or 0 with `decode = "append"` where `heavy` is given. Left out,
    /// they are what the budget has besides `heavy`. Both, and with `decode = "evict"` one newcomer, fit into the budget;
    /// without a budget both are given or neither.
    pub recent: Option<usize>,
    /// Share of the budget that goes to heavy hitters, from 0 to 1, where neither `heavy` nor `recent` is given.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub heavy_share: f64,
    /// How the attention of many queries becomes one score; `"mean"` goes with `decode = "append"` only.
    pub score: Score,
    /// How the scores of the `G` query heads of a KV head become one; `"max"` goes with `decode = "append"` only.
    pub group: Reduce,
    /// What happens to the tokens that come after the prompt.
    pub decode: Decode,
}

impl Default for H2oConfig {
    /// Half heavy hitters and half recent tokens, as in the authors' scripts.
    fn default() -> Self {
        Self {
            heavy: None,
            recent: None,
            heavy_share: HALF,
            score: Score::Sum,
            group: Reduce::Sum,
            decode: Decode::Evict,
        }
    }
}

impl PolicyConfig for H2oConfig {
    const NAME: &'static str = "h2o";
    const SUMMARY: &'static str =
        "heavy hitters by accumulated attention, and recent tokens (Zhang et al. 2023)";
    type Policy = H2o;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<H2o, ConfigError> {
        self.check_share()?;
        self.check_score()?;
        self.check_recent()?;
        self.check_sizes(geometry, budget)?;
        let is_sized = self.heavy.is_some() || self.recent.is_some();
        if budget == Budget::Full {
            self.check_both_given()?;
        }
        Ok(H2o {
            config: self,
            is_unlimited: budget == Budget::Full && !is_sized,
        })
    }
}

impl H2oConfig {
    /// Slots for the newcomer: a head that evicts holds the next victim until then.
    pub(crate) fn newcomer(&self) -> usize {
        usize::from(self.decode == Decode::Evict)
    }

    /// Fewest recent tokens.
    fn least_recent(&self) -> usize {
        self.recent.unwrap_or(1).max(1)
    }

    /// Fewest tokens per head.
    pub(crate) fn least(&self) -> usize {
        let kept = self.heavy.unwrap_or(0).saturating_add(self.least_recent());
        kept.saturating_add(self.newcomer())
    }

    /// Heavy and recent tokens of `tokens`.
    pub(crate) fn split(&self, tokens: usize) -> (usize, usize) {
        match (self.heavy, self.recent) {
            (Some(heavy), Some(recent)) => (heavy, recent),
            (Some(heavy), None) => (heavy, tokens.saturating_sub(heavy).max(1)),
            (None, Some(recent)) => (tokens.saturating_sub(recent), recent),
            (None, None) => {
                let most = tokens.saturating_sub(1);
                let heavy = share_of(tokens, self.heavy_share).min(most);
                (heavy, (tokens - heavy).max(1))
            }
        }
    }

    fn check_share(&self) -> Result<(), ConfigError> {
        let share = self.heavy_share;
        if !(0.0..=1.0).contains(&share) {
            let value = ConfigError::written(share);
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "heavy_share",
                value,
                "from 0 to 1: a share of the budget",
            ));
        }
        let is_sized = self.heavy.is_some() || self.recent.is_some();
        if is_sized && share.to_bits() != HALF.to_bits() {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "heavy_share",
                share,
                "left out where `heavy` or `recent` is given: they decide the split",
            ));
        }
        Ok(())
    }

    fn check_score(&self) -> Result<(), ConfigError> {
        if self.score == Score::Mean && self.decode == Decode::Evict {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "score",
                "mean",
                "sum where `decode` is evict: the attention of later steps is added to the score",
            ));
        }
        if self.group == Reduce::Max && self.decode == Decode::Evict {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "group",
                "max",
                "sum or mean where `decode` is evict: rows of later steps are reduced before they are added",
            ));
        }
        Ok(())
    }

    fn check_recent(&self) -> Result<(), ConfigError> {
        let has_heavy = self.heavy.is_some_and(|heavy| heavy > 0);
        match (self.recent, self.decode) {
            (Some(0), Decode::Evict) => Err(ConfigError::out_of_range(
                Self::NAME,
                "recent",
                0,
                "at least 1 where `decode` is evict: the newest token is always kept",
            )),
            (Some(0), Decode::Append) if !has_heavy => Err(ConfigError::out_of_range(
                Self::NAME,
                "recent",
                0,
                "at least 1 unless `heavy` is given: the newest token is always kept",
            )),
            _ => Ok(()),
        }
    }

    fn check_sizes(&self, geometry: &Geometry, budget: Budget) -> Result<(), ConfigError> {
        let most = budget
            .fixed_tokens(geometry)
            .unwrap_or(geometry.max_positions);
        let newcomer = self.newcomer();
        let recent = self.least_recent();
        let slot = if newcomer > 0 {
            " and a slot for the newcomer"
        } else {
            ""
        };
        if 1 + newcomer > most {
            return Err(ConfigError::Budget {
                value: budget.to_string(),
                allowed: format!(
                    "at least {} tokens per KV head: a recent one{slot}",
                    1 + newcomer
                ),
            });
        }
        if recent > most - newcomer {
            let allowed = format!(
                "at most {}: {most} tokens per head{}",
                most - newcomer,
                slot.replace(" and", " less")
            );
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "recent",
                recent,
                allowed,
            ));
        }
        let left = most - newcomer - recent;
        match self.heavy {
            Some(heavy) if heavy > left => Err(ConfigError::out_of_range(
                Self::NAME,
                "heavy",
                heavy,
                format!("at most {left}: {most} tokens per head less {recent} recent{slot}"),
            )),
            _ => Ok(()),
        }
    }

    /// Without a budget there is no rest that the other size could be.
    fn check_both_given(&self) -> Result<(), ConfigError> {
        match (self.heavy, self.recent) {
            (Some(_), None) => Err(ConfigError::out_of_range(
                Self::NAME,
                "recent",
                "not given",
                "given next to `heavy` where there is no budget",
            )),
            (None, Some(_)) => Err(ConfigError::out_of_range(
                Self::NAME,
                "heavy",
                "not given",
                "given next to `recent` where there is no budget",
            )),
            _ => Ok(()),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "token counts are far below 2^52 and the share is between 0 and 1"
)]
fn share_of(tokens: usize, share: f64) -> usize {
    // A share is rarely a binary fraction: 0.29 of 100 must be 29, not 28.999.
    (tokens as f64 * share + 1e-9) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(
        heavy: Option<usize>,
        recent: Option<usize>,
        share: f64,
        tokens: usize,
    ) -> (usize, usize) {
        let config = H2oConfig {
            heavy,
            recent,
            heavy_share: share,
            ..H2oConfig::default()
        };
        config.split(tokens)
    }

    #[test]
    fn a_budget_is_split_in_two_and_the_window_is_never_empty() {
        assert_eq!(split(None, None, 0.5, 63), (31, 32));
        assert_eq!(split(None, None, 0.29, 100), (29, 71));
        assert_eq!(split(None, None, 1.0, 63), (62, 1));
        assert_eq!(split(None, None, 0.0, 63), (0, 63));
        assert_eq!(split(None, None, 0.5, 1), (0, 1));
    }

    #[test]
    fn one_size_leaves_the_rest_to_the_other() {
        assert_eq!(split(Some(16), None, 0.5, 63), (16, 47));
        assert_eq!(split(None, Some(16), 0.5, 63), (47, 16));
        assert_eq!(split(Some(8), Some(24), 0.5, 1000), (8, 24));
    }
}
