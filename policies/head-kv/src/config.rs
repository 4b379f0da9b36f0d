//! What a user may set, and what is refused.
use kv_core::{
    Budget, ConfigError, Geometry, LayerShares, PolicyConfig, Pooling, Pyramid, PyramidRounding,
    Reduce, ReductionOrder, ScoreKind, WindowedScore, schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

use crate::{
    HeadKv,
    capacities::{Capacities, Options},
    profile,
};

/// The profile that is built in and fits every model: all heads matter equally. It was not learned.
pub const NEUTRAL: &str = "neutral-equal";

/// `PyramidKV`'s own.
const DEFAULT_PYRAMID_BETA: f64 = 20.0;
const MOST_TEMP: f64 = 16.0;

/// How the importance of `G` query heads becomes that of their KV head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(crate = "kv_core::schemars")]
pub enum HeadGroup {
    /// Their mean.
    #[default]
    Mean,
    /// The largest.
    Max,
}

/// How shares become whole tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(crate = "kv_core::schemars")]
pub enum Rounding {
    /// By largest remainder, and what a head cannot use goes to the others: the heads' budgets sum to the budget.
    #[default]
    Exact,
    /// Every query head by itself, as in the authors' code; the sum drifts, and what a head cannot use is lost.
    Authors,
}

/// Configuration of [`HeadKv`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct HeadKvConfig {
    /// How important each query head is: `neutral-equal`, which is built in and was not learned, or a path to scores in the
    /// authors' JSON.
    #[schemars(extend("format" = "name or path"))]
    pub profile: String,
    /// What ranks the prompt tokens of a head.
    pub score: ScoreKind,
    /// Newest prompt tokens that every KV head keeps, from 1 to the budget; with `score = "window"`, their queries are the
    /// ones observed.
    #[schemars(range(min = 1))]
    pub window: usize,
    /// Tokens that are pooled into one score: odd, 1 for no pooling, at most the model's context.
    #[schemars(range(min = 1))]
    pub kernel: usize,
    /// How the scores of `kernel` neighbours along the text become one.
    pub pooling: Pooling,
    /// How the scores of the `G` query heads of a KV head become one.
    pub group: Reduce,
    /// Whether the query heads become one before the scores are pooled, or after.
    pub order: ReductionOrder,
    /// How the importance of the `G` query heads of a KV head becomes one; `"max"` not with `rounding = "authors"`.
    pub head_group: HeadGroup,
    /// One part in `beta` of every KV head's budget, window aside, is shared by importance; from 1, and the larger, the more
    /// even. The beta of the authors' code.
    #[schemars(range(min = 1.0))]
    pub beta: f64,
    /// Exponent of the importance, from 0 (all heads alike) to 16.
    #[schemars(range(min = 0.0, max = MOST_TEMP))]
    pub temp: f64,
    /// How the heads' shares become whole tokens.
    pub rounding: Rounding,
    /// How the budget is split over layers before it is over heads; `"pyramid"` not with `rounding = "authors"`.
    pub layers: LayerShares,
    /// How steep the pyramid is, from 1 (all layers alike): the last layer gets `1 / pyramid_beta` of the average layer's
    /// tokens, window aside. With `layers = "pyramid"` only, and 20 where it is left out.
    #[schemars(range(min = 1.0))]
    pub pyramid_beta: Option<f64>,
}

impl Default for HeadKvConfig {
    /// The authors' defaults, with budgets that sum up.
    fn default() -> Self {
        Self {
            profile: NEUTRAL.into(),
            score: ScoreKind::Window,
            window: 8,
            kernel: 7,
            pooling: Pooling::Max,
            group: Reduce::Mean,
            order: ReductionOrder::GroupThenPool,
            head_group: HeadGroup::Mean,
            beta: 1.5,
            temp: 1.0,
            rounding: Rounding::Exact,
            layers: LayerShares::Uniform,
            pyramid_beta: None,
        }
    }
}

impl PolicyConfig for HeadKvConfig {
    const NAME: &'static str = "head-kv";
    const SUMMARY: &'static str =
        "heads that matter for retrieval and reasoning keep more (Fu et al. 2025)";
    type Policy = HeadKv;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<HeadKv, ConfigError> {
        let score = self.score();
        score.check(Self::NAME, geometry, budget)?;
        self.check_numbers()?;
        self.check_authors()?;
        let options = Options {
            head_group: self.head_group,
            beta: self.beta,
            temp: self.temp,
            rounding: self.rounding,
            pyramid: self.pyramid(geometry)?,
        };
        let scores = if self.profile == NEUTRAL {
            vec![1.0; geometry.heads() * geometry.group]
        } else {
            profile::read(&self.profile, geometry)?
        };
        // Whatever the file is called: heads that are all alike were not learned.
        let is_neutral = scores
            .iter()
            .all(|score| score.to_bits() == scores[0].to_bits());
        Ok(HeadKv {
            score,
            capacities: Capacities::new(&scores, geometry.kv_heads, geometry.group, options),
            is_unlimited: budget == Budget::Full,
            is_neutral,
        })
    }
}

impl HeadKvConfig {
    const fn score(&self) -> WindowedScore {
        WindowedScore {
            kind: self.score,
            window: self.window,
            kernel: self.kernel,
            pooling: self.pooling,
            group: self.group,
            order: self.order,
        }
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        if !(self.beta >= 1.0 && self.beta.is_finite()) {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "beta",
                ConfigError::written(self.beta),
                "a number from 1: one part in beta of the budget is shared by importance",
            ));
        }
        if !(0.0..=MOST_TEMP).contains(&self.temp) {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "temp",
                ConfigError::written(self.temp),
                format!("from 0 (all heads equal) to {MOST_TEMP}: an exponent"),
            ));
        }
        Ok(())
    }

    /// The authors round query heads of all layers, so that nothing else can be asked for.
    fn check_authors(&self) -> Result<(), ConfigError> {
        if self.rounding != Rounding::Authors {
            return Ok(());
        }
        if self.layers == LayerShares::Pyramid {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "layers",
                "pyramid",
                "uniform where `rounding` is authors: their budgets are over all layers",
            ));
        }
        if self.head_group == HeadGroup::Max {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "head_group",
                "max",
                "mean where `rounding` is authors: query heads are rounded first",
            ));
        }
        Ok(())
    }

    fn pyramid(&self, geometry: &Geometry) -> Result<Option<Pyramid>, ConfigError> {
        let steepness = self.pyramid_beta;
        if let Some(beta) = steepness.filter(|beta| !(*beta >= 1.0 && beta.is_finite())) {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "pyramid_beta",
                ConfigError::written(beta),
                "a number from 1 (no pyramid): the last layer gets 1/pyramid_beta of the average",
            ));
        }
        match (self.layers, steepness) {
            (LayerShares::Uniform, None) => Ok(None),
            (LayerShares::Uniform, Some(beta)) => {
                let allowed = "left out unless `layers` is pyramid";
                Err(ConfigError::out_of_range(
                    Self::NAME,
                    "pyramid_beta",
                    ConfigError::written(beta),
                    allowed,
                ))
            }
            (LayerShares::Pyramid, beta) => Ok(Some(Pyramid {
                layers: geometry.layers,
                window: self.window,
                beta: beta.unwrap_or(DEFAULT_PYRAMID_BETA),
                rounding: PyramidRounding::Exact,
            })),
        }
    }
}
