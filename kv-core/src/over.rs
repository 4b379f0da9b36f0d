//! Methods over other methods.
use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Budget, Cadence, ConfigError, Geometry, Needs, Policy, Registry};

/// The policy that another one works over, as a user writes it: its name, `"key-diff"`, or a table with its name and its
/// fields, `{"policy": "lag-kv", "lag": 64}`.
///
/// A field of this type is bound in [`PolicyConfig::bind_in`](crate::PolicyConfig::bind_in).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Over {
    policy: String,
    fields: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Name(String),
    Table {
        policy: String,
        #[serde(flatten)]
        fields: Map<String, Value>,
    },
}

impl From<Written> for Over {
    fn from(written: Written) -> Self {
        match written {
            Written::Name(policy) => Self::named(policy),
            Written::Table { policy, fields } => Self { policy, fields },
        }
    }
}

impl From<Over> for Written {
    fn from(over: Over) -> Self {
        let Over { policy, fields } = over;
        if fields.is_empty() {
            Self::Name(policy)
        } else {
            Self::Table { policy, fields }
        }
    }
}

impl JsonSchema for Over {
    fn schema_name() -> Cow<'static, str> {
        "Over".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "format": "name of a policy" },
            { "type": "object", "properties": { "policy": { "type": "string" }, "its fields": {} } },
        ] })
    }
}

impl Over {
    /// A policy with its default fields.
    #[must_use]
    pub fn named(policy: impl Into<String>) -> Self {
        Self {
            policy: policy.into(),
            fields: Map::new(),
        }
    }

    /// The policy's name.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Builds the policy.
    ///
    /// # Errors
    ///
    /// Those of [`Registry::build`].
    pub fn bind(
        &self,
        registry: &Registry,
        geometry: &Geometry,
        budget: Budget,
    ) -> Result<Box<dyn Policy>, ConfigError> {
        registry.build(&self.policy, self.fields.clone(), geometry, budget)
    }

    /// Builds a policy that ranks ([`Policy::scorer`]), for the field `field` of the policy `outer`.
    ///
    /// # Errors
    ///
    /// Those of [`Registry::build`], [`ConfigError::OutOfRange`] for a policy that ranks nothing, and [`ConfigError::Budget`] for
    /// one that makes no sense with what a head may hold.
    pub fn bind_scorer(
        &self,
        (outer, field): (&'static str, &'static str),
        registry: &Registry,
        geometry: &Geometry,
        budget: Budget,
    ) -> Result<Box<dyn Policy>, ConfigError> {
        let policy = self.bind(registry, geometry, budget)?;
        if policy.scorer().is_none() {
            let allowed = "a policy that ranks a prompt's tokens by a score";
            return Err(self.refused((outer, field), allowed));
        }
        let least = policy.needs().min_tokens;
        let most = budget.fixed_tokens(geometry);
        if least > most.unwrap_or(geometry.max_positions) {
            return Err(ConfigError::Budget {
                value: budget.to_string(),
                allowed: format!("at least {least} tokens per KV head, which `{field}` needs"),
            });
        }
        Ok(policy)
    }

    /// Refuses a policy with these needs that plans again what a layer holds, for the field `field` of the policy `outer`.
    ///
    /// # Errors
    ///
    /// [`ConfigError::OutOfRange`].
    pub fn check_plans_once(
        &self,
        outer_field: (&'static str, &'static str),
        needs: &Needs,
    ) -> Result<(), ConfigError> {
        if needs.cadence == Cadence::LayerPrefill {
            return Ok(());
        }
        Err(self.refused(outer_field, "a policy that plans once, after the prompt"))
    }

    fn refused(&self, (outer, field): (&'static str, &'static str), allowed: &str) -> ConfigError {
        ConfigError::out_of_range(outer, field, format!("`{}`", self.policy), allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_table_are_read_and_written() {
        for text in [r#""key-diff""#, r#"{"policy":"lag-kv","lag":64}"#] {
            let over: Over = serde_json::from_str(text).expect("well formed");
            let written = serde_json::to_value(&over).expect("can be written");
            let expected: Value = serde_json::from_str(text).expect("well formed");
            assert_eq!(written, expected);
        }
        let bare: Over = serde_json::from_str(r#"{"policy":"h2o"}"#).expect("well formed");
        assert_eq!(bare, Over::named("h2o"));
        assert!(serde_json::from_str::<Over>(r#"{"lag":64}"#).is_err());
        assert!(serde_json::from_str::<Over>("7").is_err());
    }

    #[test]
    fn a_policy_that_does_not_rank_is_refused_by_name() {
        let mut registry = Registry::default();
        registry.add::<crate::KeepAllConfig>();
        let geometry = Geometry {
            layers: 1,
            kv_heads: 1,
            group: 1,
            head_dim: 8,
            block: 8,
            element_bytes: 4,
            max_positions: 64,
        };
        let error = Over::named("keep-all")
            .bind_scorer(("ada-kv", "over"), &registry, &geometry, Budget::Full)
            .expect_err("it keeps everything");
        assert_eq!(
            error.to_string(),
            "policy ada-kv: `over` is `keep-all`, must be a policy that ranks a prompt's tokens by a score"
        );
        let unknown = Over::named("nobody").bind(&registry, &geometry, Budget::Full);
        assert!(matches!(unknown, Err(ConfigError::UnknownPolicy { .. })));
    }
}
