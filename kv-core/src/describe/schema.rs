//! From the JSON schema of a configuration, and its default, to fields in a user's words.
use std::fmt;

use schemars::SchemaGenerator;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{Choice, Field};
use crate::{ConfigError, PolicyConfig, registry::defaults};

/// A type that contains itself is described to this depth.
const DEEPEST: usize = 8;

/// The fields of a configuration, as it declares them.
pub(super) fn fields<C: PolicyConfig>() -> Vec<Field> {
    let schema = SchemaGenerator::default()
        .into_root_schema_for::<C>()
        .to_value();
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let default = defaults::<C>();
    let mut names = names(&C::default());
    // What the default does not write is not in its order either.
    let unwritten = |name: &&String| !default.contains_key(*name);
    names.extend(properties.keys().filter(unwritten).cloned());
    let field = |name: String| {
        let property = properties.get(&name).unwrap_or(&Value::Null);
        let shape = Shape::of(&schema, property, 0);
        Field {
            kind: shape.kind(),
            is_optional: shape.is_optional,
            default: default.get(&name).cloned().unwrap_or_default(),
            doc: doc(property),
            choices: shape.choices,
            least: shape.least,
            most: shape.most,
            name,
        }
    };
    names.into_iter().map(field).collect()
}

/// The names of the fields in the order in which they are written. A map of values would sort them, or not, as another
/// crate of the build asks.
fn names(config: &impl serde::Serialize) -> Vec<String> {
    let text = serde_json::to_string(config).unwrap_or_default();
    serde_json::from_str(&text).map_or_else(|_| Vec::new(), |Names(names)| names)
}

struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of fields")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some((name, IgnoredAny)) = map.next_entry()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// The doc comment of a schema, as one paragraph.
fn doc(schema: &Value) -> String {
    let text = schema["description"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a schema allows.
#[derive(Debug, Default)]
struct Shape {
    /// What may be written besides the choices.
    kinds: Vec<String>,
    choices: Vec<Choice>,
    is_optional: bool,
    least: Option<Number>,
    most: Option<Number>,
}

impl Shape {
    fn of(root: &Value, schema: &Value, depth: usize) -> Self {
        let mut shape = Self::default();
        if depth > DEEPEST {
            return shape;
        }
        if let Some(name) = schema["$ref"].as_str() {
            let target = root.pointer(name.trim_start_matches('#'));
            return target.map_or(shape, |target| Self::of(root, target, depth + 1));
        }
        let several = ["oneOf", "anyOf", "allOf"];
        if let Some(several) = several.iter().find_map(|key| schema[key].as_array()) {
            for one in several {
                shape.or(Self::of(root, one, depth + 1));
            }
        } else if let Some(value) = schema.get("const") {
            shape.choose(value, doc(schema));
        } else if let Some(values) = schema["enum"].as_array() {
            values
                .iter()
                .for_each(|value| shape.choose(value, String::new()));
        } else {
            let name = &schema["type"];
            let names = name
                .as_array()
                .map_or(std::slice::from_ref(name), |names| names);
            for name in names.iter().filter_map(Value::as_str) {
                shape.allow(name, root, schema, depth);
            }
        }
        shape
    }

    /// Allows what another shape does, too.
    fn or(&mut self, other: Self) {
        let is_first = self.kinds.is_empty();
        if !other.kinds.is_empty() {
            self.least = other.least.filter(|_| is_first);
            self.most = other.most.filter(|_| is_first);
        }
        self.kinds.extend(other.kinds);
        self.choices.extend(other.choices);
        self.is_optional |= other.is_optional;
    }

    fn choose(&mut self, value: &Value, doc: String) {
        if value.is_null() {
            self.is_optional = true;
        } else {
            let value = value.clone();
            self.choices.push(Choice { value, doc });
        }
    }

    /// Allows one of the types of JSON.
    fn allow(&mut self, name: &str, root: &Value, schema: &Value, depth: usize) {
        let inner = |schema: &Value| Self::of(root, schema, depth + 1).kind();
        let kind = match name {
            "null" => {
                self.is_optional = true;
                return;
            }
            "integer" | "number" => {
                self.least = schema["minimum"].as_number().cloned();
                self.most = schema["maximum"].as_number().cloned();
                name.to_owned() + &range(self.least.as_ref(), self.most.as_ref())
            }
            "boolean" => "true or false".into(),
            "string" => schema["format"].as_str().unwrap_or("text").to_owned(),
            "array" => match schema["prefixItems"].as_array() {
                Some(items) => {
                    let items: Vec<String> = items.iter().map(inner).collect();
                    format!("list of {}", items.join(", "))
                }
                None => format!("list of {}", inner(&schema["items"])),
            },
            _ => match schema["properties"].as_object() {
                Some(fields) => {
                    let mut names: Vec<&str> = fields.keys().map(String::as_str).collect();
                    names.sort_unstable();
                    format!("table with {}", names.join(", "))
                }
                None => format!("table of {}", inner(&schema["additionalProperties"])),
            },
        };
        self.kinds.push(kind);
    }

    /// In words.
    fn kind(&self) -> String {
        let values: Vec<String> = self
            .choices
            .iter()
            .map(|choice| choice.value.to_string())
            .collect();
        let choice = match values.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            several => Some(format!("one of {}", several.join(", "))),
        };
        let kinds: Vec<String> = choice
            .into_iter()
            .chain(self.kinds.iter().cloned())
            .collect();
        if kinds.is_empty() {
            return "value".into();
        }
        kinds.join(" or ")
    }
}

/// What may follow the name of a number: ` from 0 to 1`.
fn range(least: Option<&Number>, most: Option<&Number>) -> String {
    let from = least.map(|least| format!(" from {}", written(least)));
    let to = most.map(|most| match least {
        Some(_) => format!(" to {}", written(most)),
        None => format!(" up to {}", written(most)),
    });
    from.into_iter().chain(to).collect()
}

fn written(number: &Number) -> String {
    match number.as_f64() {
        Some(fraction) if number.is_f64() => ConfigError::written(fraction),
        _ => number.to_string(),
    }
}
