//! Properties that a policy has or has not.
use serde_json::{Map, Value};

use super::{
    case::Case,
    config::{fail, fields, read, refuses_well},
    failure::Failure,
    plan::{each, resolve},
    setup::{Setup, bind, models, setups},
};
use crate::{Budget, ConfigError, Kept, Pins, PolicyConfig, Position};

/// No head is special: with the heads in reverse, so is the plan. A policy with a table of heads does not have this
/// property, and one that splits a budget has it only where no two scores are equal.
///
/// # Errors
///
/// If it does not hold.
pub fn heads_are_alike<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    each(configs, |setup, case, _| {
        let case = case.without_ties(&mut setup.dice());
        let turned = case.reversed();
        let kept = resolve(setup, &case, &setup.plan(&case)?, &Pins::default())?;
        let mut mirrored = resolve(setup, &turned, &setup.plan(&turned)?, &Pins::default())?;
        mirrored.slots.reverse();
        mirrored.growth.reverse();
        if let Some(scores) = &mut mirrored.scores {
            scores.reverse();
        }
        if kept == mirrored {
            return Ok(());
        }
        let lens = |kept: &Kept| kept.slots.iter().map(Vec::len).collect::<Vec<_>>();
        let reason = format!(
            "treats heads by their number: {:?} and {:?} tokens",
            lens(&kept),
            lens(&mirrored)
        );
        Err(setup.failure(case, reason))
    })
}

/// Heads with the same scores keep the same, but for a token that cannot be divided: it goes to the lower head. Not for a
/// policy with a table of heads.
///
/// # Errors
///
/// If it does not hold.
pub fn ties_go_to_the_lower_head<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    each(configs, |setup, case, _| {
        let case = case.without_ties(&mut setup.dice()).with_equal_heads();
        let kept = resolve(setup, &case, &setup.plan(&case)?, &Pins::default())?;
        let lens: Vec<usize> = kept.slots.iter().map(Vec::len).collect();
        let (first, last) = (lens.first().copied(), lens.last().copied());
        let is_spread = first.unwrap_or(0) - last.unwrap_or(0).min(first.unwrap_or(0)) > 1;
        if !lens.is_sorted_by(|a, b| a >= b) || is_spread {
            let reason = format!("keeps {lens:?} tokens of heads with the same scores");
            return Err(setup.failure(case, reason));
        }
        Ok(())
    })
}

/// Outside the newest tokens that it keeps, a head keeps the best by score: no token that is dropped ranks before one
/// that is kept, and of equal scores the lower position stays. For methods that rank; one that keeps sinks or sentences
/// does not have it.
///
/// # Errors
///
/// If it does not hold.
pub fn keeps_the_best<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    each(configs, |setup, case, plan| {
        let kept = resolve(setup, case, plan, &Pins::default())?;
        let scores = setup.scores(case)?;
        for (head, slots) in kept.slots.iter().enumerate() {
            let mut by_age: Vec<usize> = (0..case.lens()[head]).collect();
            by_age.sort_by_key(|&slot| case.position(head, slot));
            let is_kept = |&slot: &usize| slots.iter().any(|&kept| kept as usize == slot);
            // The newest that are kept without a gap may be a window.
            let window = by_age.iter().rev().take_while(|slot| is_kept(slot)).count();
            let ranked = &by_age[..by_age.len() - window];
            let score = |slot: usize| match &scores {
                Some(scores) => scores[head][slot],
                None => case.score(head, slot),
            };
            let key = |slot: usize| (score(slot), case.position(head, slot).index());
            let order = |a: &usize, b: &usize| crate::rank(key(*a), key(*b));
            let worst_kept = ranked.iter().copied().filter(is_kept).max_by(order);
            let best_lost = ranked.iter().copied().filter(|slot| !is_kept(slot));
            if let (Some(kept), Some(lost)) = (worst_kept, best_lost.min_by(order))
                && order(&lost, &kept).is_lt()
            {
                let ((low, a), (high, b)) = (key(kept), key(lost));
                let reason = format!(
                    "keeps position {a} of head {head} with the score {low} and drops position {b} with {high}"
                );
                return Err(setup.failure(case, reason));
            }
        }
        Ok(())
    })
}

/// For a prompt longer than every room, the rooms of all layers sum to the budget of all heads, to the last token. For
/// methods that split a budget exactly.
///
/// # Errors
///
/// If it does not hold.
pub fn rooms_spend_the_budget<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    const LONG: usize = 1 << 20;
    for setup in setups(configs)? {
        let tokens = setup.tokens(LONG);
        if tokens >= LONG {
            continue;
        }
        let heads = setup.geometry.kv_heads;
        let rooms = (0..setup.geometry.layers).map(|layer| setup.room(layer, LONG).total(heads));
        let rooms = rooms.fold(0, usize::saturating_add);
        let (spent, budget) = (
            setup.together(LONG).map_or(rooms, |all| all.min(rooms)),
            setup.geometry.heads() * tokens,
        );
        if spent != budget {
            let case = format!("a prompt of {LONG} tokens");
            let reason = format!("gives its heads room for {spent} tokens of a budget of {budget}");
            return Err(setup.failure(case, reason));
        }
    }
    Ok(())
}

