//! What decode steps see, entered into the slots.
use kv_core::{
    Cadence, Demand, Geometry, Growth, Kept, Ledger, Needs, Observation, Pins, Position, Protected,
    Reduction, Room, SeqId, Slot,
};

const SEQ: SeqId = SeqId(0);

/// Two heads that hold the positions 0, 1, 2 and 1, 3, with these scores.
fn ledger() -> Ledger {
    ledger_of(
        vec![vec![0, 1, 2], vec![1, 3]],
        Some(vec![vec![1.0, 2.0, 3.0], vec![4.0, 5.0]]),
    )
}

/// Two heads that hold these positions of a prompt of four.
fn ledger_of(slots: Vec<Vec<u32>>, scores: Option<Vec<Vec<f32>>>) -> Ledger {
    let geometry = Geometry {
        layers: 1,
        kv_heads: 2,
        group: 1,
        head_dim: 8,
        block: 8,
        element_bytes: 4,
        max_positions: 64,
    };
    let mut ledger = Ledger::new(geometry, 16);
    let demand = Demand {
        rooms: vec![Room::Together(8)],
        together: None,
        appends: true,
        prompt: 4,
    };
    ledger
        .open(SEQ, 4, demand, &Pins::default())
        .expect("room for a sequence");
    let kept = Kept {
        slots,
        growth: vec![Growth::Append; 2],
        scores,
    };
    ledger.write_prompt(SEQ, 0, 4, &kept).expect("room");
    ledger
}

/// The scores after a step that saw these rows.
fn noted(observation: Observation, shared: bool) -> [Vec<f32>; 2] {
    let needs = Needs {
        observation,
        reduction: Reduction {
            shared,
            ..Reduction::MEAN
        },
        ..Needs::NONE
    };
    let mut ledger = ledger();
    ledger
        .note_rows(SEQ, 0, &needs, &[0.5, 0.25, 0.25, 0.75, 0.25])
        .expect("open");
    [0, 1].map(|head| ledger.head(SEQ, 0, head).expect("open").scores().to_vec())
}

#[test]
fn rows_are_added_and_the_latest_takes_their_place() {
    assert_eq!(
        noted(Observation::Rows, false),
        [vec![1.5, 2.25, 3.25], vec![4.75, 5.25]]
    );
    assert_eq!(
        noted(Observation::Latest, false),
        [vec![0.5, 0.25, 0.25], vec![0.75, 0.25]]
    );
}

/// Heads need not hold the same tokens: pins, and methods over the one that shares, make them differ.
#[test]
fn heads_share_the_score_of_a_token_and_not_of_a_slot() {
    assert_eq!(
        noted(Observation::Latest, true),
        [vec![0.5, 0.5, 0.25], vec![0.5, 0.25]]
    );
}

/// A step sees nothing of the one before.
#[test]
fn every_step_has_means_of_its_own() {
    let needs = Needs {
        observation: Observation::Latest,
        reduction: Reduction {
            shared: true,
            ..Reduction::MEAN
        },
        ..Needs::NONE
    };
    for (slots, rows, wanted) in [
        (
            vec![vec![0, 1], vec![1, 3]],
            [0.5, 0.25, 0.75, 0.25],
            [0.5, 0.5],
        ),
        (
            vec![vec![0, 1], vec![0, 1]],
            [0.5, 0.25, 1.0, 0.75],
            [0.75, 0.5],
        ),
    ] {
        let mut ledger = ledger_of(slots, None);
        for step in 0..3 {
            ledger.note_rows(SEQ, 0, &needs, &rows).expect("open");
            let found = ledger.head(SEQ, 0, 0).expect("open").scores();
            assert_eq!(found, wanted, "step {step}");
        }
    }
}

#[test]
fn heads_that_hold_the_same_tokens_share_every_score() {
    let needs = Needs {
        observation: Observation::Rows,
        reduction: Reduction {
            shared: true,
            ..Reduction::MEAN
        },
        ..Needs::NONE
    };
    let same = vec![vec![0, 2, 3]; 2];
    let mut ledger = ledger_of(same, Some(vec![vec![1.0, 2.0, 3.0], vec![4.0, 5.0, 6.0]]));
    let rows = [0.5, 0.25, 0.0, 1.5, 0.75, f32::INFINITY];
    ledger.note_rows(SEQ, 0, &needs, &rows).expect("open");
    let scores = [0, 1].map(|head| ledger.head(SEQ, 0, head).expect("open").scores().to_vec());
    assert_eq!(
        scores,
        [[2.0, 2.5, f32::INFINITY], [5.0, 5.5, f32::INFINITY]].map(Vec::from)
    );
}

#[test]
fn a_head_has_scores_from_the_first_one_on() {
    let zeros = Some(vec![vec![0.0; 3], vec![0.0; 2]]);
    for none in [None, zeros] {
        let mut ledger = ledger_of(vec![vec![0, 1, 2], vec![1, 3]], none);
        let head = |ledger: &Ledger| {
            let table = ledger.head(SEQ, 0, 0).expect("open");
            let of = |slot| table.score(Slot(slot));
            (table.scores().len(), [0, 1, 2].map(of))
        };
        assert_eq!(head(&ledger), (0, [0.0; 3]));
        ledger.scores_mut(SEQ, 0, 0).expect("open")[1] = 0.5;
        assert_eq!(head(&ledger), (3, [0.0, 0.5, 0.0]));
        ledger.reserve(SEQ, 5).expect("room");
        ledger.append(SEQ, 0, Position(4)).expect("reserved");
        let tables = ledger.heads(SEQ, 0).expect("open");
        let lens = [0, 1].map(|head: usize| (tables[head].len(), tables[head].scores().len()));
        assert_eq!(lens, [(4, 4), (3, 0)]);
    }
}

/// Only what somebody reads later stays.
#[test]
fn scores_that_nobody_reads_are_forgotten() {
    let left = |needs: Needs, growth| {
        let mut kept = Kept {
            slots: vec![vec![0], vec![0]],
            growth: vec![Growth::Append, growth],
            scores: Some(vec![vec![1.0], vec![2.0]]),
        };
        kept.forget_idle_scores(&needs);
        kept.scores.is_some()
    };
    let once = Needs {
        observation: Observation::Window { queries: 4 },
        ..Needs::NONE
    };
    let (limit, recent) = (8, 2);
    assert!(!left(once, Growth::Append));
    assert!(!left(once, Growth::Ring { sinks: 1, recent }));
    assert!(left(once, Growth::EvictLowest { limit, recent }));
    let protect = Growth::Protect {
        classes: Protected::default(),
        limit,
        recent,
        most: 9,
    };
    assert!(left(once, protect));
    for observation in [Observation::Rows, Observation::Latest] {
        assert!(left(
            Needs {
                observation,
                ..once
            },
            Growth::Append
        ));
    }
    for cadence in [Cadence::Cascade, Cadence::Full] {
        assert!(left(Needs { cadence, ..once }, Growth::Append));
    }
}
