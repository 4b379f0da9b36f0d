//! A prompt of ten tokens and five heads, worked out by hand: each head ends in another strategy.
//!
//! Token 0 is special, token 4 is punctuation. A fifth of the prompt, two tokens, are heavy hitters, and two are the window.
//! What each strategy recovers of a head, as a mean over the ten queries:
//!
//! | head attends to | special | punctuation | heavy | local |
//! |---|---|---|---|---|
//! | the first token | **.91** | | | |
//! | tokens 0 and 4 | .55 | **.92** | | |
//! | tokens 0, 2 and 5 | .38 | .39 | **.94** | |
//! | itself and its neighbour | .23 | .32 | .50 | **1** |
//! | all alike | .29 | .38 | .71 | .87 |
use kv_core::{
    Budget, Demand, Kept, Ledger, Pins, Policy, Position, SeqId, TokenClass, conformance, granted,
};
use kv_policy_fast_gen::{FastGenConfig, Strategy};

mod support;
use support::Prompt;

const TEXT: &str = "Sabc,defgh";
const SEQ: SeqId = SeqId(3);
const NO_BUDGET: Budget = Budget::Full;

const fn a_fifth() -> FastGenConfig {
    FastGenConfig {
        recovery: 0.9,
        heavy_share: 0.2,
        local_share: 0.2,
    }
}

/// `S` is special, `,` is punctuation, everything else is plain.
fn classes(text: &str) -> Vec<TokenClass> {
    let class = |letter| match letter {
        'S' => TokenClass::Special,
        ',' => TokenClass::Punctuation,
        _ => TokenClass::Plain,
    };
    text.chars().map(class).collect()
}

/// Rows of one head: query `i` gives `share(i)` as listed, and the rest to itself.
fn head(share: impl Fn(usize) -> Vec<(usize, f32)>) -> Vec<Vec<f32>> {
    let row = |query: usize| {
        let mut row = vec![0.0; query + 1];
        for (token, weight) in share(query) {
            row[token] += weight;
        }
        row[query] += 1.0 - row.iter().sum::<f32>();
        row
    };
    (0..TEXT.len()).map(row).collect()
}

fn prompt() -> Prompt {
    let first = head(|_| vec![(0, 0.9)]);
    let first_and_comma = head(|query| match query {
        0..4 => vec![(0, 0.9)],
        _ => vec![(0, 0.3), (4, 0.6)],
    });
    let heavy = head(|query| match query {
        0..2 => vec![(0, 0.9)],
        2..5 => vec![(0, 0.3), (2, 0.6)],
        _ => vec![(0, 0.2), (2, 0.4), (5, 0.3)],
    });
    let neighbours = head(|query| match query {
        0 => Vec::new(),
        1 => vec![(0, 0.5)],
        _ => vec![(0, 0.1), (query - 1, 0.4)],
    });
    let even = head(|query| {
        let weight = 1.0 / (query + 1) as f32;
        (0..query).map(|token| (token, weight)).collect()
    });
    Prompt {
        attention: vec![first, first_and_comma, heavy, neighbours, even],
        group: 1,
        classes: classes(TEXT),
    }
}

#[test]
fn every_head_gets_the_leanest_strategy_that_is_enough() {
    let (strategies, kept) = prompt().read(a_fifth(), NO_BUDGET);
    assert_eq!(strategies, Strategy::ALL);
    let all: Vec<u32> = (0..10).collect();
    assert_eq!(
        kept.slots,
        [
            vec![0, 9],
            vec![0, 4, 9],
            // Tokens 2 and 5 have drawn 3.9 and 1.6.
            vec![0, 2, 4, 5, 9],
            // Tokens 1 to 8 have all drawn 0.9; the earlier ones count as heavier.
            vec![0, 1, 2, 4, 8, 9],
            all
        ]
    );
}

