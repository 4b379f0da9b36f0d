//! Properties of a plan.
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{
    case::Case,
    failure::Failure,
    setup::{Setup, setups},
};
use crate::{Budget, Cadence, Growth, KeepPlan, Kept, Observation, Pins, PolicyConfig, Room};

/// Tries a property on every case of every setup.
pub(super) fn each<C: PolicyConfig>(
    configs: &[fn() -> C],
    check: impl Fn(&Setup, &Case, &KeepPlan) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for setup in setups(configs)? {
        for case in setup.cases() {
            check(&setup, &case, &setup.plan(&case)?)?;
        }
    }
    Ok(())
}

/// Carries a plan out; a panic is a failure.
pub(super) fn resolve(
    setup: &Setup,
    case: &Case,
    plan: &KeepPlan,
    pins: &Pins,
) -> Result<Kept, Failure> {
    setup.attempt(case, || {
        case.view(&setup.needs, |view| plan.resolve(view, pins))
    })
}

/// A plan names slots and not positions: every slot that it names exists.
///
/// # Errors
///
/// If it does not hold.
pub fn plan_names_real_slots<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    each(configs, |setup, case, plan| {
        if let Some((head, slot)) = case.blind_view(|view| plan.first_stray(view)) {
            let held = case.lens()[head];
            return Err(setup.failure(
                case,
                format!("names slot {slot} of head {head}, which has {held}"),
            ));
        }
        let kept = resolve(setup, case, plan, &Pins::default())?;
        for (head, slots) in kept.slots.iter().enumerate() {
            let is_sorted = slots.windows(2).all(|pair| pair[0] < pair[1]);
            if !is_sorted
                || slots
                    .last()
                    .is_some_and(|&slot| slot as usize >= case.lens()[head])
            {
                return Err(setup.failure(case, format!("keeps {slots:?} of head {head}")));
            }
        }
        Ok(())
    })
}

/// The plan itself keeps the newest token of every head, and does not lean on the guard that would add it.
///
/// # Errors
///
/// If it does not hold.
pub fn plan_keeps_the_newest<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    each(configs, |setup, case, plan| {
        let run = || case.view(&setup.needs, |view| plan.resolve_unguarded(view));
        let kept = setup.attempt(case, run)?;
        for (head, slots) in kept.iter().enumerate() {
            let newest = case.newest(head);
            if !slots.iter().any(|&slot| slot as usize == newest) {
                let position = case.position(head, newest);
                return Err(setup.failure(
                    case,
                    format!("drops the newest token of head {head}, position {position}"),
                ));
            }
        }
        Ok(())
    })
}

/// Pinned tokens are kept, and come on top of the bound.
///
/// # Errors
///
/// If it does not hold.
pub fn plan_keeps_the_pins<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    each(configs, |setup, case, plan| {
        let pins = case.pins(&mut setup.dice());
        let kept = resolve(setup, case, plan, &pins)?;
        let mut most_pinned = 0;
        for head in 0..setup.geometry.kv_heads {
            let positions = case.kept(&kept, head);
            let mut pinned = (0..case.lens()[head])
                .map(|slot| case.position(head, slot))
                .filter(|&p| pins.contains(p));
            if let Some(lost) = pinned
                .clone()
                .find(|position| !positions.contains(position))
            {
                return Err(setup.failure(
                    case,
                    format!("drops position {lost} of head {head}, which is pinned"),
                ));
            }
            most_pinned = most_pinned.max(pinned.by_ref().count());
        }
        let lens: Vec<usize> = kept.slots.iter().map(Vec::len).collect();
        setup
            .fits(&setup.room(case.layer, case.prompt), &lens, most_pinned)
            .map_err(|much| setup.failure(case, much))
    })
}

