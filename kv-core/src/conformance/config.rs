//! Properties of a configuration.
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Map, Value, json};

use super::{
    dice::Dice,
    failure::{Failure, panic_text},
    rows::Rows,
    setup::{bind, budgets, models, setups, written},
};
use crate::{
    Budget, Cadence, ConfigError, Geometry, KeepPlan, LayerView, Observation, Policy, PolicyConfig,
};

pub(super) fn fail<C: PolicyConfig>(config: &C, reason: impl std::fmt::Display) -> Failure {
    Failure::new(
        C::NAME,
        format!("the configuration {}", written(config)),
        reason,
    )
}

pub(super) fn fields<C: PolicyConfig>(config: &C) -> Result<Map<String, Value>, Failure> {
    match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(fail(
            config,
            format!("is configured by {other}, must be a table of fields"),
        )),
        Err(error) => Err(fail(
            config,
            format!("cannot write its configuration: {error}"),
        )),
    }
}

pub(super) fn read<C: PolicyConfig>(fields: &Map<String, Value>) -> Result<C, serde_json::Error> {
    serde_json::from_value(Value::Object(fields.clone()))
}

/// The name is kebab case, and the summary one line.
///
/// # Errors
///
/// If it does not hold.
pub fn config_describes_itself<C: PolicyConfig>(_: &[fn() -> C]) -> Result<(), Failure> {
    let word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    if !C::NAME.split('-').all(word) {
        return Err(fail(
            &C::default(),
            format!("is called `{}`, must be kebab case", C::NAME),
        ));
    }
    let summary = C::SUMMARY;
    if summary.trim().is_empty() || summary.lines().count() != 1 {
        return Err(fail(
            &C::default(),
            format!("is summed up as `{summary}`, must be one line of text"),
        ));
    }
    Ok(())
}

/// A configuration is read as it was written.
///
/// # Errors
///
/// If it does not hold.
pub fn config_round_trips<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    for config in configs {
        let config = config();
        let before = fields(&config)?;
        let after: C = read(&before)
            .map_err(|error| fail(&config, format!("cannot read what it wrote: {error}")))?;
        if fields(&after)? != before {
            return Err(fail(&config, format!("reads it as {}", written(&after))));
        }
    }
    Ok(())
}

/// A misspelt field is an error and not a default.
///
/// # Errors
///
/// If it does not hold.
pub fn config_refuses_unknown_fields<C: PolicyConfig>(
    configs: &[fn() -> C],
) -> Result<(), Failure> {
    for config in configs {
        let config = config();
        let mut fields = fields(&config)?;
        fields.insert("no_such_field".into(), Value::Bool(true));
        if read::<C>(&fields).is_ok() {
            return Err(fail(
                &config,
                "accepts the field `no_such_field`: add `#[serde(deny_unknown_fields)]`",
            ));
        }
    }
    Ok(())
}

/// Every field may be left out, and then has its default.
///
/// # Errors
///
/// If it does not hold.
pub fn config_fills_in_defaults<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    let defaults = fields(&C::default())?;
    for config in configs {
        let config = config();
        let all = fields(&config)?;
        for left_out in all.keys() {
            let mut some = all.clone();
            some.remove(left_out);
            let full: C = read(&some)
                .map_err(|error| fail(&config, format!("needs every field: {error}")))?;
            some.insert(
                left_out.clone(),
                defaults.get(left_out).cloned().unwrap_or_default(),
            );
            if fields(&full)? != some {
                return Err(fail(
                    &config,
                    format!("reads it without `{left_out}` as {}", written(&full)),
                ));
            }
        }
    }
    match read::<C>(&Map::new()) {
        Ok(empty) if fields(&empty)? == defaults => Ok(()),
        Ok(empty) => Err(fail(
            &C::default(),
            format!("reads nothing as {}, not as its default", written(&empty)),
        )),
        Err(error) => Err(fail(
            &C::default(),
            format!("cannot do without fields: {error}"),
        )),
    }
}

/// A number or a switch that is set is the one that is used: no field is skipped or renamed.
///
/// # Errors
///
/// If it does not hold.
pub fn config_keeps_what_is_set<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    for config in configs {
        let config = config();
        let before = fields(&config)?;
        for (field, value) in &before {
            let changed = match value {
                Value::Bool(on) => json!(!on),
                Value::Number(number) if number.is_u64() => {
                    json!(number.as_u64().unwrap_or(0).saturating_add(1))
                }
                Value::Number(number) => json!(number.as_f64().unwrap_or(1.0) / 2.0),
                Value::Null => json!(7),
                _ => continue,
            };
            let mut set = before.clone();
            set.insert(field.clone(), changed.clone());
            // A field that no such value can be written into is not for this property to judge.
            if let Ok(read) = read::<C>(&set)
                && !is_same(&fields(&read)?, &set)
            {
                return Err(fail(
                    &config,
                    format!("reads `{field}` = {changed} as {}", written(&read)),
                ));
            }
        }
    }
    Ok(())
}

