//! A policy that is not part of this workspace's build: even layers keep twice the window of odd ones.
//!
//! `cargo run --release -p headroom-examples --bin 07-own-policy`
#![expect(clippy::print_stdout, reason = "an example prints")]

use anyhow::{Context, Result};
use headroom_examples::model;
use kv_core::{
    Budget, ConfigError, Geometry, Growth, KeepPlan, LayerView, Needs, Policy, PolicyConfig,
    Registry, Room, schemars::JsonSchema,
};
use mistralrs_kv::{CacheConfig, EngineConfig, Prompt, Request};
use serde::{Deserialize, Serialize};

/// First tokens that every head keeps: without them a model falls apart once the text outgrows the window.
const SINKS: usize = 4;

/// What a user may set.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
struct TwoWindows {
    /// Latest tokens that every KV head of an odd layer keeps, from 1; even layers keep twice as many.
    #[schemars(range(min = 1))]
    window: usize,
}

impl Default for TwoWindows {
    fn default() -> Self {
        Self { window: 64 }
    }
}

impl PolicyConfig for TwoWindows {
    const NAME: &'static str = "two-windows";
    const SUMMARY: &'static str = "even layers keep twice the window of odd ones";
    type Policy = Self;

    fn bind(self, _: &Geometry, _: Budget) -> Result<Self, ConfigError> {
        if self.window > 0 {
            return Ok(self);
        }
        let (policy, allowed) = (Self::NAME, "at least 1".into());
        Err(ConfigError::OutOfRange {
            policy,
            field: "window",
            value: "0".into(),
            allowed,
        })
    }
}

impl TwoWindows {
    fn recent(&self, layer: usize) -> usize {
        if layer.is_multiple_of(2) {
            2 * self.window
        } else {
            self.window
        }
    }
}

impl Policy for TwoWindows {
    fn needs(&self) -> Needs {
        Needs::NONE
    }

    fn room(&self, layer: usize, _prompt: usize, _budget: usize) -> Room {
        Room::Each(SINKS + self.recent(layer))
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        let recent = self.recent(view.layer);
        for head in 0..view.heads() {
            keep.window(head, SINKS, recent);
            keep.grow(
                head,
                Growth::Ring {
                    sinks: SINKS,
                    recent,
                },
            );
        }
    }
}

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<()> {
    let mut registry = Registry::default();
    registry.add::<TwoWindows>();
    let mut config = EngineConfig::new(model()?);
    config.cache = Some(
        CacheConfig::new("two-windows")
            .registry(registry)
            .set("window", 48),
    );
    let engine = config.start().await?;

    let answer = engine
        .generate(Request::greedy(
            Prompt::chat("Name five uses of a rope."),
            150,
        ))
        .await?;
    println!("{}", answer.text);

    let runtime = engine.runtime().context("a policy was configured")?;
    let report = runtime.report(answer.text)?;
    println!("{}", report.summary());
    for (layer, heads) in report.kept.iter().enumerate().take(4) {
        println!("layer {layer} keeps {heads:?} tokens in its heads");
    }
    Ok(())
}
