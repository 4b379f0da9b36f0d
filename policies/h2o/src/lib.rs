//! `H2O`: every head keeps the tokens that have drawn the most attention so far (heavy hitters), and the recent ones.
//!
//! Zhang et al., *H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models*, `NeurIPS` 2023,
//! <https://arxiv.org/abs/2306.14048>.
//!
//! A token's score is the attention that it has received from every query since it came, summed. At the end of the prompt
//! a head keeps the `heavy` best tokens and the `recent` newest; then, at every step, the lowest score outside the recent
//! ones goes. Heads differ in what they keep and agree in how much.
//!
//! The authors evict after the attention of a step, which so sees `heavy + recent + 1` keys. Here the victim leaves when
//! the next token needs its slot. Both give every step the same keys; between two steps a head holds the authors' set and
//! at most the one token that is next to go. That token is part of the budget.
#![forbid(unsafe_code)]

mod config;

pub use config::{Decode, H2oConfig, Score};
use kv_core::{
    Growth, KeepPlan, LayerView, Needs, Observation, Policy, Pool, Reduce, Reduction,
    ReductionOrder, Room, Scorer,
};

/// Heavy hitters and recent tokens, chosen by every head for itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct H2o {
    config: H2oConfig,
    /// Neither a budget nor sizes: nothing is dropped.
    is_unlimited: bool,
}

/// What a head keeps under one budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    heavy: usize,
    recent: usize,
    /// Most tokens that a head holds of the prompt, or at all if it evicts.
    limit: usize,
}

impl H2o {
    /// The sizes under a budget of `budget` tokens per KV head.
    fn sizes(&self, budget: usize) -> Sizes {
        let newcomer = self.config.newcomer();
        let (heavy, recent) = self.config.split(budget.saturating_sub(newcomer));
        let limit = heavy.saturating_add(recent.max(1)).saturating_add(newcomer);
        Sizes {
            heavy,
            recent,
            limit,
        }
    }

    fn observation(&self) -> Observation {
        match self.config.decode {
            _ if self.is_unlimited => Observation::None,
            Decode::Evict => Observation::Rows,
            Decode::Append => Observation::Accumulated,
        }
    }
}

impl Policy for H2o {
    fn needs(&self) -> Needs {
        let queries = match self.config.score {
            Score::Sum => Reduce::Sum,
            Score::Mean => Reduce::Mean,
        };
        Needs {
            observation: self.observation(),
            reduction: Reduction {
                queries,
                group: self.config.group,
                pool: Pool::None,
                order: ReductionOrder::GroupThenPool,
                shared: false,
            },
            appends: self.config.decode == Decode::Append,
            min_tokens: self.config.least(),
            ..Needs::NONE
        }
    }

    fn room(&self, _: usize, _: usize, budget: usize) -> Room {
        Room::Each(if self.is_unlimited {
            usize::MAX
        } else {
            self.sizes(budget).limit
        })
    }

    fn scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        if self.is_unlimited {
            return;
        }
        let Sizes {
            heavy,
            recent,
            limit,
        } = self.sizes(view.budget);
        // Without a window the room has a place for the newest token, which is not the method's.
        let kept = heavy
            .saturating_add(recent)
            .saturating_add(self.config.newcomer());
        for head in 0..view.heads() {
            if view.len(head) > kept {
                keep.top(head, heavy, recent);
            }
            if self.config.decode == Decode::Evict {
                keep.grow(head, Growth::EvictLowest { limit, recent });
            }
        }
    }
}

impl Scorer for H2o {
    fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
        view.scores_with_window(self.sizes(view.budget).recent.max(1))
    }
}
