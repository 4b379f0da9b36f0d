//! Policies by name.
use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::{Map, Value};

use crate::{Budget, ConfigError, Description, Geometry, Policy, PolicyConfig};

type Built = Result<Box<dyn Policy>, ConfigError>;
type Build = Arc<dyn Fn(Value, &Registry, &Geometry, Budget) -> Built + Send + Sync>;
type Made<T> = Arc<dyn Fn() -> T + Send + Sync>;

#[derive(Clone)]
struct Entry {
    name: &'static str,
    defaults: Made<Map<String, Value>>,
    describe: Made<Description>,
    build: Build,
}

/// Builds policies from a name, a table of fields and a budget.
#[derive(Clone, Default)]
pub struct Registry {
    entries: BTreeMap<&'static str, Entry>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}

impl Registry {
    /// Adds a policy under its [`PolicyConfig::NAME`]; a policy of that name that was added before is replaced.
    pub fn add<C: PolicyConfig + 'static>(&mut self) -> &mut Self {
        let entry = Entry {
            name: C::NAME,
            defaults: Arc::new(defaults::<C>),
            describe: Arc::new(Description::of::<C>),
            build: Arc::new(build::<C>),
        };
        self.entries.insert(C::NAME, entry);
        self
    }

    /// Adds a policy that is no type of this program, under the name that its description says; `build` is called with
    /// fields that the description names, and with a budget that fits the model. As [`Registry::add`], it replaces.
    pub fn add_described(
        &mut self,
        description: Description,
        build: impl Fn(Value, &Geometry, Budget) -> Result<Box<dyn Policy>, ConfigError>
        + Send
        + Sync
        + 'static,
    ) -> &mut Self {
        let name = description.name;
        let fields = description.fields.iter();
        let defaults: Map<String, Value> = fields
            .map(|field| (field.name.clone(), field.default.clone()))
            .collect();
        let entry = Entry {
            name,
            defaults: Arc::new(move || defaults.clone()),
            describe: Arc::new(move || description.clone()),
            build: Arc::new(move |fields, _, geometry, budget| build(fields, geometry, budget)),
        };
        self.entries.insert(name, entry);
        self
    }

    /// Forgets every policy whose name is not among `names`.
    pub fn keep_only(&mut self, names: &[&str]) -> &mut Self {
        self.entries.retain(|name, _| names.contains(name));
        self
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.entries.keys().copied()
    }

    /// Every policy with its fields, sorted by name.
    pub fn describe(&self) -> impl Iterator<Item = Description> + '_ {
        self.entries.values().map(|entry| (entry.describe)())
    }

    /// Checks a configuration against a model and a budget, and builds the policy.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], which names what is wrong and what is allowed.
    pub fn build(
        &self,
        name: &str,
        config: Map<String, Value>,
        geometry: &Geometry,
        budget: Budget,
    ) -> Result<Box<dyn Policy>, ConfigError> {
        let entry = self
            .entries
            .get(name)
            .ok_or_else(|| ConfigError::UnknownPolicy {
                name: name.to_owned(),
                known: self.names().collect(),
            })?;
        budget.check(geometry)?;
        check_fields(entry, &config)?;
        (entry.build)(Value::Object(config), self, geometry, budget)
    }
}

/// Names a field that the policy does not have, and those that it has.
fn check_fields(entry: &Entry, config: &Map<String, Value>) -> Result<(), ConfigError> {
    let known = (entry.defaults)();
    let Some(stranger) = config.keys().find(|field| !known.contains_key(*field)) else {
        return Ok(());
    };
    let mut names: Vec<String> = known.keys().map(|field| format!("`{field}`")).collect();
    // A map keeps its own order or sorts, as another crate of the build may ask.
    names.sort_unstable();
    let reason = if names.is_empty() {
        format!("unknown field `{stranger}`, there are no fields")
    } else {
        format!(
            "unknown field `{stranger}`, expected one of {}",
            names.join(", ")
        )
    };
    Err(ConfigError::Malformed {
        policy: entry.name,
        reason,
    })
}

/// The fields of the default configuration.
pub(crate) fn defaults<C: PolicyConfig>() -> Map<String, Value> {
    match serde_json::to_value(C::default()) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// The first field that cannot be read even alone, with the deserialiser's words, which do not name it.
fn blame<C: PolicyConfig>(config: &Value) -> Option<String> {
    config.as_object()?.iter().find_map(|(field, value)| {
        let alone = Map::from_iter([(field.clone(), value.clone())]);
        let error = serde_json::from_value::<C>(Value::Object(alone)).err()?;
        Some(format!("`{field}`: {error}"))
    })
}

fn build<C: PolicyConfig>(
    config: Value,
    registry: &Registry,
    geometry: &Geometry,
    budget: Budget,
) -> Result<Box<dyn Policy>, ConfigError> {
    let config: C =
        serde_json::from_value(config.clone()).map_err(|error| ConfigError::Malformed {
            policy: C::NAME,
            reason: blame::<C>(&config).unwrap_or_else(|| error.to_string()),
        })?;
    Ok(Box::new(config.bind_in(registry, geometry, budget)?))
}
