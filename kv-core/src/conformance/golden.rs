//! Plans and caches that the method's own code made.
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{
    case::Case,
    config::fail,
    failure::{Failure, panic_text},
    setup::{bind, model, written},
};
use crate::{
    Budget, Cadence, Demand, Geometry, KeepPlan, Kept, Ledger, Pins, Policy, PolicyConfig,
    Position, PromptRows, Reads, SeqId, granted,
};

/// The model that golden plans are made for: `kv_heads` heads, 16 tokens per page, 4,096 positions.
#[must_use]
pub const fn geometry(kv_heads: usize) -> Geometry {
    model(16, kv_heads, 4096)
}

/// What the method's own code keeps of one layer's prompt.
///
/// ```
/// use kv_core::{Budget, KeepAllConfig, conformance::Golden};
/// let golden = Golden { budget: Budget::Full, layer: 0, prompt: 3, scores: &[], kept: &[vec![0, 1, 2]] };
/// assert_eq!(golden.check(KeepAllConfig::default()), Ok(()));
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Golden<'a> {
    /// The budget.
    pub budget: Budget,
    /// The layer.
    pub layer: usize,
    /// Tokens of the prompt, `n`.
    pub prompt: usize,
    /// What was observed, `[H][n]`; empty for a policy that observes nothing.
    pub scores: &'a [Vec<f32>],
    /// Positions kept in each head, ascending, `[H][T]`.
    pub kept: &'a [Vec<u32>],
}

impl Golden<'_> {
    /// Compares what a policy keeps, without pins.
    ///
    /// # Errors
    ///
    /// If it keeps other positions in any head, or refuses the configuration.
    pub fn check<C: PolicyConfig>(&self, config: C) -> Result<(), Failure> {
        let text = written(&config);
        let found = self.found(config, None)?;
        for (head, (found, expected)) in found.kept.slots.iter().zip(self.kept).enumerate() {
            if found != expected {
                let reason = format!("keeps {found:?} of head {head}, not {expected:?}");
                return Err(self.failure::<C>(&text, reason));
            }
        }
        Ok(())
    }

    /// What a policy makes of the prompt, with `rows` for one that reads it.
    pub(super) fn found<C: PolicyConfig>(
        &self,
        config: C,
        rows: Option<&PromptRows<'_>>,
    ) -> Result<Found, Failure> {
        let text = written(&config);
        let mut geometry = geometry(self.kept.len());
        if let Some(rows) = rows {
            (geometry.group, geometry.head_dim) = (rows.group, rows.head_dim);
        }
        let policy = bound(config, &geometry, self.budget)?;
        let run = || self.ask(&policy, &geometry, rows);
        catch_unwind(AssertUnwindSafe(run))
            .map_err(|panic| self.failure::<C>(&text, format!("panics: {}", panic_text(&*panic))))
    }

    /// Shows the prompt to a policy, and of `rows` the parts that it reads.
    fn ask(
        &self,
        policy: &impl Policy,
        geometry: &Geometry,
        rows: Option<&PromptRows<'_>>,
    ) -> Found {
        let needs = policy.needs();
        let scores = if self.scores.is_empty() {
            vec![vec![0.0; self.prompt]; geometry.kv_heads]
        } else {
            self.scores.to_vec()
        };
        let tokens = granted(policy, &needs, geometry, self.budget, self.prompt);
        let case = Case::prefill(self.layer, self.prompt, tokens, scores);
        let rows = rows.map(|rows| shown(rows, needs.reads));
        case.view(&needs, |view| {
            let view = match &rows {
                Some(rows) if needs.reads.any() => view.with_rows(rows),
                _ => *view,
            };
            let mut keep = KeepPlan::all(geometry.kv_heads);
            policy.plan(&view, &mut keep);
            Found {
                kept: keep.resolve(&view, &Pins::default()),
                ranks: policy.scorer().map(|scorer| scorer.scores(&view)),
            }
        })
    }

    /// A failure of the policy for this prompt.
    pub(super) fn failure<C: PolicyConfig>(&self, config: &str, reason: String) -> Failure {
        let case = format!(
            "the configuration {config}, budget {}, a prompt of {}",
            self.budget, self.prompt
        );
        Failure::new(C::NAME, case, reason)
    }
}

