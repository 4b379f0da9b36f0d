//! Configurations that are read or written wrongly, of a policy that is right.
use kv_core::{Budget, ConfigError, Geometry, PolicyConfig};
use serde::{Deserialize, Serialize, Serializer};

use crate::window::{Nothing, Window, WindowConfig};

type Right = WindowConfig<Nothing>;

macro_rules! config {
    ($(#[$outer:meta])* $name:ident { $(#[$sinks:meta])* sinks, $(#[$recent:meta])* recent } by default $default:literal) => {
        #[derive(Debug, Clone, Copy, Serialize, Deserialize)]
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

fn nothing<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    Option::<usize>::deserialize(deserializer).map(|_| None)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn one_more<S: Serializer>(sinks: &usize, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(*sinks as u64 + 1)
}
