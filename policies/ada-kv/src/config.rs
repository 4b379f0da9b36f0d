//! What a user writes, and what of it is refused.
use kv_core::{
    Budget, ConfigError, Geometry, LayerShares, Over, Policy, PolicyConfig, Pooling, Pyramid,
    PyramidRounding, Reduce, ReductionOrder, Registry, ScoreKind, WindowedScore,
    schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

use crate::AdaKv;

/// The authors' pyramid.
const DEFAULT_BETA: f64 = 20.0;

/// How a head is kept from starving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(crate = "kv_core::schemars")]
pub enum Safeguard {
    /// A part `alpha` of the budget is split evenly, the rest by the scores: the authors' code.
    #[default]
    Mix,
    /// Every head keeps `alpha` of its even share, its window included; the rest goes by the scores: the paper, kvpress.
    Guarantee,
}

/// How the split of [`Safeguard::Mix`] becomes whole tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(crate = "kv_core::schemars")]
pub enum SplitRounding {
    /// By largest remainder: the heads' tokens sum to the layer's budget.
    #[default]
    Exact,
    /// Every head by itself, as in the authors' code; the sum drifts.
    Authors,
}

/// What happens to the heads while decoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(crate = "kv_core::schemars")]
pub enum Decode {
    /// They keep every new token.
    #[default]
    Append,
    /// They stay as long as they were made: each new token takes the place of the head's lowest score.
    Evict,
}

/// Configuration of [`AdaKv`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct AdaKvConfig {
    /// Another policy, whose score ranks the prompt tokens: then `score`, `window`, `kernel`, `pooling`, `group` and `order` are
    /// left out.
    pub over: Option<Over>,
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
    /// How the scores of the `G` query heads of a KV head become one; `"max"` not with `decode = "evict"`.
    pub group: Reduce,
    /// Whether the query heads become one before the scores are pooled, or after.
    pub order: ReductionOrder,
    /// The part of a layer's budget that its KV heads share evenly, the paper's alpha, from 0 (all by the scores) to 1 (the
    /// same for every head).
    #[schemars(range(min = 0.0, max = 1.0))]
    pub alpha: f64,
    /// What the even part is, which keeps a head from starving.
    pub safeguard: Safeguard,
    /// How the split, and a pyramid over the layers, become whole tokens; `"authors"` goes with `safeguard = "mix"` only.
    pub rounding: SplitRounding,
    /// Whether, for the split alone, a head's scores are weighed by the part of their sum that its best tokens hold; with
    /// `safeguard = "mix"` only.
    pub normalize: bool,
    /// How many of the lowest layers give all their KV heads the same, from 0 to the number of layers.
    pub skip: usize,
    /// How much of the budget each layer gets.
    pub layers: LayerShares,
    /// How steep the pyramid is, from 1 (all layers alike): the last layer gets `1 / beta` of the average layer's tokens,
    /// window aside. With `layers = "pyramid"` only, and 20 where it is left out.
    #[schemars(range(min = 1.0))]
    pub beta: Option<f64>,
    /// What happens to the heads while decoding; `"evict"` needs `score = "accumulated"`, or `over` a policy that evicts.
    pub decode: Decode,
}

impl Default for AdaKvConfig {
    /// The authors' score, and the `alpha` of their experiments with KV heads; budgets that sum to the budget.
    fn default() -> Self {
        Self {
            over: None,
            score: ScoreKind::Window,
            window: 32,
            kernel: 7,
            pooling: Pooling::Max,
            group: Reduce::Mean,
            order: ReductionOrder::GroupThenPool,
            alpha: 0.2,
            safeguard: Safeguard::Mix,
            rounding: SplitRounding::Exact,
            normalize: false,
            skip: 0,
            layers: LayerShares::Uniform,
            beta: None,
            decode: Decode::Append,
        }
    }
}

impl PolicyConfig for AdaKvConfig {
    const NAME: &'static str = "ada-kv";
    const SUMMARY: &'static str =
        "a layer's budget is split over its heads as their scores ask for it (Feng et al. 2024)";
    type Policy = AdaKv;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<AdaKv, ConfigError> {
        self.bind_in(&Registry::default(), geometry, budget)
    }

    fn bind_in(
        self,
        registry: &Registry,
        geometry: &Geometry,
        budget: Budget,
    ) -> Result<AdaKv, ConfigError> {
        let mut score = self.score();
        let over = match &self.over {
            Some(over) => Some(self.bind_over(over, registry, geometry, budget)?),
            None => {
                score.check(Self::NAME, geometry, budget)?;
                self.check_decode()?;
                None
            }
        };
        if let Some(over) = &over {
            // What the other policy never drops takes the place of the window.
            score.window = over.needs().min_tokens;
        }
        self.check_split(geometry)?;
        let pyramid = self.pyramid(geometry, score.window)?;
        Ok(AdaKv {
            score,
            over,
            pyramid,
            heads: geometry.kv_heads,
            is_unlimited: budget == Budget::Full,
            config: self,
        })
    }
}

