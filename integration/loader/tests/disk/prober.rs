//! A policy that reads everything of a prompt and ranks by it, and one that works over another. This file is compiled into
//! the test, and into programs of their own.
use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Over, Policy, PolicyConfig, Reads,
    Registry, Scorer, TokenClass, schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

/// What it reads.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub(crate) struct ProberConfig {
    /// Only what is there of a prompt that comes in chunks.
    pub(crate) parts: bool,
}

/// Ranks by what it reads.
#[derive(Debug)]
pub(crate) struct Prober {
    is_unbounded: bool,
    parts: bool,
}

impl PolicyConfig for ProberConfig {
    const NAME: &'static str = "prober";
    const SUMMARY: &'static str = "reads everything";
    type Policy = Prober;

    fn bind(self, _: &Geometry, budget: Budget) -> Result<Prober, ConfigError> {
        Ok(Prober {
            is_unbounded: budget == Budget::Full,
            parts: self.parts,
        })
    }
}

impl Policy for Prober {
    fn needs(&self) -> Needs {
        let held = !self.is_unbounded;
        let all = held && !self.parts;
        Needs {
            reads: Reads {
                queries: all,
                keys: held,
                values: held,
                rotation: all,
                output_norms: held,
                classes: all,
            },
            appends: true,
            ..Needs::NONE
        }
    }

    fn scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        if view.prompt > view.budget {
            for (head, scores) in self.scores(view).into_iter().enumerate() {
                keep.top_by(head, scores, view.budget, 0);
            }
        }
    }
}

impl Scorer for Prober {
    fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
        if self.parts {
            return (0..view.heads()).map(|head| parts(view, head)).collect();
        }
        let (dim, last) = (view.head_dim(), view.prompt - 1);
        let row = |head: usize| {
            let seen = view.attention(head * view.group()).row(last);
            let token = |token: usize| {
                let row = token * dim..(token + 1) * dim;
                let mut key = view.keys(head)[row.clone()].to_vec();
                view.rotation().turn_back(token, &mut key);
                let class = match view.classes()[token] {
                    TokenClass::Plain => 0.0,
                    TokenClass::Special => 0.25,
                    TokenClass::Punctuation => -0.5,
                };
                let turned: f32 = key.iter().sum();
                let value: f32 = view.values(head)[row].iter().sum();
                seen[token] * view.output_norms(head)[token] + class + turned + value * view.scale()
            };
            let mut scores: Vec<f32> = (0..last).map(token).collect();
            scores.push(f32::INFINITY);
            scores
        };
        (0..view.heads()).map(row).collect()
    }
}

/// What it says of the tokens that a head holds.
fn parts(view: &LayerView<'_>, head: usize) -> Vec<f32> {
    let dim = view.head_dim();
    let (keys, values) = (view.keys(head), view.values(head));
    let norms = view.output_norms(head);
    let lens = [keys.len() / dim, values.len() / dim, norms.len()];
    assert_eq!(lens, [view.len(head); 3]);
    let sum = |rows: &[f32], slot: usize| rows[slot * dim..][..dim].iter().sum::<f32>();
    let score = |slot: usize| {
        let odd = f32::from(u8::from(view.position(head, slot).index() % 2 == 1));
        sum(keys, slot) + sum(values, slot) * norms[slot] + odd
    };
    (0..view.len(head)).map(score).collect()
}

/// Which policy ranks.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub(crate) struct OuterConfig {
    /// The policy that ranks.
    pub(crate) over: Over,
}

impl Default for OuterConfig {
    fn default() -> Self {
        Self {
            over: Over::named("prober"),
        }
    }
}

/// Keeps a window and the best half by another policy's scores.
#[derive(Debug)]
pub(crate) struct Outer(Box<dyn Policy>);

impl PolicyConfig for OuterConfig {
    const NAME: &'static str = "outer";
    const SUMMARY: &'static str = "works over another";
    type Policy = Outer;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<Outer, ConfigError> {
        self.bind_in(&Registry::default(), geometry, budget)
    }

    fn bind_in(
        self,
        registry: &Registry,
        geometry: &Geometry,
        budget: Budget,
    ) -> Result<Outer, ConfigError> {
        let over = (Self::NAME, "over");
        let inner = self.over.bind_scorer(over, registry, geometry, budget)?;
        Ok(Outer(inner))
    }
}

impl Policy for Outer {
    fn needs(&self) -> Needs {
        self.0.needs()
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        let Some(scorer) = self.0.scorer().filter(|_| view.prompt > view.budget) else {
            return;
        };
        for (head, scores) in scorer.scores(view).into_iter().enumerate() {
            let best = view.budget / 2;
            keep.top_by(head, scores, best, view.budget - best);
        }
    }
}