/// Whether two tables of fields say the same; a whole number may be written with a fraction.
fn is_same(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let same = |a: &Value, b: &Value| match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    };
    a.len() == b.len()
        && a.iter()
            .all(|(field, value)| b.get(field).is_some_and(|other| same(value, other)))
}

/// Every refusal names a field, its value and what is allowed; every configuration is accepted under some budget; and
/// absurd numbers are refused so too, or do no harm.
///
/// # Errors
///
/// If it does not hold.
pub fn config_refuses_by_name<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    setups(configs)?;
    for config in configs {
        let fields = fields(&config())?;
        for geometry in models() {
            for budget in budgets(&geometry) {
                check_binding::<C>(&fields, &geometry, budget)?;
            }
        }
        for field in fields.keys() {
            for absurd in [
                json!(0),
                json!(1),
                json!(u64::MAX),
                json!(0.0),
                json!(-1.0),
                json!(1e300),
            ] {
                let mut fields = fields.clone();
                fields.insert(field.clone(), absurd);
                for geometry in models() {
                    for budget in [Budget::Full, Budget::Tokens(64), Budget::Ratio(0.25)] {
                        check_binding::<C>(&fields, &geometry, budget)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Binds a table of fields, if it can be read at all: it is refused by name, or makes a policy that does not panic.
fn check_binding<C: PolicyConfig>(
    fields: &Map<String, Value>,
    geometry: &Geometry,
    budget: Budget,
) -> Result<(), Failure> {
    let Ok(config) = read::<C>(fields) else {
        return Ok(());
    };
    let text = written(&config);
    let failure = |reason: String| {
        Failure::new(
            C::NAME,
            format!("the configuration {text}, budget {budget}, {geometry:?}"),
            reason,
        )
    };
    match bind(config, geometry, budget)? {
        Ok(policy) => {
            let run = || plan_once(&policy, geometry, budget);
            catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
                failure(format!(
                    "accepts this and then panics: {}",
                    panic_text(&*panic)
                ))
            })
        }
        Err(refusal) => refuses_well(&refusal, C::NAME, fields).map_err(failure),
    }
}

fn plan_once(policy: &impl Policy, geometry: &Geometry, budget: Budget) {
    const PROMPT: usize = 100;
    let (needs, heads) = (policy.needs(), geometry.kv_heads);
    let view = LayerView::prefill(
        0,
        heads,
        PROMPT,
        budget.tokens(geometry, PROMPT).max(needs.min_tokens),
    );
    let row = [0.5; PROMPT];
    let rows = vec![row.as_slice(); heads];
    let mut view = if needs.observation == Observation::None {
        view
    } else {
        view.with_scores(needs.observation, &rows)
    };
    let prompt = Rows::random(geometry, PROMPT, &mut Dice::new(0));
    let prompt = prompt.shown(needs.reads);
    if needs.reads.any() {
        view = view.with_rows(&prompt);
    }
    if needs.cadence == Cadence::Cascade {
        let _ = policy.report(&view);
        view = view.with_reports(&[1.0]);
    }
    let mut keep = KeepPlan::all(heads);
    policy.plan(&view, &mut keep);
    let _ = keep.resolve(&view, &crate::Pins::default());
}

/// Whether a refusal tells the user what to mend.
pub(super) fn refuses_well(
    refusal: &ConfigError,
    name: &str,
    fields: &Map<String, Value>,
) -> Result<(), String> {
    match refusal {
        ConfigError::OutOfRange {
            policy,
            field,
            value,
            allowed,
        } => {
            let Some(set) = fields.get(*field) else {
                return Err(format!(
                    "blames the field `{field}`, which it does not have: {refusal}"
                ));
            };
            if *policy != name || allowed.trim().is_empty() {
                return Err(format!(
                    "does not name itself or what is allowed: {refusal}"
                ));
            }
            let is_value = match set {
                Value::Number(number) => value.parse::<f64>().ok() == number.as_f64(),
                Value::String(text) => value.contains(text),
                _ => !value.is_empty(),
            };
            if is_value {
                Ok(())
            } else {
                Err(format!(
                    "says that `{field}` is {value}, but it is {set}: {refusal}"
                ))
            }
        }
        ConfigError::Budget { allowed, .. } if !allowed.trim().is_empty() => Ok(()),
        ConfigError::Profile(error) if !error.found.is_empty() && !error.expected.is_empty() => {
            Ok(())
        }
        ConfigError::Unsupported { .. } => Ok(()),
        other => Err(format!("refuses it without naming a field: {other}")),
    }
}
