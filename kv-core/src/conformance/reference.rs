//! Properties of what a configuration tells users of its fields.
use serde_json::{Map, Number, Value};

use super::{
    config::{fail, fields, read},
    failure::Failure,
    setup::{bind, budgets, models, written},
};
use crate::{ConfigError, Description, Field, PolicyConfig};

/// Every field has a doc comment; and what is said to be its default can be written, and is its default.
///
/// # Errors
///
/// If it does not hold.
pub fn config_explains_its_fields<C: PolicyConfig>(_: &[fn() -> C]) -> Result<(), Failure> {
    let failure = |reason: String| fail(&C::default(), reason);
    let defaults = fields(&C::default())?;
    for field in Description::of::<C>().fields {
        let Field { name, default, .. } = &field;
        if field.doc.is_empty() {
            return Err(failure(format!(
                "has the field `{name}` without a doc comment: say what it is, its unit and what is allowed"
            )));
        }
        let alone = Map::from_iter([(name.clone(), default.clone())]);
        let read: C = read(&alone).map_err(|error| {
            failure(format!(
                "cannot read the default of `{name}`, {default}: {error}"
            ))
        })?;
        if fields(&read)? != defaults {
            return Err(failure(format!(
                "reads the default of `{name}`, {default}, as another value"
            )));
        }
        if !is_of_its_kind(&field) {
            return Err(failure(format!(
                "says that `{name}` is {}, but its default is {default}",
                field.kind
            )));
        }
    }
    Ok(())
}

/// Whether the default of a field is what its kind allows, as far as that is stated.
fn is_of_its_kind(field: &Field) -> bool {
    let number = |number: &Option<Number>| number.as_ref().and_then(Number::as_f64);
    let (least, most) = (number(&field.least), number(&field.most));
    match &field.default {
        Value::Null => field.is_optional,
        Value::Number(default) => default.as_f64().is_some_and(|default| {
            least.is_none_or(|least| default >= least) && most.is_none_or(|most| default <= most)
        }),
        _ => true,
    }
}

/// The range that a field states is the one that is allowed: a number outside it is always refused, and its ends are
/// accepted by one of the configurations under some budget, or refused for the sake of another field that the refusal
/// names.
///
/// # Errors
///
/// If it does not hold.
pub fn config_states_its_ranges<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    for field in Description::of::<C>().fields {
        let Field { name, kind, .. } = &field;
        let (least, most) = (field.least.as_ref(), field.most.as_ref());
        let outside = [least.and_then(below), most.and_then(above)];
        for number in outside.into_iter().flatten() {
            if let Verdict::Accepted(case) = verdict(configs, name, &number)? {
                let reason = format!("says that `{name}` is {kind}, but accepts {number}");
                return Err(Failure::new(C::NAME, case, reason));
            }
        }
        for number in least.into_iter().chain(most).cloned().map(Value::Number) {
            if verdict(configs, name, &number)? == Verdict::Refused {
                return Err(fail(
                    &C::default(),
                    format!(
                        "says that `{name}` is {kind}, but never accepts {number}: state `#[schemars(range(..))]`"
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// The next smaller number of the same type, if there is one.
fn below(number: &Number) -> Option<Value> {
    match (number.as_i64(), number.as_f64()) {
        (Some(whole), _) => whole.checked_sub(1).map(Value::from),
        (None, Some(fraction)) if number.is_f64() => Some(fraction.next_down().into()),
        _ => number.as_u64().map(|whole| (whole - 1).into()),
    }
}

/// The next larger number of the same type, if there is one.
fn above(number: &Number) -> Option<Value> {
    match (number.as_i64(), number.as_f64()) {
        (Some(whole), _) => whole.checked_add(1).map(Value::from),
        (None, Some(fraction)) if number.is_f64() => Some(fraction.next_up().into()),
        _ => number.as_u64()?.checked_add(1).map(Value::from),
    }
}

/// What becomes of a number in a field.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is accepted, in this case for one.
    Accepted(String),
    /// It is refused because of what another field says.
    Depends,
    /// It is refused.
    Refused,
}

/// Binds every configuration with this number in a field to every model, under the budgets that it accepts without.
fn verdict<C: PolicyConfig>(
    configs: &[fn() -> C],
    field: &str,
    number: &Value,
) -> Result<Verdict, Failure> {
    let mut verdict = Verdict::Refused;
    for config in configs {
        let mut set = fields(&config())?;
        set.insert(field.to_owned(), number.clone());
        for geometry in models() {
            for budget in budgets(&geometry) {
                if bind(config(), &geometry, budget)?.is_err() {
                    continue;
                }
                let Ok(config) = read::<C>(&set) else { break };
                let case = format!(
                    "the configuration {}, budget {budget}, {geometry:?}",
                    written(&config)
                );
                match bind(config, &geometry, budget)? {
                    Ok(_) => return Ok(Verdict::Accepted(case)),
                    Err(refusal) if names_another(&refusal, field, &set) => {
                        verdict = Verdict::Depends;
                    }
                    Err(_) => {}
                }
            }
        }
    }
    Ok(verdict)
}

/// Whether a refusal has to do with another field.
fn names_another(refusal: &ConfigError, field: &str, fields: &Map<String, Value>) -> bool {
    let ConfigError::OutOfRange {
        field: blamed,
        allowed,
        ..
    } = refusal
    else {
        return false;
    };
    let mut others = fields.keys().filter(|other| *other != field);
    *blamed != field || others.any(|other| allowed.contains(&format!("`{other}`")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_next_number_is_of_the_same_type() {
        let next = |number: Value| {
            let number = number.as_number().expect("a number").clone();
            (below(&number), above(&number))
        };
        assert_eq!(next(json!(0)), (Some(json!(-1)), Some(json!(1))));
        assert_eq!(
            next(json!(u64::MAX)),
            (Some(json!(u64::MAX - 1)), None),
            "beyond is nothing"
        );
        let (less, more) = (1.0 - f64::EPSILON / 2.0, 1.0 + f64::EPSILON);
        assert_eq!(next(json!(1.0)), (Some(json!(less)), Some(json!(more))));
    }
}