/// What a policy makes of a prompt.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) kept: Kept,
    /// Its own scores, `[H][n]`, if it ranks.
    pub(super) ranks: Option<Vec<Vec<f32>>>,
}

/// The parts of the rows that a policy reads.
fn shown<'a>(rows: &PromptRows<'a>, reads: Reads) -> PromptRows<'a> {
    PromptRows {
        queries: rows.queries.filter(|_| reads.queries),
        keys: rows.keys.filter(|_| reads.keys),
        values: rows.values.filter(|_| reads.values),
        rotation: rows.rotation.filter(|_| reads.rotation),
        output_norms: rows.output_norms.filter(|_| reads.output_norms),
        classes: rows.classes.filter(|_| reads.classes),
        ..*rows
    }
}

fn bound<C: PolicyConfig>(
    config: C,
    geometry: &Geometry,
    budget: Budget,
) -> Result<C::Policy, Failure> {
    let text = written(&config);
    bind(config, geometry, budget)?.map_err(|refusal| {
        Failure::new(
            C::NAME,
            format!("the configuration {text}, budget {budget}"),
            refusal,
        )
    })
}

/// Reads a prompt and decodes `steps` tokens, for a policy that observes nothing, and returns the positions held after
/// the prompt and after every step, ascending: `[steps + 1][H][T]`. One layer stands for all.
///
/// # Errors
///
/// If the policy refuses the configuration, or the ledger a token.
pub fn decode<C: PolicyConfig + Clone>(
    config: C,
    kv_heads: usize,
    budget: Budget,
    prompt: usize,
    steps: usize,
) -> Result<Vec<Vec<Vec<u32>>>, Failure> {
    let geometry = geometry(kv_heads);
    let refused =
        |error: &dyn std::fmt::Display| fail(&config, format!("is refused by the ledger: {error}"));
    let policy = bound(config.clone(), &geometry, budget)?;
    let needs = policy.needs();
    let one_prompt = Golden {
        budget,
        layer: 0,
        prompt,
        scores: &[],
        kept: &[],
    };
    let kept = one_prompt.ask(&policy, &geometry, None).kept;
    let tokens = granted(&policy, &needs, &geometry, budget, prompt);
    let demand = Demand::new(&policy, &needs, &geometry, prompt, tokens);
    let mut ledger = Ledger::new(
        geometry,
        geometry.full_pages(prompt + steps) + demand.pages(&geometry, prompt + steps, 0),
    );
    let seq = SeqId(0);
    ledger
        .open(seq, prompt + steps, demand, &Pins::default())
        .map_err(|full| refused(&full))?;
    ledger
        .write_prompt(seq, 0, prompt, &kept)
        .map_err(|error| refused(&error))?;
    let mut history = Vec::with_capacity(steps + 1);
    for position in prompt..=prompt + steps {
        let held = |head| {
            ledger
                .head(seq, 0, head)
                .map_or_else(|_| Vec::new(), |table| sorted(table.positions()))
        };
        history.push((0..kv_heads).map(held).collect());
        if position < prompt + steps {
            let next = Position::new(position);
            let is_full = ledger.is_full(seq, 0, next).map_err(|e| refused(&e))?;
            if needs.cadence == Cadence::Full && is_full {
                let kept = ledger.plan_again(seq, 0, &policy, tokens, None);
                let moved = kept.and_then(|kept| ledger.shrink(seq, 0, &kept));
                moved.map_err(|error| refused(&error))?;
            }
            ledger
                .append(seq, 0, Position::new(position))
                .map_err(|error| refused(&error))?;
        }
    }
    Ok(history)
}

fn sorted(positions: &[Position]) -> Vec<u32> {
    let mut sorted: Vec<u32> = positions.iter().map(|position| position.0).collect();
    sorted.sort_unstable();
    sorted
}
