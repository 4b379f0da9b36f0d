//! What decode steps see, entered into the slots.
use kv_core::{
    Demand, Geometry, Growth, Kept, Ledger, Needs, Observation, Pins, Reduction, Room, SeqId,
};

const SEQ: SeqId = SeqId(0);

/// Two heads that hold the positions 0, 1, 2 and 1, 3, with these scores.
fn ledger() -> Ledger {
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
        slots: vec![vec![0, 1, 2], vec![1, 3]],
        growth: vec![Growth::Append; 2],
        scores: Some(vec![vec![1.0, 2.0, 3.0], vec![4.0, 5.0]]),
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
