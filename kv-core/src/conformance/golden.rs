//! Plans and caches that the method's own code made.
use super::{
    case::Case,
    config::fail,
    failure::Failure,
    setup::{bind, model, written},
};
use crate::{
    Budget, Demand, Geometry, KeepPlan, Kept, Ledger, Pins, Policy, PolicyConfig, Position, SeqId,
    granted,
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
        let heads = self.kept.len();
        let text = written(&config);
        let kept = plan(
            config,
            &geometry(heads),
            self.budget,
            self.layer,
            self.prompt,
            self.scores,
        )?;
        for (head, (found, expected)) in kept.slots.iter().zip(self.kept).enumerate() {
            if found != expected {
                let case = format!(
                    "the configuration {text}, budget {}, a prompt of {}",
                    self.budget, self.prompt
                );
                return Err(Failure::new(
                    C::NAME,
                    case,
                    format!("keeps {found:?} of head {head}, not {expected:?}"),
                ));
            }
        }
        Ok(())
    }
}

/// Binds a policy and carries out its plan for one prompt.
fn plan<C: PolicyConfig>(
    config: C,
    geometry: &Geometry,
    budget: Budget,
    layer: usize,
    prompt: usize,
    scores: &[Vec<f32>],
) -> Result<Kept, Failure> {
    let policy = bound(config, geometry, budget)?;
    let needs = policy.needs();
    let scores = if scores.is_empty() {
        vec![vec![0.0; prompt]; geometry.kv_heads]
    } else {
        scores.to_vec()
    };
    let tokens = granted(&policy, &needs, geometry, budget, prompt);
    let case = Case::prefill(layer, prompt, tokens, scores);
    Ok(case.view(&needs, |view| {
        let mut keep = KeepPlan::all(geometry.kv_heads);
        policy.plan(view, &mut keep);
        keep.resolve(view, &Pins::default())
    }))
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
    let kept = plan(config.clone(), &geometry, budget, 0, prompt, &[])?;
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
