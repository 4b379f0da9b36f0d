//! Heads that protect classes of tokens while they grow.
use kv_core::{
    Demand, Geometry, Growth, KeepPlan, LayerView, Ledger, Observation, Pins, Position, Protected,
    Room, SeqId, TokenClass,
};

const SEQ: SeqId = SeqId(1);
const GEOMETRY: Geometry = Geometry {
    layers: 1,
    kv_heads: 1,
    group: 1,
    head_dim: 8,
    block: 4,
    element_bytes: 4,
    max_positions: 64,
};

/// `S` is special, `,` is punctuation, everything else is plain.
fn classes(text: &str) -> Vec<TokenClass> {
    let class = |letter| match letter {
        'S' => TokenClass::Special,
        ',' => TokenClass::Punctuation,
        _ => TokenClass::Plain,
    };
    text.chars().map(class).collect()
}

/// A head that has read a prompt with these scores, growing so.
fn opened(prompt: &str, scores: &[f32], growth: Growth, pins: &Pins) -> Ledger {
    let tokens = scores.len();
    let mut ledger = Ledger::new(GEOMETRY, 16);
    let room = match growth {
        Growth::Protect { most, .. } => most,
        _ => usize::MAX,
    };
    let demand = Demand {
        rooms: vec![Room::Each(room)],
        together: None,
        appends: false,
        prompt: tokens,
    };
    ledger.open(SEQ, tokens, demand, pins).expect("room");
    ledger
        .classify(SEQ, Position(0), &classes(prompt))
        .expect("open");
    let view = LayerView::prefill(0, 1, tokens, room);
    let rows = [scores];
    let view = view.with_scores(Observation::Rows, &rows);
    let mut plan = KeepPlan::all(1);
    plan.grow(0, growth);
    let kept = plan.resolve(&view, pins);
    ledger.write_prompt(SEQ, 0, tokens, &kept).expect("room");
    ledger
}

/// Decodes a text, and returns the positions held after each token.
fn decode(ledger: &mut Ledger, text: &str) -> Vec<Vec<u32>> {
    let mut history = Vec::new();
    for class in classes(text) {
        let position = Position::new(ledger.sequence(SEQ).expect("open").seen());
        ledger.classify(SEQ, position, &[class]).expect("open");
        ledger.reserve(SEQ, position.index() + 1).expect("room");
        ledger.append(SEQ, 0, position).expect("promised");
        let table = ledger.head(SEQ, 0, 0).expect("open");
        let mut held: Vec<u32> = table.positions().iter().map(|p| p.0).collect();
        held.sort_unstable();
        history.push(held);
    }
    history
}

const fn growth(punctuation: bool, limit: usize, recent: usize, most: usize) -> Growth {
    Growth::Protect {
        classes: Protected {
            special: true,
            punctuation,
        },
        limit,
        recent,
        most,
    }
}

#[test]
fn special_tokens_stay_and_plain_ones_pass() {
    let mut ledger = opened(
        "S",
        &[0.0],
        growth(false, 1, 0, usize::MAX),
        &Pins::default(),
    );
    let history = decode(&mut ledger, "ab,Scd");
    assert_eq!(
        history,
        [
            vec![0, 1],
            vec![0, 2],
            vec![0, 3],
            // A protected token drives nobody out.
            vec![0, 3, 4],
            vec![0, 4, 5],
            vec![0, 4, 6]
        ]
    );
}

#[test]
fn a_protected_token_stays_whatever_its_score() {
    let scores = [0.1, 5.0, 3.0, 4.0];
    let mut ledger = opened("Sab,", &scores, growth(true, 2, 0, 10), &Pins::default());
    let history = decode(&mut ledger, "cS");
    // 2 is the lowest of 1 and 2; then a special token comes on top.
    assert_eq!(history, [vec![0, 1, 3, 4], vec![0, 1, 3, 4, 5]]);
    // Where punctuation is not protected, it counts.
    let mut ledger = opened("Sab,", &scores, growth(false, 3, 0, 10), &Pins::default());
    assert_eq!(decode(&mut ledger, "c"), [[0, 1, 3, 4]]);
}

#[test]
fn a_head_is_never_longer_than_its_most() {
    let mut ledger = opened("SaS", &[0.0; 3], growth(false, 9, 1, 4), &Pins::default());
    let history = decode(&mut ledger, "SSSab");
    assert_eq!(
        history,
        [
            // Three are protected, the newest of them the last that is.
            vec![0, 1, 2, 3],
            // The next two are as plain ones: each takes the place of the one before.
            vec![0, 2, 3, 4],
            vec![0, 2, 3, 5],
            vec![0, 2, 3, 6],
            vec![0, 2, 3, 7],
        ]
    );
    let most_of_one = growth(true, 9, 1, 1);
    let mut ledger = opened("S", &[0.0], most_of_one, &Pins::default());
    assert_eq!(decode(&mut ledger, "S,a"), [[1], [2], [3]]);
}

#[test]
fn in_a_full_head_a_protected_newcomer_drives_out_another() {
    let scores = [0.0, 3.0, 1.0, 2.0];
    let mut ledger = opened("Sabc", &scores, growth(false, 9, 1, 4), &Pins::default());
    let history = decode(&mut ledger, "Sd");
    // 2 has the lowest score outside the window, then 3, though 4 has none at all: it is protected.
    assert_eq!(history, [vec![0, 1, 3, 4], vec![0, 1, 4, 5]]);
}

#[test]
fn the_first_tokens_of_a_prompt_are_the_protected_ones() {
    let growth = growth(false, 9, 1, 4);
    let ledger = opened("aSbS", &[0.0; 4], growth, &Pins::default());
    let table = ledger.head(SEQ, 0, 0).expect("open");
    let stays = |slot| table.is_pinned(kv_core::Slot(slot));
    assert_eq!([0, 1, 2, 3].map(stays), [false, true, false, true]);
    let ledger = opened("SSSS", &[0.0; 4], growth, &Pins::default());
    let table = ledger.head(SEQ, 0, 0).expect("open");
    let stays = |slot| table.is_pinned(kv_core::Slot(slot));
    assert_eq!([0, 1, 2, 3].map(stays), [true, true, true, false]);
}

#[test]
fn pins_come_on_top_of_what_is_protected() {
    let pins = Pins::new([0..2, 5..6]);
    let mut ledger = opened("SaSb", &[0.0; 4], growth(false, 1, 0, 2), &pins);
    // Beside the pins 0 and 1, the head holds two tokens, one of them protected.
    assert_eq!(
        decode(&mut ledger, "SSa"),
        [vec![0, 1, 2, 4], vec![0, 1, 2, 4, 5], vec![0, 1, 2, 5, 6]]
    );
}

#[test]
fn a_token_of_which_nothing_was_said_is_plain() {
    let unbounded = growth(true, 1, 0, usize::MAX);
    let mut ledger = opened("S", &[0.0; 2], unbounded, &Pins::default());
    for position in 2..5 {
        ledger.reserve(SEQ, position + 1).expect("room");
        ledger
            .append(SEQ, 0, Position::new(position))
            .expect("room");
    }
    let held = ledger.head(SEQ, 0, 0).expect("open").positions();
    assert_eq!(held, [Position(0), Position(4)]);
}