/// The same view gives the same plan, whatever was planned before, and from another instance too.
///
/// # Errors
///
/// If it does not hold.
pub fn plan_is_deterministic<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    for (setup, fresh) in setups(configs)?.into_iter().zip(setups(configs)?) {
        let cases = setup.cases();
        let plans: Vec<KeepPlan> = cases
            .iter()
            .map(|case| setup.plan(case))
            .collect::<Result<_, _>>()?;
        for (case, plan) in cases.iter().zip(plans).rev() {
            if setup.plan(case)? != plan || fresh.plan(case)? != plan {
                return Err(setup.failure(case, "plans the same layer in two ways"));
            }
            if setup.policy.needs() != setup.needs {
                return Err(setup.failure(case, "changes its needs"));
            }
            if case.is_prompt() {
                let reports = [
                    setup.report(case)?,
                    setup.report(case)?,
                    fresh.report(case)?,
                ];
                if reports.iter().any(|report| *report != reports[0]) {
                    return Err(setup.failure(case, format!("reports {reports:?} of one layer")));
                }
            }
            let room = setup.room(case.layer, case.prompt);
            if setup.room(case.layer, case.prompt) != room
                || fresh.room(case.layer, case.prompt) != room
            {
                return Err(setup.failure(case, "gives the same layer two rooms"));
            }
        }
    }
    Ok(())
}

/// Unless a policy gives its heads different rooms, all heads of a layer keep equally many tokens and grow alike.
///
/// # Errors
///
/// If it does not hold.
pub fn plan_is_even_unless_ragged<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    each(configs, |setup, case, plan| {
        let kept = resolve(setup, case, plan, &Pins::default())?;
        let lens: Vec<usize> = kept.slots.iter().map(Vec::len).collect();
        let is_even = lens.iter().all(|len| len == &lens[0])
            && kept.growth.iter().all(|g| *g == kept.growth[0]);
        let room = setup.room(case.layer, case.prompt);
        if matches!(room, Room::Each(_)) && !is_even {
            let reason = format!(
                "says that its heads are even, and keeps {lens:?} tokens, growing by {:?}",
                kept.growth
            );
            return Err(setup.failure(case, reason));
        }
        Ok(())
    })
}

/// What is kept, and what the heads may grow to, is within the bound; and the bound is within a fixed budget.
///
/// # Errors
///
/// If it does not hold.
pub fn plan_fits_its_bound<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    for setup in setups(configs)? {
        check_needs(&setup)?;
    }
    each(configs, |setup, case, plan| {
        let kept = resolve(setup, case, plan, &Pins::default())?;
        let lens: Vec<usize> = kept.slots.iter().map(Vec::len).collect();
        let room = setup.room(case.layer, case.prompt);
        setup
            .fits(&room, &lens, 0)
            .map_err(|much| setup.failure(case, much))?;
        if setup.needs.cadence == Cadence::Full && !case.is_prompt() {
            let next: Vec<usize> = lens.iter().map(|len| len + 1).collect();
            setup
                .fits(&room, &next, 0)
                .map_err(|much| setup.failure(case, format!("{much}, with the next token")))?;
        }
        if setup.needs.cadence != Cadence::Full && !setup.needs.appends {
            // Nobody will plan again: the heads grow to this.
            let grown: Vec<usize> = lens
                .iter()
                .zip(&kept.growth)
                .map(|(&len, growth)| grown(len, *growth))
                .collect();
            setup.fits(&room, &grown, 0).map_err(|much| {
                setup.failure(
                    case,
                    format!("{much}, once its heads have grown by {:?}", kept.growth),
                )
            })?;
        }
        Ok(())
    })
}

/// The longest that a head of `len` tokens grows to.
fn grown(len: usize, growth: Growth) -> usize {
    match growth {
        Growth::Append => usize::MAX / 1024,
        Growth::Ring { sinks, recent } => len.max(sinks.saturating_add(recent)),
        Growth::EvictLowest { limit, .. } => len.max(limit),
        Growth::Protect { most, .. } => len.max(most.min(usize::MAX / 1024)),
    }
}

fn check_needs(setup: &Setup) -> Result<(), Failure> {
    let Some(budget) = setup.budget.fixed_tokens(&setup.geometry) else {
        if matches!(setup.budget, Budget::Ratio(_)) {
            for prompt in [1, 64, 500, 4096] {
                check_rooms(setup, prompt, setup.tokens(prompt))?;
            }
        }
        return Ok(());
    };
    let needs = setup.needs;
    let case = "whatever the layer";
    if needs.min_tokens > budget {
        let reason = format!(
            "makes no sense below {} tokens per head and accepts a budget of {budget}",
            needs.min_tokens
        );
        return Err(setup.failure(case, reason));
    }
    // Short prompts, and prompts on both sides of the budget.
    for prompt in [1, budget.min(4096), 64, 500, 4096] {
        check_rooms(setup, prompt, budget)?;
    }
    Ok(())
}

