//! The same tokens as the authors' class; `testdata/` says how that was run.
use std::collections::BTreeMap;

use kv_core::{
    Budget, Demand, Geometry, KeepPlan, LayerView, Pins, Policy, PolicyConfig, Position, SeqId,
    checker::Replay,
};
use kv_policy_la_cache::{LaCache, LaCacheConfig};
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    runs: Vec<Golden>,
}

#[derive(Deserialize)]
struct Golden {
    layers: usize,
    capacity: usize,
    start: usize,
    span: usize,
    overlap: usize,
    prompt: usize,
    shots: Vec<Shot>,
}

#[derive(Deserialize)]
struct Shot {
    seen: usize,
    kept: BTreeMap<usize, Vec<(u32, u32)>>,
}

const SEQ: SeqId = SeqId(0);

/// One sequence of one golden run.
struct Run {
    policy: LaCache,
    replay: Replay,
    /// Their capacity and the token that comes next.
    budget: usize,
}

impl Run {
    fn new(golden: &Golden, pins: &Pins) -> Self {
        let geometry = Geometry {
            layers: golden.layers,
            kv_heads: 1,
            group: 1,
            head_dim: 8,
            block: 8,
            element_bytes: 4,
            max_positions: 4096,
        };
        let config = LaCacheConfig {
            start: golden.start,
            span: Some(golden.span),
            overlap: golden.overlap,
        };
        let (budget, prompt) = (golden.capacity + 1, golden.prompt);
        let policy = config
            .bind(&geometry, Budget::Tokens(budget))
            .expect("a good configuration");
        let demand = Demand::new(&policy, &policy.needs(), &geometry, prompt, budget);
        // Just the pages that it is promised, and never more.
        let pinned = demand.pinned(&geometry, prompt, pins);
        let mut replay = Replay::new(geometry, demand.pages(&geometry, prompt, pinned));
        replay.open(SEQ, prompt, demand, pins).expect("room");
        for layer in 0..golden.layers {
            let view = LayerView::prefill(layer, 1, prompt, budget);
            let mut keep = KeepPlan::all(1);
            policy.plan(&view, &mut keep);
            let kept = keep.resolve(&view, pins);
            replay
                .write_prompt(SEQ, layer, prompt, &kept)
                .expect("room");
        }
        Self {
            policy,
            replay,
            budget,
        }
    }

    /// Makes place for the next token where there is none.
    fn make_place(&mut self, layer: usize, next: usize) {
        let ledger = self.replay.ledger();
        if ledger.is_full(SEQ, layer, Position::new(next)) == Ok(true) {
            let kept = ledger.plan_again(SEQ, layer, &self.policy, self.budget, None);
            let kept = kept.expect("the sequence is open");
            self.replay.shrink(SEQ, layer, &kept).expect("open");
        }
    }

    fn held(&self, layer: usize) -> Vec<u32> {
        let table = self.replay.ledger().head(SEQ, layer, 0).expect("open");
        let mut held: Vec<u32> = table.positions().iter().map(|p| p.0).collect();
        held.sort_unstable();
        held
    }
}

#[test]
fn the_same_tokens_stay() {
    let file: File =
        serde_json::from_str(include_str!("../testdata/ladders.json")).expect("a file of runs");
    assert_eq!(file.runs.len(), 12);
    for golden in &file.runs {
        let mut run = Run::new(golden, &Pins::default());
        let last = golden.shots.last().expect("shots").seen;
        let mut shots = golden.shots.iter().peekable();
        for next in golden.prompt..=last {
            for layer in 0..golden.layers {
                run.make_place(layer, next);
            }
            if let Some(shot) = shots.next_if(|shot| shot.seen == next) {
                for (&layer, kept) in &shot.kept {
                    let kept: Vec<u32> = kept.iter().flat_map(|&(a, b)| a..b).collect();
                    let case = (golden.layers, golden.capacity, golden.span, golden.overlap);
                    assert_eq!(
                        run.held(layer),
                        kept,
                        "{case:?}, {next} seen, layer {layer}"
                    );
                }
            }
            for layer in 0..golden.layers {
                run.replay
                    .append(SEQ, layer, Position::new(next))
                    .expect("promised");
            }
        }
        assert!(shots.next().is_none(), "every shot is looked at");
        assert_eq!(run.replay.check(), Ok(()));
    }
}

#[test]
fn pins_come_on_top_and_the_ladder_goes_on() {
    let golden = Golden {
        layers: 4,
        capacity: 24,
        start: 2,
        span: 2,
        overlap: 0,
        prompt: 60,
        shots: Vec::new(),
    };
    let pins = Pins::new([5..9, 70..73]);
    let mut run = Run::new(&golden, &pins);
    for next in 60..400 {
        for layer in 0..4 {
            run.make_place(layer, next);
            run.replay
                .append(SEQ, layer, Position::new(next))
                .expect("promised");
            let held = run.held(layer);
            let pinned = held.iter().filter(|&&p| pins.contains(Position(p))).count();
            assert_eq!(pinned, pins.count_below(next + 1), "{held:?}");
            assert!(held.len() - pinned <= run.budget, "{held:?}");
        }
    }
    assert_eq!(run.replay.check(), Ok(()));
}
