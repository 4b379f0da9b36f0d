//! Plans of what layers hold already, carried out on the host: the tokens that stay are attended to, wherever they have moved,
//! and nothing else.
mod common;

use candle_core::DType;
use common::host::{
    DIM, GROUP, HEADS, Host, LAYERS, Remembered, expected, relative_error, remembered,
};
use kv_core::{
    Budget, Cadence, ConfigError, Geometry, KeepPlan, LayerView, Needs, Phase, Policy,
    PolicyConfig, Registry, Room, schemars::JsonSchema,
};
use kv_hook::KvRuntime;
use mistralrs_kv::{CacheConfig, Runtime};
use serde::{Deserialize, Serialize};

const BUDGET: usize = 20;

/// Shares one budget among the layers, by reports of 1 and 3, or cuts a full head.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "kv_core::schemars")]
#[serde(deny_unknown_fields, default)]
struct Later {
    cascades: bool,
}

impl PolicyConfig for Later {
    const NAME: &'static str = "later";
    const SUMMARY: &'static str = "plans again";
    type Policy = Self;

    fn bind(self, _: &Geometry, _: Budget) -> Result<Self, ConfigError> {
        Ok(self)
    }
}

/// What a token is worth to the cascade.
fn worth(position: usize) -> f32 {
    f32::from(u8::try_from(position * 37 % 101).expect("below 101"))
}

/// What each layer gets of both budgets.
fn share(reports: &[f64], layer: usize) -> usize {
    match (reports.len(), layer) {
        (1, _) => LAYERS * BUDGET,
        (_, 0) => LAYERS * BUDGET / 4,
        _ => LAYERS * BUDGET * 3 / 4,
    }
}

/// Of the tokens that a full head holds, oldest first, those that stay: two of three, and the newest.
fn cut(held: &[usize]) -> Vec<usize> {
    let stays = |&(index, _): &(usize, &usize)| index % 3 != 1 || index + 1 == held.len();
    let kept = held.iter().enumerate().filter(stays);
    kept.map(|(_, &token)| token).collect()
}

impl Policy for Later {
    fn needs(&self) -> Needs {
        Needs {
            appends: self.cascades,
            cadence: if self.cascades {
                Cadence::Cascade
            } else {
                Cadence::Full
            },
            ..Needs::NONE
        }
    }

    fn room(&self, _: usize, prompt: usize, budget: usize) -> Room {
        Room::Each(if self.cascades {
            prompt.min(LAYERS * budget)
        } else {
            budget
        })
    }

    fn together(&self, _: usize, budget: usize) -> Option<usize> {
        self.cascades.then(|| LAYERS * HEADS * budget)
    }

    fn report(&self, view: &LayerView<'_>) -> f64 {
        if view.layer == 0 { 1.0 } else { 3.0 }
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        for head in 0..view.heads() {
            if !self.cascades {
                if view.phase == Phase::Decode {
                    let slots = view.by_age(head);
                    let ages: Vec<usize> = (0..slots.len()).collect();
                    keep.slots(head, cut(&ages).into_iter().map(|age| slots[age]));
                }
                continue;
            }
            let others = share(view.reports(), view.layer) - 1;
            match view.phase {
                Phase::Prefill => {
                    let scores = (0..view.prompt).map(worth).collect();
                    keep.top_by(head, scores, others, 1);
                }
                Phase::Decode => keep.top(head, others, 1 + view.seen() - view.prompt),
            }
        }
    }
}

fn config(cascades: bool) -> CacheConfig {
    let mut registry = Registry::default();
    registry.add::<Later>();
    CacheConfig::new("later")
        .registry(registry)
        .set("cascades", cascades)
        .budget(Budget::Tokens(BUDGET))
}

/// Decodes a token and compares every head's attention with the oracle over the tokens that `held` says.
fn step(host: &mut Host, sequences: &mut [Remembered], held: impl Fn(usize, usize) -> Vec<usize>) {
    let steps = host.pass(sequences, 1, false);
    for (index, sequence) in sequences.iter().enumerate() {
        for (layer, step) in steps.iter().enumerate() {
            let kept = held(index, layer);
            for head in 0..HEADS * GROUP {
                let row = (index * HEADS * GROUP + head) * DIM;
                let query = &step.queries[row..row + DIM];
                let want = expected(sequence, layer, head / GROUP, &kept, query);
                let error = relative_error(&step.output[row..row + DIM], &want);
                assert!(
                    error < 1e-5,
                    "relative error {error}, layer {layer}, head {head}, {kept:?}"
                );
            }
        }
    }
}

#[test]
fn layers_are_cut_down_as_later_ones_report() {
    const PROMPT: usize = 90;
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut host = Host::new(config(true), DType::F32, seed);
    let mut sequences = [remembered(1), remembered(2)];
    host.pass(&mut sequences, PROMPT, true);
    let lens = [share(&[1.0, 3.0], 0), share(&[1.0, 3.0], 1)];
    for report in host.runtime.open_sequences() {
        assert_eq!(report.kept, lens.map(|len| vec![len; HEADS]));
    }
    let kept = lens.map(|len| {
        let mut others: Vec<usize> = (0..PROMPT - 1).collect();
        others.sort_by(|&a, &b| worth(b).total_cmp(&worth(a)).then(a.cmp(&b)));
        others.truncate(len - 1);
        others.push(PROMPT - 1);
        others
    });
    for next in PROMPT..PROMPT + 20 {
        step(&mut host, &mut sequences, |_, layer| {
            let mut held = kept[layer].clone();
            held.extend(PROMPT..=next);
            held
        });
    }
}

#[test]
fn a_full_head_makes_place_before_the_next_token() {
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut host = Host::new(config(false), DType::F32, seed);
    let mut sequences = [remembered(1)];
    host.pass(&mut sequences, 13, true);
    let mut held: Vec<usize> = (0..13).collect();
    let mut cuts = 0;
    for next in 13..150 {
        if held.len() == BUDGET {
            held = cut(&held);
            cuts += 1;
        }
        held.push(next);
        step(&mut host, &mut sequences, |_, _| held.clone());
        let reports = host.runtime.open_sequences();
        assert_eq!(reports[0].kept, vec![vec![held.len(); HEADS]; LAYERS]);
    }
    assert!(cuts > 10, "{cuts}");
}

#[test]
fn a_device_refuses_both_by_name() {
    for (cascades, what) in [(true, "as later ones report"), (false, "a head is full")] {
        let runtime = Runtime::on_device(config(cascades), common::gpu::EmulatedGpu::new());
        let said = runtime.open_pool(&common::host::spec(DType::F32));
        let said = said.expect_err("is refused").to_string();
        for part in ["later", what, "on the CPU"] {
            assert!(said.contains(part), "{part:?} in {said:?}");
        }
    }
}
