//! A policy that reads scores and positions by itself, gives its heads different room, and says something about itself. This
//! file is compiled into the test, and into a program of its own.
use kv_core::{
    Budget, ConfigError, Geometry, Growth, KeepPlan, LayerView, Needs, Observation, Policy,
    PolicyConfig, Pool, Reduce, Reduction, ReductionOrder, Room, rank, schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

/// What a user may set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub(crate) struct ReaderConfig {
    /// Share of the budget that every other KV head holds, from 0 (one token) to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub(crate) odd: f64,
    /// How much a token gains by being late, in scores per position.
    pub(crate) late: Option<u32>,
}

impl Default for ReaderConfig {
    fn default() -> Self {
        Self {
            odd: 0.3,
            late: None,
        }
    }
}

/// Ranks by scores that it reads.
#[derive(Debug)]
pub(crate) struct Reader {
    config: ReaderConfig,
    heads: usize,
    is_unbounded: bool,
}

impl PolicyConfig for ReaderConfig {
    const NAME: &'static str = "reader";
    const SUMMARY: &'static str = "ranks tokens by scores that it reads itself";
    type Policy = Reader;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<Reader, ConfigError> {
        if !(0.0..=1.0).contains(&self.odd) {
            let value = ConfigError::written(self.odd);
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "odd",
                value,
                "from 0 to 1",
            ));
        }
        Ok(Reader {
            config: self,
            heads: geometry.kv_heads,
            is_unbounded: budget == Budget::Full,
        })
    }
}

impl Reader {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a number of tokens"
    )]
    fn limit(&self, head: usize, budget: usize) -> usize {
        if budget == usize::MAX || head.is_multiple_of(2) {
            return budget;
        }
        ((budget as f64 * self.config.odd) as usize).max(1)
    }
}

impl Policy for Reader {
    fn needs(&self) -> Needs {
        if self.is_unbounded {
            return Needs::NONE;
        }
        Needs {
            observation: Observation::Window { queries: 3 },
            reduction: Reduction {
                queries: Reduce::Sum,
                group: Reduce::Max,
                pool: Pool::Average(5),
                order: ReductionOrder::PoolThenGroup,
                shared: false,
            },
            ..Needs::NONE
        }
    }

    fn room(&self, _: usize, _: usize, budget: usize) -> Room {
        Room::Heads((0..self.heads).map(|h| self.limit(h, budget)).collect())
    }

    fn notice(&self) -> Option<String> {
        (self.config.odd < 0.5).then(|| format!("odd heads hold {}", self.config.odd))
    }

    #[expect(clippy::cast_precision_loss, reason = "positions of a test")]
    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        for head in 0..view.heads() {
            let (limit, mut order) = (self.limit(head, view.budget), view.by_age(head));
            if limit == usize::MAX {
                continue;
            }
            keep.grow(head, Growth::EvictLowest { limit, recent: 1 });
            let Some(newest) = order.pop().filter(|_| order.len() >= limit) else {
                continue;
            };
            let late = self.config.late.unwrap_or(0) as f32;
            let value = |slot: u32| {
                let position = view.position(head, slot as usize);
                view.scores(head)[slot as usize] + late * position.0 as f32
            };
            order.sort_by(|&a, &b| rank((value(a), a as usize), (value(b), b as usize)));
            order.truncate(limit - 1);
            order.push(newest);
            keep.slots(head, order);
        }
    }
}
