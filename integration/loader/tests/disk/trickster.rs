//! A policy that does something wrong where it is told to.
use std::{io::Write, time::Duration};

use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Policy, PolicyConfig, Room,
    schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub(crate) struct TricksterConfig {
    /// Where: `bind`, `needs`, `notice`, `room` or `plan`.
    pub(crate) at: String,
    /// What: `panic`, `exit`, `abort`, `hang`, `print`, `overflow`, `rank` or `rooms`.
    pub(crate) what: String,
}

/// Plays tricks.
#[derive(Debug)]
pub(crate) struct Trickster(TricksterConfig);

impl PolicyConfig for TricksterConfig {
    const NAME: &'static str = "trickster";
    const SUMMARY: &'static str = "does something wrong";
    type Policy = Trickster;

    fn bind(self, _: &Geometry, _: Budget) -> Result<Trickster, ConfigError> {
        if self.at == "nowhere" {
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "somewhere",
                &self.at,
                "a place",
            ));
        }
        let trickster = Trickster(self);
        trickster.play("bind");
        Ok(trickster)
    }
}

#[allow(unconditional_recursion, reason = "the stack is to overflow")]
fn deeper(by: &[u8]) -> usize {
    let more = [by, by].concat();
    more.len().max(deeper(&more[..by.len()]))
}

impl Trickster {
    fn play(&self, at: &str) {
        if self.0.at != at {
            return;
        }
        match self.0.what.as_str() {
            "panic" => panic!("it is {at}'s fault"),
            "exit" => std::process::exit(7),
            "abort" => std::process::abort(),
            "hang" => std::thread::sleep(Duration::from_secs(3600)),
            "print" => {
                let mut out = std::io::stdout();
                let said = out.write_all(b"I am here\n").and_then(|()| out.flush());
                said.expect("standard output is open");
            }
            "overflow" => {
                deeper(&[1; 64]);
            }
            _ => {}
        }
    }
}

impl Policy for Trickster {
    fn needs(&self) -> Needs {
        self.play("needs");
        Needs::NONE
    }

    fn room(&self, _: usize, _: usize, budget: usize) -> Room {
        self.play("room");
        match self.0.what.as_str() {
            "rooms" => Room::Heads(vec![budget; 7]),
            _ => Room::Each(budget),
        }
    }

    /// Its process, for a test that looks for it.
    fn notice(&self) -> Option<String> {
        self.play("notice");
        Some(std::process::id().to_string())
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        self.play("plan");
        if self.0.what == "rank" {
            keep.top(0, 1, 1);
        } else if view.len(0) > view.budget {
            // More than its room.
            keep.window(0, 0, view.budget.saturating_add(1));
        }
    }
}
