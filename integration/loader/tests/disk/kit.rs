//! The conformance kit, through the pipes.
use std::{borrow::Cow, sync::OnceLock};

use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Policy, PolicyConfig, Room, Scorer,
    conformance::{Property, Wrong, plan_fits_its_bound, plan_reads_only_what_it_asked_for},
    schemars::{JsonSchema, Schema, SchemaGenerator},
};
use kv_loader::{DiskPolicy, Failure, Loaded, load};
use serde::{Deserialize, Serialize};

use crate::{
    prober::ProberConfig, programs::program, reader::ReaderConfig, trickster::TricksterConfig,
};

/// A configuration whose policy is a program.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Disk<C>(C);

impl<C: JsonSchema> JsonSchema for Disk<C> {
    fn schema_name() -> Cow<'static, str> {
        C::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        C::json_schema(generator)
    }
}

/// A policy that panics where its program fails, as one that is compiled in would.
#[derive(Debug)]
struct Loud(DiskPolicy);

impl Loud {
    fn speak(&self) {
        match self.0.failure() {
            // The kit's own doing, which has panicked already.
            None => {}
            Some(error) if error.failure == Failure::BrokenOff => {}
            Some(error) => panic!("{error}"),
        }
    }
}

impl Policy for Loud {
    fn needs(&self) -> Needs {
        self.0.needs()
    }

    fn room(&self, layer: usize, prompt: usize, budget: usize) -> Room {
        let room = self.0.room(layer, prompt, budget);
        self.speak();
        room
    }

    fn notice(&self) -> Option<String> {
        self.0.notice()
    }

    fn scorer(&self) -> Option<&dyn Scorer> {
        self.0.scorer()
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        self.0.plan(view, keep);
        self.speak();
    }
}

macro_rules! on_disk {
    ($config:ty) => {
        impl PolicyConfig for Disk<$config> {
            const NAME: &'static str = <$config>::NAME;
            const SUMMARY: &'static str = <$config>::SUMMARY;
            type Policy = Loud;

            fn bind(self, geometry: &Geometry, budget: Budget) -> Result<Loud, ConfigError> {
                static LOADED: OnceLock<Loaded> = OnceLock::new();
                let loaded =
                    LOADED.get_or_init(|| load(program(Self::NAME)).expect("a good program"));
                let fields = serde_json::to_value(self.0).expect("a table of fields");
                loaded.bind(fields, geometry, budget).map(Loud)
            }
        }
    };
}

on_disk!(ReaderConfig);
on_disk!(ProberConfig);
on_disk!(TricksterConfig);

fn even() -> Disk<ReaderConfig> {
    Disk(ReaderConfig {
        odd: 1.0,
        late: Some(1),
    })
}

kv_core::conformance!(reader, [Disk::<ReaderConfig>::default, even];
also budgets_nest;
refuses [
    Wrong::new("odd", r#"{"odd": -0.5}"#),
    Wrong::new("odd", r#"{"odd": 1e300}"#),
]);
kv_core::conformance!(prober, Disk::<ProberConfig>::default; also heads_are_alike, budgets_nest);
fn tricks(at: &str, what: &str) -> Disk<TricksterConfig> {
    let (at, what) = (at.into(), what.into());
    Disk(TricksterConfig { at, what })
}

/// A property, a policy that does not have it, and why.
type Bad = (
    Property<Disk<TricksterConfig>>,
    fn() -> Disk<TricksterConfig>,
    &'static str,
);

/// A kit that lets anything through would not notice that the pipes lose something.
#[test]
fn the_kit_fails_a_bad_policy_on_disk() {
    let cases: [Bad; 3] = [
        (plan_fits_its_bound, Disk::default, "its bound is Each("),
        (
            plan_fits_its_bound,
            || tricks("", "rooms"),
            "with rooms of 7 heads for layers with 1",
        ),
        (
            plan_reads_only_what_it_asked_for,
            || tricks("", "rank"),
            "ranks by scores, which it did not ask for",
        ),
    ];
    for (property, config, reason) in cases {
        let failure = std::panic::catch_unwind(|| property(&[config]));
        let said = match failure {
            Ok(result) => result.expect_err("it is a bad policy").to_string(),
            Err(panic) => panic
                .downcast::<String>()
                .map_or_else(|_| String::new(), |text| *text),
        };
        assert!(said.contains(reason), "{said}");
    }
}