#[test]
fn more_is_recovered_by_more() {
    let strategies = |recovery| {
        let config = FastGenConfig {
            recovery,
            ..a_fifth()
        };
        prompt().read(config, NO_BUDGET).0
    };
    use Strategy::{Full, Heavy, Local, Punctuation, Special};
    // On both sides of .91, .92, .94 and .87.
    assert_eq!(
        strategies(0.905),
        [Special, Punctuation, Heavy, Local, Full]
    );
    assert_eq!(
        strategies(0.915),
        [Punctuation, Punctuation, Heavy, Local, Full]
    );
    // Two heavy hitters bring the first two heads .02 each.
    assert_eq!(strategies(0.925)[..3], [Heavy, Heavy, Heavy]);
    assert_eq!(strategies(0.935)[2..], [Heavy, Local, Full]);
    assert_eq!(strategies(0.945)[2], Local);
    assert_eq!(strategies(0.865)[4], Local);
    assert_eq!(strategies(0.875)[4], Full);
    assert_eq!(strategies(0.0), [Special; 5]);
}

#[test]
fn a_group_is_judged_by_its_mean() {
    // The first two heads as one group: (.91 + .55) / 2, (.92 + .92) / 2 and (.94 + .94) / 2.
    let Prompt {
        mut attention,
        classes,
        ..
    } = prompt();
    attention.truncate(2);
    let pair = Prompt {
        attention,
        group: 2,
        classes,
    };
    let strategies = |recovery| {
        let config = FastGenConfig {
            recovery,
            ..a_fifth()
        };
        pair.read(config, NO_BUDGET).0
    };
    assert_eq!(strategies(0.72), [Strategy::Special]);
    assert_eq!(strategies(0.74), [Strategy::Punctuation]);
    assert_eq!(strategies(0.915), [Strategy::Punctuation]);
    assert_eq!(strategies(0.925), [Strategy::Heavy]);
    assert_eq!(strategies(0.945), [Strategy::Local]);
}

/// Token 8 has drawn the most, but the window has it anyway: the heavy hitters beside the window are 1 and 2. With 8 as one of
/// them a mere .94 would be recovered.
#[test]
fn the_window_holds_no_heavy_hitters() {
    let late = head(|query| match query {
        0 => Vec::new(),
        1 => vec![(0, 0.8)],
        2..8 => vec![(0, 0.8), (1, 0.1), (2, 0.1)],
        _ => vec![(1, 0.2), (2, 0.1), (8, 0.7)],
    });
    let prompt = Prompt {
        attention: vec![late],
        group: 1,
        classes: classes(TEXT),
    };
    let config = FastGenConfig {
        recovery: 0.95,
        ..a_fifth()
    };
    let (strategies, kept) = prompt.read(config, NO_BUDGET);
    assert_eq!(strategies, [Strategy::Local]);
    assert_eq!(kept.slots, [[0, 1, 2, 4, 8, 9]]);
}

#[test]
fn a_budget_is_shared_and_its_heads_are_cut() {
    // Twenty tokens for heads that ask for 2, 3, 5, 6 and 10: four each, and what two heads leave makes five.
    let (strategies, kept) = prompt().read(a_fifth(), Budget::Tokens(4));
    assert_eq!(strategies, Strategy::ALL);
    assert_eq!(
        kept.slots,
        [
            vec![0, 9],
            vec![0, 4, 9],
            vec![0, 2, 4, 5, 9],
            // Two heavy hitters and a window of two leave one slot: the special token's.
            vec![0, 1, 2, 8, 9],
            vec![0, 1, 2, 8, 9]
        ]
    );
    // One token each is the newest.
    let (_, kept) = prompt().read(a_fifth(), Budget::Tokens(1));
    assert_eq!(kept.slots, [[9]; 5]);
    // A prompt that fits is kept whole.
    let (strategies, kept) = prompt().read(a_fifth(), Budget::Tokens(10));
    assert_eq!(strategies, [Strategy::Full; 5]);
    assert!(kept.slots.iter().all(|slots| slots.len() == 10));
}

/// A ledger that holds the prompt, promised what the policy's room says.
fn opened(budget: Budget) -> (Ledger, Kept) {
    let prompt = prompt();
    let geometry = conformance::geometry(prompt.heads());
    let policy = prompt.policy(a_fifth(), budget);
    let (needs, tokens) = (policy.needs(), prompt.tokens());
    let given = granted(&policy, &needs, &geometry, budget, tokens);
    let demand = Demand::new(&policy, &needs, &geometry, tokens, given);
    let mut ledger = Ledger::new(geometry, 100);
    ledger
        .open(SEQ, tokens, demand, &Pins::default())
        .expect("room");
    ledger
        .classify(SEQ, Position(0), &prompt.classes)
        .expect("open");
    let (_, kept) = prompt.read(a_fifth(), budget);
    ledger.write_prompt(SEQ, 0, tokens, &kept).expect("room");
    (ledger, kept)
}

