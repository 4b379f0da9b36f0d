//! The text of what crosses.
use kv_core::{
    Cadence, Choice, Observation, Pool, Positions, Protected, Reads, Reduce, Reduction,
    ReductionOrder,
};
use serde_json::json;

use super::*;

const GEOMETRY: Geometry = Geometry {
    layers: 1,
    kv_heads: 2,
    group: 3,
    head_dim: 4,
    block: 5,
    element_bytes: 6,
    max_positions: 7,
};

fn questions() -> Vec<Question> {
    let amounts = [
        Budget::Full,
        Budget::Tokens(1),
        Budget::Ratio(0.1 + 0.2),
        Budget::Bytes(2),
    ];
    let bind = |budget: Budget| Question::Bind {
        fields: json!({"a": 1}),
        geometry: GEOMETRY,
        budget: budget.into(),
    };
    let turns = [
        Turns::Same,
        Turns::By {
            pairs: 1,
            positions: 2,
            is_adjacent: true,
        },
    ];
    let layer = |phase, lens, rotation| Layer {
        layer: 1,
        phase,
        heads: 2,
        prompt: 3,
        budget: usize::MAX,
        lens,
        rows: Some(Rows {
            head_dim: 4,
            group: 5,
            scale: 0.1_f32.to_string(),
            softcap: Some(30_f32.to_string()),
            rotation,
        }),
    };
    let hello = Question::Hello {
        protocol: 1,
        abi: 2,
    };
    let rooms = Question::Rooms {
        prompt: 1,
        budget: 2,
    };
    let mut all = vec![hello, rooms, Question::Observed { lens: vec![1, 2] }];
    all.extend(amounts.map(bind));
    all.extend(turns.map(|turn| Question::Plan(layer(Phase::Prefill, None, Some(turn)))));
    let chunks = layer(Phase::Prefill, Some(vec![2, 1]), Some(Turns::Same));
    all.push(Question::Plan(chunks));
    all.push(Question::Score(layer(
        Phase::Decode,
        Some(vec![1, 2]),
        None,
    )));
    all
}

fn needs() -> Vec<Needs> {
    let observations = [
        Observation::None,
        Observation::Window { queries: 1 },
        Observation::Accumulated,
        Observation::Rows,
        Observation::Latest,
        Observation::KeyNorms,
    ];
    let cadences = [Cadence::LayerPrefill, Cadence::Cascade, Cadence::Full];
    let pools = [Pool::None, Pool::Average(1), Pool::Max(2)];
    let reduction = |pool| Reduction {
        queries: Reduce::Sum,
        group: Reduce::Max,
        pool,
        order: ReductionOrder::PoolThenGroup,
        shared: true,
    };
    let observing = observations.map(|observation| Needs {
        observation,
        ..Needs::NONE
    });
    let asked = cadences.map(|cadence| Needs {
        cadence,
        positions: Positions::CacheRelative,
        reads: Reads {
            queries: true,
            keys: true,
            values: true,
            rotation: true,
            output_norms: true,
            classes: true,
        },
        ..Needs::NONE
    });
    let pooled = pools.map(|pool| Needs {
        reduction: reduction(pool),
        ..Needs::NONE
    });
    [&observing[..], &asked, &pooled].concat()
}

fn refusals() -> [Refusal; 5] {
    let text = |text: &str| text.to_owned();
    [
        Refusal::Malformed(text("a")),
        Refusal::OutOfRange {
            field: text("a"),
            value: text("b"),
            allowed: text("c"),
        },
        Refusal::Profile {
            field: text("a"),
            file: text("b"),
            place: text("c"),
            found: text("d"),
            expected: text("e"),
        },
        Refusal::Budget {
            value: text("a"),
            allowed: text("b"),
        },
        Refusal::Unsupported {
            need: text("a"),
            offered: text("b"),
        },
    ]
}

fn answers() -> Vec<Answer> {
    let hello = Answer::Hello(Hello {
        protocol: 1,
        abi: 2,
        name: "a".into(),
        summary: "b".into(),
        fields: vec![Field {
            name: "c".into(),
            kind: "d".into(),
            is_optional: true,
            default: json!(1),
            doc: "e".into(),
            choices: vec![Choice {
                value: json!("f"),
                doc: "g".into(),
            }],
            least: Some(1.into()),
            most: None,
        }],
    });
    let plan = Answer::Plan {
        verbs: vec![
            Verb::Window {
                head: 1,
                sinks: 2,
                recent: 3,
            },
            Verb::Top {
                head: 1,
                count: 2,
                recent: 3,
            },
            Verb::TopBy {
                head: 1,
                scores: Vec::new(),
                count: 2,
                recent: 3,
            },
            Verb::TopAcrossHeads {
                total: 1,
                floor_per_head: 2,
                recent: 3,
            },
            Verb::Slots {
                head: 1,
                slots: vec![2, 3],
            },
        ],
        growth: vec![
            Growth::Append,
            Growth::Ring {
                sinks: 1,
                recent: 2,
            },
            Growth::EvictLowest {
                limit: 1,
                recent: 2,
            },
            Growth::Protect {
                classes: Protected {
                    special: true,
                    punctuation: false,
                },
                limit: 1,
                recent: 2,
                most: 3,
            },
        ],
        lens: vec![1],
    };
    let rooms = vec![Room::Each(1), Room::Heads(vec![1, 2]), Room::Together(3)];
    let bound = |needs| Answer::Bound {
        needs,
        notice: Some("a".into()),
        ranks: true,
    };
    let scores = Answer::Scores { lens: vec![1, 2] };
    let panicked = Answer::Panicked("a".into());
    let mut all = vec![
        hello,
        plan,
        Answer::Rooms(rooms),
        scores,
        Answer::Read,
        panicked,
    ];
    all.extend(refusals().map(Answer::Refused));
    all.extend(needs().into_iter().map(bound));
    all
}

/// Whoever changes a type that crosses meets this test: programs that were built before would be misunderstood.
#[test]
fn what_crosses_is_written_as_this_abi_says() {
    let written = json!({ "abi": ABI, "questions": questions(), "answers": answers() });
    let kept: Value = serde_json::from_str(include_str!("../../testdata/wire.json")).expect("JSON");
    let text = serde_json::to_string_pretty(&written).expect("JSON");
    assert!(
        written == kept,
        "what crosses has changed: raise `ABI`, and write this to testdata/wire.json\n{text}"
    );
}

#[test]
fn what_crosses_is_read_as_it_was_written() {
    for question in questions() {
        let text = serde_json::to_string(&question).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Question>(&text).expect(&text),
            question
        );
    }
    for answer in answers() {
        let text = serde_json::to_string(&answer).expect("JSON");
        assert_eq!(serde_json::from_str::<Answer>(&text).expect(&text), answer);
    }
}

#[test]
fn a_share_keeps_its_last_bit() {
    for share in [0.1 + 0.2, f64::MIN_POSITIVE, 1.0_f64.next_down(), 1.0 / 3.0] {
        let text = serde_json::to_string(&Amount::from(Budget::Ratio(share))).expect("JSON");
        let amount: Amount = serde_json::from_str(&text).expect("JSON");
        assert_eq!(amount.budget(), Some(Budget::Ratio(share)));
    }
    assert_eq!(Amount::Ratio("half".into()).budget(), None);
}
