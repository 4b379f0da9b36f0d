//! A policy bound to a model and a budget.
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{
    case::Case,
    dice::Dice,
    failure::{Failure, panic_text},
    stand_in::registry,
};
use crate::{
    Budget, ConfigError, Demand, Geometry, KeepPlan, Needs, Observation, Policy, PolicyConfig,
    Room, granted,
};

/// `B`, `H` and the trained context of the models that policies are bound to.
const MODELS: [(usize, usize, usize); 6] = [
    (8, 1, 4096),
    (8, 3, 4096),
    (16, 2, 640),
    (16, 4, 4096),
    (32, 1, 4096),
    (32, 4, 4096),
];

/// A small model.
pub(super) const fn model(block: usize, kv_heads: usize, max_positions: usize) -> Geometry {
    Geometry {
        layers: 2,
        kv_heads,
        group: 2,
        head_dim: 8,
        block,
        element_bytes: 4,
        max_positions,
    }
}

/// Every model of the kit.
pub(super) fn models() -> impl Iterator<Item = Geometry> {
    MODELS
        .iter()
        .map(|&(block, kv_heads, max_positions)| model(block, kv_heads, max_positions))
}

/// The budgets that a policy is bound to for a model: from a single token per head to no limit.
pub(super) fn budgets(geometry: &Geometry) -> Vec<Budget> {
    let three_pages = 3 * geometry.heads() * geometry.page_bytes();
    let mut budgets = vec![Budget::Full, Budget::Bytes(three_pages as u64)];
    budgets.extend([1, 5, 33, 64, 300].map(Budget::Tokens));
    budgets.extend([0.001, 0.3, 1.0].map(Budget::Ratio));
    budgets
}

/// Binds a configuration, and makes a panic of `bind` a failure.
pub(super) fn bind<C: PolicyConfig>(
    config: C,
    geometry: &Geometry,
    budget: Budget,
) -> Result<Result<C::Policy, ConfigError>, Failure> {
    let text = written(&config);
    if let Err(refusal) = budget.check(geometry) {
        return Ok(Err(refusal));
    }
    let run = || config.bind_in(&registry(), geometry, budget);
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let case = format!("the configuration {text}, budget {budget}, {geometry:?}");
        Failure::new(
            C::NAME,
            case,
            format!("panics in `bind`: {}", panic_text(&*panic)),
        )
    })
}

pub(super) fn written<C: PolicyConfig>(config: &C) -> String {
    serde_json::to_string(config).unwrap_or_else(|error| format!("(cannot be written: {error})"))
}

/// A policy bound to a model and a budget.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) name: &'static str,
    config: String,
    pub(super) geometry: Geometry,
    pub(super) budget: Budget,
    pub(super) policy: Box<dyn Policy>,
    pub(super) needs: Needs,
    /// Which stream of the dice its cases come from.
    stream: u64,
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Geometry {
            kv_heads,
            block,
            max_positions,
            ..
        } = self.geometry;
        let Self { config, budget, .. } = self;
        write!(
            f,
            "the configuration {config}, budget {budget}, H={kv_heads}, B={block}, {max_positions} positions"
        )
    }
}

/// Every configuration with every model and every budget that it accepts.
pub(super) fn setups<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<Vec<Setup>, Failure> {
    let mut setups = Vec::new();
    for config in configs {
        for geometry in models() {
            let before = setups.len();
            for budget in budgets(&geometry) {
                if let Ok(policy) = bind(config(), &geometry, budget)? {
                    let (needs, stream) = (policy.needs(), setups.len() as u64);
                    let (config, policy) = (written(&config()), Box::new(policy));
                    setups.push(Setup {
                        name: C::NAME,
                        config,
                        geometry,
                        budget,
                        policy,
                        needs,
                        stream,
                    });
                }
            }
            if setups.len() == before {
                let case = format!("the configuration {} and {geometry:?}", written(&config()));
                return Err(Failure::new(
                    C::NAME,
                    case,
                    "accepts none of the kit's budgets, not even `full`",
                ));
            }
        }
    }
    Ok(setups)
}

