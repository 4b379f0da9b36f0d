//! Configurations that are read or written wrongly, of a policy that is right.
use kv_core::{Budget, ConfigError, Geometry, PolicyConfig, schemars::JsonSchema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::window::{Nothing, Window, WindowConfig};

type Right = WindowConfig<Nothing>;

macro_rules! config {
    ($(#[$outer:meta])* $name:ident { $(#[$sinks:meta])* sinks, $(#[$recent:meta])* recent } by default $default:literal) => {
        #[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
        #[schemars(crate = "kv_core::schemars")]
        $(#[$outer])*
        pub(crate) struct $name {
            $(#[$sinks])*
            sinks: usize,
            $(#[$recent])*
            recent: Option<usize>,
        }

        impl Default for $name {
            fn default() -> Self {
                Self { sinks: $default, recent: None }
            }
        }

        impl PolicyConfig for $name {
            const NAME: &'static str = "window";
            const SUMMARY: &'static str = "sinks and a window";
            type Policy = Window;

            fn bind(self, geometry: &Geometry, budget: Budget) -> Result<Self::Policy, ConfigError> {
                Right { sinks: self.sinks, recent: self.recent, ..Right::default() }.bind(geometry, budget)
            }
        }
    };
}

config! {
    #[serde(default)]
    Lenient { sinks, recent } by default 4
}
config! {
    #[serde(deny_unknown_fields)]
    Demanding { sinks, recent } by default 4
}
config! {
    #[serde(deny_unknown_fields)]
    TwoDefaults { #[serde(default)] sinks, #[serde(default)] recent } by default 4
}
config! {
    #[serde(deny_unknown_fields, default)]
    Deaf { sinks, #[serde(deserialize_with = "nothing")] recent } by default 4
}
config! {
    #[serde(deny_unknown_fields, default)]
    Writes { #[serde(serialize_with = "one_more")] sinks, recent } by default 4
}
config! {
    #[serde(deny_unknown_fields, default)]
    Undocumented { #[doc = "First tokens."] sinks, recent } by default 4
}
config! {
    #[serde(deny_unknown_fields, default)]
    Choosy { #[doc = "First tokens."] #[serde(deserialize_with = "one_or_none")] sinks, #[doc = "Latest."] recent } by default 4
}
config! {
    #[serde(deny_unknown_fields, default)]
    DefaultsOutside { #[doc = "First tokens."] #[schemars(range(max = 3))] sinks, #[doc = "Latest."] recent } by default 4
}
config! {
    #[serde(deny_unknown_fields, default)]
    ClaimsZero { #[doc = "First tokens."] sinks, #[doc = "Latest."] recent } by default 4
}
config! {
    #[serde(deny_unknown_fields, default)]
    ClaimsLess { #[doc = "First tokens."] #[schemars(range(max = 7))] sinks, #[doc = "Latest."] recent } by default 4
}

fn one_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    usize::deserialize(deserializer).and_then(|sinks| match sinks {
        0 | 1 => Ok(sinks),
        _ => Err(D::Error::custom("a sink or none")),
    })
}

fn nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    Option::<usize>::deserialize(deserializer).map(|_| None)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn one_more<S: Serializer>(sinks: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(*sinks as u64 + 1)
}