impl AdaKvConfig {
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

    fn check_split(&self, geometry: &Geometry) -> Result<(), ConfigError> {
        if !(0.0..=1.0).contains(&self.alpha) {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "alpha",
                ConfigError::written(self.alpha),
                "from 0 (all by the scores) to 1 (the same for every head)",
            ));
        }
        if self.skip > geometry.layers {
            let allowed = format!("at most {}, the layers of the model", geometry.layers);
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "skip",
                self.skip,
                allowed,
            ));
        }
        if self.safeguard == Safeguard::Mix {
            return Ok(());
        }
        if self.rounding == SplitRounding::Authors {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "rounding",
                "authors",
                "exact with `safeguard` = guarantee: there is nothing to round",
            ));
        }
        if self.normalize {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "normalize",
                true,
                "false with `safeguard` = guarantee: it ranks the scores as they are",
            ));
        }
        Ok(())
    }

    fn check_decode(&self) -> Result<(), ConfigError> {
        if self.decode == Decode::Evict && self.score == ScoreKind::Window {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "decode",
                "evict",
                "append with `score` = window: new tokens get no such score to be evicted by",
            ));
        }
        if self.decode == Decode::Evict && self.group == Reduce::Max {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "group",
                "max",
                "mean or sum where `decode` is evict: rows of later steps are reduced before they are added",
            ));
        }
        Ok(())
    }

    fn pyramid(&self, geometry: &Geometry, window: usize) -> Result<Option<Pyramid>, ConfigError> {
        match (self.layers, self.beta) {
            (LayerShares::Uniform, None) => Ok(None),
            (LayerShares::Uniform, Some(beta)) => Err(ConfigError::out_of_range(
                Self::NAME,
                "beta",
                ConfigError::written(beta),
                "left out with `layers` = uniform: there is no pyramid",
            )),
            (LayerShares::Pyramid, beta) => {
                let pyramid = Pyramid {
                    layers: geometry.layers,
                    window,
                    beta: beta.unwrap_or(DEFAULT_BETA),
                    rounding: match self.rounding {
                        SplitRounding::Exact => PyramidRounding::Exact,
                        SplitRounding::Authors => PyramidRounding::Authors,
                    },
                };
                pyramid.check(Self::NAME)?;
                Ok(Some(pyramid))
            }
        }
    }
}

/// With `over`.
impl AdaKvConfig {
    /// Builds the policy that ranks, and refuses what is not its to say.
    fn bind_over(
        &self,
        over: &Over,
        registry: &Registry,
        geometry: &Geometry,
        budget: Budget,
    ) -> Result<Box<dyn Policy>, ConfigError> {
        self.check_left_out()?;
        let policy = over.bind_scorer((Self::NAME, "over"), registry, geometry, budget)?;
        let observation = policy.needs().observation;
        let is_bounded = budget != Budget::Full;
        if self.decode == Decode::Evict && is_bounded && !observation.watches_decode() {
            let allowed = format!(
                "append with `over` = `{}`: new tokens get no such score to be evicted by",
                over.policy()
            );
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "decode",
                "evict",
                allowed,
            ));
        }
        Ok(policy)
    }

    /// With `over`, the fields of the score are left out.
    fn check_left_out(&self) -> Result<(), ConfigError> {
        let own = Self::default();
        let pooling = match self.pooling {
            Pooling::None => "none",
            Pooling::Average => "average",
            Pooling::Max => "max",
        };
        let group = match self.group {
            Reduce::Mean => "mean",
            Reduce::Sum => "sum",
            Reduce::Max => "max",
        };
        let order = match self.order {
            ReductionOrder::GroupThenPool => "group-then-pool",
            ReductionOrder::PoolThenGroup => "pool-then-group",
        };
        let fields = [
            ("score", self.score != own.score, "accumulated".to_owned()),
            ("window", self.window != own.window, self.window.to_string()),
            ("kernel", self.kernel != own.kernel, self.kernel.to_string()),
            ("pooling", self.pooling != own.pooling, pooling.to_owned()),
            ("group", self.group != own.group, group.to_owned()),
            ("order", self.order != own.order, order.to_owned()),
        ];
        match fields.into_iter().find(|(_, is_set, _)| *is_set) {
            None => Ok(()),
            Some((field, _, value)) => Err(ConfigError::out_of_range(
                Self::NAME,
                field,
                value,
                "left out with `over`: the other policy has a score of its own",
            )),
        }
    }
}