impl Setup {
    pub(super) fn dice(&self) -> Dice {
        Dice::new(self.stream << 20)
    }

    /// Tokens per KV head for a prompt, as a host works them out.
    pub(super) fn tokens(&self, prompt: usize) -> usize {
        granted(
            &*self.policy,
            &self.needs,
            &self.geometry,
            self.budget,
            prompt,
        )
    }

    pub(super) fn demand(&self, prompt: usize) -> Demand {
        Demand::new(
            &*self.policy,
            &self.needs,
            &self.geometry,
            prompt,
            self.tokens(prompt),
        )
    }

    /// Room of a layer for a prompt, as a host works it out.
    pub(super) fn room(&self, layer: usize, prompt: usize) -> Room {
        self.policy.room(layer, prompt, self.tokens(prompt))
    }

    /// The most that all layers hold together for a prompt, as a host works it out.
    pub(super) fn together(&self, prompt: usize) -> Option<usize> {
        self.policy.together(prompt, self.tokens(prompt))
    }

    /// Asks for a plan; a panic is a failure.
    pub(super) fn plan(&self, case: &Case) -> Result<KeepPlan, Failure> {
        self.attempt(case, || self.plan_unguarded(case))
    }

    /// Asks for a plan, and lets a panic through.
    pub(super) fn plan_unguarded(&self, case: &Case) -> KeepPlan {
        let mut keep = KeepPlan::all(self.geometry.kv_heads);
        case.view(&self.needs, |view| {
            self.policy.plan(view, &mut keep);
        });
        keep
    }

    /// What the layer reports; a panic is a failure, and so is a report that is no number.
    pub(super) fn report(&self, case: &Case) -> Result<f64, Failure> {
        let run = || case.view(&self.needs, |view| self.policy.report(view));
        let report = self.attempt(case, run)?;
        if report.is_finite() {
            Ok(report)
        } else {
            Err(self.failure(case, format!("reports {report}")))
        }
    }

    /// What the policy itself ranks a prompt by, if it does. Where it has nothing to choose it sees nothing to rank by.
    pub(super) fn scores(&self, case: &Case) -> Result<Option<Vec<Vec<f32>>>, Failure> {
        let sees = self.needs.observation != Observation::None || self.needs.reads.any();
        let Some(scorer) = self.policy.scorer().filter(|_| sees && case.is_prompt()) else {
            return Ok(None);
        };
        self.attempt(case, || {
            case.view(&self.needs, |view| Some(scorer.scores(view)))
        })
    }

    /// Runs what may call the policy or read scores; a panic is a failure.
    pub(super) fn attempt<R>(&self, case: &Case, run: impl FnOnce() -> R) -> Result<R, Failure> {
        catch_unwind(AssertUnwindSafe(run))
            .map_err(|panic| self.failure(case, format!("panics: {}", panic_text(&*panic))))
    }

    pub(super) fn failure(&self, case: impl fmt::Display, reason: impl fmt::Display) -> Failure {
        Failure::new(self.name, format!("{self}, {case}"), reason)
    }

    /// Whether heads that hold `lens` tokens are within a layer's room, `more` tokens of each head being on top of it. Says
    /// what is too much.
    pub(super) fn fits(&self, room: &Room, lens: &[usize], more: usize) -> Result<(), String> {
        if let Room::Heads(limits) = room
            && limits.len() != lens.len()
        {
            return Err(format!(
                "gives {} heads room in a layer with {}",
                limits.len(),
                lens.len()
            ));
        }
        if room.plus(more, lens.len()).holds(lens) {
            return Ok(());
        }
        Err(format!(
            "holds {lens:?} tokens in the heads of a layer, its bound is {room:?} and {more} on top in each head"
        ))
    }
}