/// The rooms of all layers together are no more than a fixed budget buys.
fn check_rooms(setup: &Setup, prompt: usize, budget: usize) -> Result<(), Failure> {
    let heads = setup.geometry.kv_heads;
    let together = setup.together(prompt);
    let mut total: usize = 0;
    for layer in 0..setup.geometry.layers {
        let room = setup.room(layer, prompt).total(heads);
        let room = room.min(together.map_or(usize::MAX, |all| all - total.min(all)));
        let case = format!("layer {layer}, a prompt of {prompt} tokens");
        if room == usize::MAX {
            let reason = format!("is not bounded and accepts a budget of {budget} tokens");
            return Err(setup.failure(case, reason));
        }
        total += room;
    }
    if total > setup.geometry.heads() * budget {
        let reason = format!(
            "asks for {total} tokens in {} heads and accepts a budget of {budget} in each",
            setup.geometry.heads()
        );
        return Err(setup.failure(format!("a prompt of {prompt} tokens"), reason));
    }
    Ok(())
}

/// Where the bound has room for all tokens, all are kept. An unbounded policy has no such room.
///
/// # Errors
///
/// If it does not hold.
pub fn plan_keeps_all_when_there_is_room<C: PolicyConfig>(
    configs: &[fn() -> C],
) -> Result<(), Failure> {
    each(configs, |setup, case, plan| {
        let room = setup.room(case.layer, case.prompt);
        let held = case.lens();
        if room.total(held.len()) == usize::MAX || !room.holds(&held) {
            return Ok(());
        }
        // All layers may be as long; and in mid-decode a policy is asked where the next token has no room.
        let all = case.prompt.max(held[0]) * setup.geometry.heads();
        let next: Vec<usize> = held.iter().map(|len| len + 1).collect();
        let is_pressed = setup.needs.cadence == Cadence::Full && !case.is_prompt();
        if setup.together(case.prompt).is_some_and(|most| all > most)
            || (is_pressed && !room.holds(&next))
        {
            return Ok(());
        }
        let kept = resolve(setup, case, plan, &Pins::default())?;
        let lens: Vec<usize> = kept.slots.iter().map(Vec::len).collect();
        if lens != held {
            return Err(setup.failure(
                case,
                format!("keeps {lens:?} of {held:?} tokens, with room for all: {room:?}"),
            ));
        }
        Ok(())
    })
}

/// A policy that asks for no observation reads no scores; and no view makes it panic.
///
/// # Errors
///
/// If it does not hold.
pub fn plan_reads_only_what_it_asked_for<C: PolicyConfig>(
    configs: &[fn() -> C],
) -> Result<(), Failure> {
    each(configs, |setup, case, plan| {
        resolve(setup, case, plan, &Pins::default()).map(drop)
    })
}

/// A policy that asks for an observation reads it, or grows by it: it costs the host time in every prompt.
///
/// # Errors
///
/// If it does not hold.
pub fn plan_uses_what_it_asked_for<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    let uses = |setup: &Setup, case: &Case| {
        let run = || {
            let mut keep = KeepPlan::all(setup.geometry.kv_heads);
            case.blind_view(|view| {
                setup.policy.plan(view, &mut keep);
                keep.resolve(view, &Pins::default())
            })
        };
        // Without the scores it asked for, reading them is a panic.
        catch_unwind(AssertUnwindSafe(run)).map_or(true, |kept| {
            let ranks = |growth: &Growth| {
                matches!(growth, Growth::EvictLowest { .. } | Growth::Protect { .. })
            };
            kept.growth.iter().any(ranks)
        })
    };
    for config in configs {
        let setups = setups(&[*config])?;
        let asking = setups.iter().filter(|setup| {
            setup.needs.observation != Observation::None || setup.needs.reads.any()
        });
        let is_used = |setup: &Setup| setup.cases().iter().any(|case| uses(setup, case));
        // Some budgets drop nothing of the kit's prompts; without a budget, whoever asks must have a use for it.
        let idle = asking.clone().find(|setup| {
            (setup.budget == Budget::Full && !is_used(setup)) || !asking.clone().any(is_used)
        });
        if let Some(setup) = idle {
            let asked = match setup.needs.observation {
                Observation::None => "parts of the prompt".to_owned(),
                observation => observation.to_string(),
            };
            let reason = format!("asks for {asked} and never uses it");
            return Err(setup.failure("every case of the kit", reason));
        }
    }
    Ok(())
}