/// What a budget keeps of a layer, a larger one keeps too. Not for policies that divide a budget by largest remainder, where a
/// larger total can give one head less.
///
/// # Errors
///
/// If it does not hold.
pub fn budgets_nest<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    for config in configs {
        let mut setups = setups(&[*config])?;
        // Without a budget a method falls back to its own default, which need not be large.
        setups.retain(|setup| setup.budget != Budget::Full);
        for (index, one) in setups.iter().enumerate() {
            for other in setups
                .iter()
                .skip(index + 1)
                .filter(|other| other.geometry == one.geometry)
            {
                for case in one.cases() {
                    check_nesting(one, other, &case)?;
                }
            }
        }
    }
    Ok(())
}

/// Compares what two budgets keep of the same layer.
fn check_nesting(one: &Setup, other: &Setup, case: &Case) -> Result<(), Failure> {
    let shown = |setup: &Setup| case.with_budget(setup);
    let mut pair = [(one, shown(one)), (other, shown(other))];
    pair.sort_by_key(|(_, case)| case.budget);
    let [(small, narrow), (large, wide)] = &pair;
    let less = resolve(small, narrow, &small.plan(narrow)?, &Pins::default())?;
    let more = resolve(large, wide, &large.plan(wide)?, &Pins::default())?;
    for head in 0..one.geometry.kv_heads {
        let more: Vec<Position> = wide.kept(&more, head);
        if let Some(lost) = narrow
            .kept(&less, head)
            .into_iter()
            .find(|kept| !more.contains(kept))
        {
            let reason = format!(
                "keeps position {lost} of head {head}, but not under {}",
                large.budget
            );
            return Err(small.failure(narrow, reason));
        }
    }
    Ok(())
}

/// A value that must be refused, by the name of its field.
///
/// ```
/// use kv_core::{Budget, conformance::Wrong};
/// let wrong = Wrong::new("sinks", r#"{"sinks": 64}"#).under(Budget::Tokens(64));
/// # let _ = wrong;
/// ```
#[derive(Debug, Clone)]
pub struct Wrong {
    field: &'static str,
    patch: Map<String, Value>,
    budget: Budget,
}

impl Wrong {
    /// The fields of `patch`, a JSON table, set over a good configuration, without a budget: `field` is to blame.
    ///
    /// # Panics
    ///
    /// If `patch` is not a JSON table.
    #[must_use]
    pub fn new(field: &'static str, patch: &str) -> Self {
        match serde_json::from_str(patch) {
            Ok(patch) => Self {
                field,
                patch,
                budget: Budget::Full,
            },
            Err(error) => panic!("`{patch}` is not a JSON table: {error}"),
        }
    }

    /// The same under a budget.
    #[must_use]
    pub fn under(self, budget: Budget) -> Self {
        Self { budget, ..self }
    }
}

/// Wrong values are refused, and the refusal names the policy, the field, its value and what is allowed.
///
/// # Errors
///
/// If it does not hold.
pub fn refuses<C: PolicyConfig>(configs: &[fn() -> C], wrongs: &[Wrong]) -> Result<(), Failure> {
    for config in configs {
        for Wrong {
            field,
            patch,
            budget,
        } in wrongs
        {
            let good = config();
            let mut fields = fields(&good)?;
            fields.extend(patch.clone());
            let shown = Value::Object(fields.clone());
            let failure = |reason| {
                Failure::new(
                    C::NAME,
                    format!("the configuration {shown}, budget {budget}"),
                    reason,
                )
            };
            let bad: C = read(&fields)
                .map_err(|error| fail(&good, format!("cannot read {shown}: {error}")))?;
            let Some(geometry) = models().next() else {
                return Ok(());
            };
            match bind(bad, &geometry, *budget)? {
                Ok(_) => {
                    return Err(failure(format!(
                        "accepts it, but `{field}` is out of range"
                    )));
                }
                Err(refusal) => {
                    refuses_well(&refusal, C::NAME, &fields).map_err(failure)?;
                    if !matches!(refusal, ConfigError::OutOfRange { field: blamed, .. } if blamed == *field)
                    {
                        return Err(failure(format!("does not blame `{field}`: {refusal}")));
                    }
                }
            }
        }
    }
    Ok(())
}
