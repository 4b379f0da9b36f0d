//! What the runtime observes for a policy: by one kernel call where it is asked for, by none where it is not; and what a
//! prompt's tail sees.
mod common;

use candle_core::DType;
use common::host::{DIM, GROUP, HEADS, Host, LAYERS, expected, relative_error, remembered};
use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Observation, Policy, PolicyConfig,
    Registry,
};
use mistralrs_kv::{CacheConfig, KernelCalls};
use serde::{Deserialize, Serialize};

/// A policy that asks for an observation, reads it and keeps all.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Watcher {
    what: String,
}

impl PolicyConfig for Watcher {
    const NAME: &'static str = "watcher";
    const SUMMARY: &'static str = "looks and keeps all";
    type Policy = Self;

    fn bind(self, _: &Geometry, _: Budget) -> Result<Self, ConfigError> {
        Ok(self)
    }
}

impl Policy for Watcher {
    fn needs(&self) -> Needs {
        let observation = match self.what.as_str() {
            "window" => Observation::Window { queries: 8 },
            "accumulated" => Observation::Accumulated,
            "rows" => Observation::Rows,
            "norms" => Observation::KeyNorms,
            _ => Observation::None,
        };
        Needs {
            observation,
            ..Needs::NONE
        }
    }

    fn plan(&self, view: &LayerView<'_>, _: &mut KeepPlan) {
        if self.what != "nothing" {
            for head in 0..view.heads() {
                assert_eq!(
                    view.scores(head).len(),
                    view.prompt,
                    "a score for each token"
                );
            }
        }
    }
}

/// Kernel calls for two prompts of their own and then two decode steps of both together.
fn calls(what: &str) -> KernelCalls {
    let mut registry = Registry::default();
    registry.add::<Watcher>();
    let config = CacheConfig::new("watcher")
        .registry(registry)
        .set("what", what);
    let mut host = Host::new(config, DType::F32, 1);
    let mut sequences = vec![remembered(1), remembered(2)];
    for sequence in &mut sequences {
        host.pass(std::slice::from_mut(sequence), 20, true);
    }
    for _ in 0..2 {
        host.pass(&mut sequences, 1, false);
    }
    host.runtime.stats().expect("open").kernels
}

#[test]
fn nothing_is_computed_that_the_policy_did_not_name() {
    let layers = u64::try_from(LAYERS).expect("few");
    let (prompts, steps) = (2 * layers, 2 * layers);
    let bare = KernelCalls {
        write: prompts + steps,
        attend: steps,
        ..KernelCalls::default()
    };
    assert_eq!(calls("nothing"), bare);
    let window = KernelCalls {
        observe_window: prompts,
        ..bare
    };
    assert_eq!(calls("window"), window);
    let accumulated = KernelCalls {
        observe_accumulated: prompts,
        ..bare
    };
    assert_eq!(calls("accumulated"), accumulated);
    let norms = KernelCalls {
        key_norms: prompts,
        ..bare
    };
    assert_eq!(calls("norms"), norms);
    let rows = KernelCalls {
        attend: 0,
        attend_observed: steps,
        ..accumulated
    };
    assert_eq!(calls("rows"), rows);
}

/// Every token of a tail sees what its head holds when it comes, itself included, and all before it sees dense attention.
fn a_tail_sees_the_cache(
    config: CacheConfig,
    tail: usize,
    prompt: usize,
    held: impl Fn(usize) -> Vec<usize>,
) {
    let seed: u64 = rand::random();
    let mut host = Host::new(config.prompt_tail(tail), DType::F32, seed);
    let mut sequence = [remembered(5)];
    let passes = host.pass(&mut sequence, prompt, true);
    for (layer, pass) in passes.iter().enumerate() {
        for head in 0..HEADS * GROUP {
            for token in 0..prompt {
                let row = &pass.output[(head * prompt + token) * DIM..][..DIM];
                if token < prompt - tail {
                    assert!(
                        row.iter().all(|&x| x == 1.0),
                        "token {token} is dense (seed {seed})"
                    );
                    continue;
                }
                let query = &pass.queries[(head * prompt + token) * DIM..][..DIM];
                let want = expected(&sequence[0], layer, head / GROUP, &held(token), query);
                let error = relative_error(row, &want);
                assert!(
                    error <= 1e-5,
                    "token {token} of head {head}: {error} (seed {seed})"
                );
            }
        }
    }
    let report = host.runtime.open_sequences().pop().expect("open");
    assert_eq!(
        report.prompt_tokens, prompt,
        "the tail is a part of the prompt"
    );
}

#[test]
fn a_tail_is_read_through_what_was_kept() {
    a_tail_sees_the_cache(CacheConfig::new("keep-all"), 9, 40, |token| {
        (0..=token).collect()
    });
    let window = CacheConfig::new("streaming-llm").budget(Budget::Tokens(12));
    a_tail_sees_the_cache(window.clone(), 9, 40, |token| {
        (0..4).chain(token - 7..=token).collect()
    });
    // A tail as long as the prompt leaves one token to compress.
    a_tail_sees_the_cache(window, 29, 30, |token| match token {
        0..12 => (0..=token).collect(),
        _ => (0..4).chain(token - 7..=token).collect(),
    });
}

#[test]
fn without_a_tail_the_prompt_is_dense() {
    let mut host = Host::new(CacheConfig::new("keep-all"), DType::F32, 1);
    let passes = host.pass(&mut [remembered(1)], 30, true);
    assert!(
        passes
            .iter()
            .all(|pass| pass.output.iter().all(|&x| x == 1.0))
    );
}