/// Decodes a text and returns the positions held in each head.
fn decode(ledger: &mut Ledger, text: &str) -> Vec<Vec<u32>> {
    for class in classes(text) {
        let position = Position::new(ledger.sequence(SEQ).expect("open").seen());
        ledger.reserve(SEQ, position.index() + 1).expect("room");
        ledger.classify(SEQ, position, &[class]).expect("open");
        ledger.append(SEQ, 0, position).expect("promised");
    }
    let held = |head| {
        let table = ledger.head(SEQ, 0, head).expect("open");
        let mut held: Vec<u32> = table.positions().iter().map(|p| p.0).collect();
        held.sort_unstable();
        held
    };
    (0..5).map(held).collect()
}

#[test]
fn each_head_goes_on_by_its_strategy() {
    let (mut ledger, _) = opened(NO_BUDGET);
    // Tokens 10 to 14. Nothing is observed, so that what is new has drawn nothing.
    let held = decode(&mut ledger, "iSj,k");
    assert_eq!(
        held,
        [
            // The plain tokens 9, 10, 12 and the comma 13 have each gone for the next.
            vec![0, 11, 14],
            vec![0, 4, 11, 13, 14],
            // Two heavy hitters and the newest.
            vec![0, 2, 4, 5, 11, 13, 14],
            // Two heavy hitters, of which 8 and 9 compete with 1 and 2 once they leave the window; 9 has drawn only .5, but 10
            // and 12 nothing.
            vec![0, 1, 2, 4, 9, 11, 13, 14],
            (0..15).collect::<Vec<u32>>()
        ]
    );
}

#[test]
fn what_draws_attention_becomes_heavy() {
    let (mut ledger, _) = opened(NO_BUDGET);
    decode(&mut ledger, "i");
    // In the third head token 10 draws more than 5 has.
    let table = ledger.head(SEQ, 0, 2).expect("open");
    let slot = table.positions().iter().position(|p| p.0 == 10);
    ledger.scores_mut(SEQ, 0, 2).expect("open")[slot.expect("held")] += 2.0;
    assert_eq!(decode(&mut ledger, "j")[2], [0, 2, 4, 10, 11]);
}

#[test]
fn under_a_budget_no_head_outgrows_its_room() {
    let (mut ledger, kept) = opened(Budget::Tokens(4));
    let rooms: Vec<usize> = kept.slots.iter().map(Vec::len).collect();
    for text in ["S,S,SSS", "abcdefgh", ",,,,S", "ijklmnop"] {
        let held = decode(&mut ledger, text);
        assert!(
            held.iter()
                .zip(&rooms)
                .all(|(held, &room)| held.len() <= room),
            "{held:?}"
        );
        let newest = Position::new(ledger.sequence(SEQ).expect("open").seen() - 1);
        // The first tokens stay where there is more than one slot.
        assert!(
            held.iter()
                .all(|held| held[0] == 0 && held.last() == Some(&newest.0)),
            "{held:?}"
        );
    }
    let report = ledger.report(SEQ).expect("open");
    assert_eq!(report.cached_tokens, 10 + 28);
    // The full head was cut to five slots: four of them are held by the first special tokens and commas that it has kept.
    assert_eq!(decode(&mut ledger, "q")[4], [0, 10, 11, 12, 38]);
}

/// Six commas, a head whose heavy hitters are tokens 2 and 5, and room for five tokens.
#[test]
fn punctuation_does_not_fill_a_small_room() {
    let prompt = Prompt {
        attention: vec![prompt().attention.swap_remove(2)],
        group: 1,
        classes: classes("S,a,,b,,,c"),
    };
    let (strategies, kept) = prompt.read(a_fifth(), Budget::Tokens(5));
    assert_eq!(strategies, [Strategy::Heavy]);
    // Two heavy hitters and the newest leave two of five slots to the special token and the first comma.
    assert_eq!(kept.slots, [[0, 1, 2, 5, 9]]);
}
