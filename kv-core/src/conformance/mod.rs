//! What every policy must hold, as tests that a policy crate runs in one line.
//!
//! ```no_run
//! # mod my_policy { pub type MyConfig = kv_core::KeepAllConfig; }
//! # use my_policy::MyConfig;
//! kv_core::conformance!(conformance, MyConfig::default);
//! ```
//!
//! makes a module with one `#[test]` per property. Several configurations are tested in the same tests, properties that
//! not every policy has are opted into, and values that must be refused are listed:
//!
//! ```no_run
//! # use kv_core::{Budget, KeepAllConfig as MyConfig, conformance::Wrong};
//! # fn small() -> MyConfig { MyConfig::default() }
//! kv_core::conformance!(conformance, [MyConfig::default, small];
//!     also heads_are_alike, budgets_nest;
//!     refuses [
//!         Wrong::new("recent", r#"{"recent": 0}"#),
//!         Wrong::new("sinks", r#"{"sinks": 64}"#).under(Budget::Tokens(64)),
//!     ]);
//! ```
//!
//! Every configuration is bound to several small models and budgets (a single token per head among them) and asked for
//! plans of prompts and of caches in mid-decode, whose slots stand in no order. The cases are the same on every machine;
//! `HEADROOM_SEED` makes others, and a failure prints the seed with the case.
//!
//! The kit knows no method: it finds broken plumbing, while a wrong choice of tokens needs [`Golden`] plans from the
//! method's own code. Decoding is replayed with every plan that the policy's [`Cadence`](crate::Cadence) asks for.
mod case;
mod config;
mod dice;
mod failure;
mod golden;
mod optional;
mod plan;
mod prompts;
mod reference;
mod replay;
mod rows;
mod setup;
mod stand_in;

pub use config::{
    config_describes_itself, config_fills_in_defaults, config_keeps_what_is_set,
    config_refuses_by_name, config_refuses_unknown_fields, config_round_trips,
};
pub use failure::Failure;
pub use golden::{Golden, decode, geometry};
pub use optional::{
    Wrong, budgets_nest, heads_are_alike, keeps_the_best, refuses, rooms_spend_the_budget,
    ties_go_to_the_lower_head,
};
pub use plan::{
    plan_fits_its_bound, plan_is_deterministic, plan_is_even_unless_ragged,
    plan_keeps_all_when_there_is_room, plan_keeps_the_newest, plan_keeps_the_pins,
    plan_names_real_slots, plan_reads_only_what_it_asked_for, plan_uses_what_it_asked_for,
};
pub use prompts::golden_prompts;
pub use reference::{config_explains_its_fields, config_states_its_ranges};
pub use replay::replay_keeps_every_byte;
pub use stand_in::registry;

/// A property of a policy, tried on each of several configurations.
pub type Property<C> = fn(&[fn() -> C]) -> Result<(), Failure>;

/// Makes a module with a test for each property of a policy. See [the kit](mod@crate::conformance).
#[macro_export]
macro_rules! conformance {
    // The one list of the properties that every policy must have.
    (@every $arm:tt $($args:tt)*) => {
        $crate::conformance! { @$arm [$($args)*]
            config_describes_itself
            config_round_trips
            config_refuses_unknown_fields
            config_fills_in_defaults
            config_keeps_what_is_set
            config_refuses_by_name
            config_explains_its_fields
            config_states_its_ranges
            plan_names_real_slots
            plan_keeps_the_newest
            plan_keeps_the_pins
            plan_is_deterministic
            plan_is_even_unless_ragged
            plan_fits_its_bound
            plan_keeps_all_when_there_is_room
            plan_reads_only_what_it_asked_for
            plan_uses_what_it_asked_for
            replay_keeps_every_byte
        }
    };
    (@list [] $($property:ident)+) => {
        vec![$((stringify!($property), $property as $crate::conformance::Property<C>)),+]
    };
    (@tests [$configs:tt] $($property:ident)+) => {
        $(#[test]
        fn $property() {
            $crate::conformance::hold($crate::conformance::$property, &$configs);
        })+
    };
    (@module $configs:tt $name:ident
        $(; also $($extra:ident),+ $(,)?)? $(; refuses [$($wrong:expr),+ $(,)?])? $(;)?) => {
        mod $name {
            #[allow(unused_imports, reason = "a configuration may be named by its whole path")]
            use super::*;
            $crate::conformance! { @every tests $configs }
            $($crate::conformance! { @tests [$configs] $($extra)+ })?
            $(#[test]
            fn refuses() {
                let configs = $crate::conformance::configs(&$configs);
                $crate::conformance::report($crate::conformance::refuses(configs, &[$($wrong),+]));
            })?
        }
    };
    ($name:ident, [$($config:tt)+] $($rest:tt)*) => {
        $crate::conformance! { @module [$($config)+] $name $($rest)* }
    };
    ($name:ident, $config:expr $(; $($rest:tt)*)?) => {
        $crate::conformance! { @module [$config] $name $(; $($rest)*)? }
    };
}

/// Every property that the macro tests unasked, by name.
#[must_use]
pub fn properties<C: crate::PolicyConfig>() -> Vec<(&'static str, Property<C>)> {
    conformance!(@every list)
}

/// Panics unless a property holds. For the macro.
///
/// # Panics
///
/// If the property does not hold.
#[doc(hidden)]
pub fn hold<C: crate::PolicyConfig>(property: Property<C>, configs: &[fn() -> C]) {
    report(property(configs));
}

/// The configurations as one slice. For the macro.
#[doc(hidden)]
#[must_use]
pub fn configs<C>(configs: &[fn() -> C]) -> &[fn() -> C] {
    configs
}

/// Panics with what failed. For the macro.
///
/// # Panics
///
/// If something failed.
#[doc(hidden)]
pub fn report(result: Result<(), Failure>) {
    if let Err(failure) = result {
        panic!("{failure}");
    }
}
