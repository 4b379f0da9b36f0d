//! A ledger whose victims are chosen by a device holds, takes and reports just what the same ledger does that chooses them
//! itself.
use std::hash::{BuildHasher, RandomState};

use kv_core::{
    CacheError, Demand, Geometry, Growth, KeepPlan, Kept, LayerView, Ledger, Pins, Position,
    Protected, Room, SeqId, Target, TokenClass,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const GEOMETRY: Geometry = Geometry {
    layers: 1,
    kv_heads: 3,
    group: 2,
    head_dim: 8,
    block: 4,
    element_bytes: 4,
    max_positions: 64,
};
const SEQ: SeqId = SeqId(7);

/// Tokens that the last head protects at most.
const PROTECTED: usize = 8;

fn class(position: u32) -> TokenClass {
    match position % 7 {
        1 | 2 => TokenClass::Special,
        3 => TokenClass::Punctuation,
        _ => TokenClass::Plain,
    }
}

/// Positions and scores of a head's slots, as a device keeps them.
type Slots = Vec<(u32, f32)>;

/// What the kernel does, said once more: the lowest score outside the newest, the later position of equal ones.
fn victim(slots: &Slots, recent: usize, pins: &Pins, stays: &[u32]) -> usize {
    let mut positions: Vec<u32> = slots.iter().map(|slot| slot.0).collect();
    positions.sort_unstable();
    let protected = &positions[positions.len() - recent..];
    let free = (0..slots.len()).filter(|&slot| {
        let position = slots[slot].0;
        !protected.contains(&position)
            && !pins.contains(Position(position))
            && !stays.contains(&position)
    });
    free.min_by(|&a, &b| {
        let (a, b) = (slots[a], slots[b]);
        a.1.total_cmp(&b.1).then(b.0.cmp(&a.0))
    })
    .expect("a token that may go")
}

fn prompt(rng: &mut ChaCha8Rng, tokens: usize, pins: &Pins) -> Kept {
    let rows: Vec<Vec<f32>> = (0..GEOMETRY.kv_heads)
        .map(|_| (0..tokens).map(|_| rng.random_range(0..4) as f32).collect())
        .collect();
    let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
    let view = LayerView::prefill(0, GEOMETRY.kv_heads, tokens, 9)
        .with_scores(kv_core::Observation::Rows, &rows);
    let mut plan = KeepPlan::all(GEOMETRY.kv_heads);
    plan.top(0, 4, 3);
    plan.grow(
        0,
        Growth::EvictLowest {
            limit: 9,
            recent: 3,
        },
    );
    plan.window(1, 2, 5);
    plan.grow(
        1,
        Growth::Ring {
            sinks: 2,
            recent: 5,
        },
    );
    plan.top(2, 4, 3);
    plan.grow(
        2,
        Growth::Protect {
            classes: Protected {
                special: true,
                punctuation: false,
            },
            limit: 6,
            recent: 3,
            most: PROTECTED + 1,
        },
    );
    plan.resolve(&view, pins)
}

fn opened(tokens: usize, kept: &Kept, pins: &Pins) -> Ledger {
    let mut ledger = Ledger::new(GEOMETRY, 200);
    let demand = Demand {
        rooms: vec![Room::Each(usize::MAX)],
        together: None,
        appends: false,
        prompt: tokens,
    };
    ledger.open(SEQ, 64, demand, pins).expect("room");
    let classes: Vec<TokenClass> = (0..64).map(class).collect();
    ledger.classify(SEQ, Position(0), &classes).expect("open");
    ledger.write_prompt(SEQ, 0, tokens, kept).expect("room");
    ledger
}

#[test]
fn a_device_that_chooses_victims_changes_nothing_else() {
    let seed = std::env::var("HEADROOM_SEED").map_or_else(
        |_| RandomState::new().hash_one(0),
        |seed| seed.parse().expect("a number"),
    );
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for _ in 0..50 {
        let tokens = rng.random_range(4..20);
        let start = rng.random_range(0..30);
        let pins = Pins::new(Some(start..start + rng.random_range(0..3)));
        let kept = prompt(&mut rng, tokens, &pins);
        let (mut host, mut with_device) =
            (opened(tokens, &kept, &pins), opened(tokens, &kept, &pins));
        let scores = kept.scores.as_ref().expect("scores");
        let slots = |(slots, scores): (&Vec<u32>, &Vec<f32>)| {
            slots.iter().copied().zip(scores.iter().copied()).collect()
        };
        let mut device: Vec<Slots> = kept.slots.iter().zip(scores).map(slots).collect();
        let is_special =
            |&at: &u32| class(at) == TokenClass::Special && !pins.contains(Position(at));
        let special = kept.slots[2].iter().copied().filter(is_special);
        let mut stays = [Vec::new(), Vec::new(), special.take(PROTECTED).collect()];
        for position in tokens..tokens + 30 {
            let at = Position::new(position);
            host.append(SEQ, 0, at).expect("room");
            let targets = with_device
                .append_on_device(SEQ, 0, at, true)
                .expect("room");
            for (head, target) in targets.heads.into_iter().enumerate() {
                let slots = &mut device[head];
                let slot = match target {
                    Target::Slot(slot) => slot.index(),
                    Target::Lowest { recent } => victim(slots, recent, &pins, &stays[head]),
                };
                if head == 2 && is_special(&at.0) && stays[2].len() < PROTECTED {
                    stays[2].push(at.0);
                }
                slots.resize(slots.len().max(slot + 1), (0, 0.0));
                slots[slot] = (at.0, 0.0);
                // What the step observes.
                for (slot, (_, score)) in slots.iter_mut().enumerate() {
                    let seen = rng.random_range(0..3) as f32;
                    *score += seen;
                    host.scores_mut(SEQ, 0, head).expect("open")[slot] += seen;
                }
                let wanted = host.head(SEQ, 0, head).expect("open").positions();
                let got: Vec<Position> = slots.iter().map(|slot| Position(slot.0)).collect();
                assert_eq!(
                    got, wanted,
                    "head {head} at {position}; repeat with HEADROOM_SEED={seed}"
                );
            }
        }
        assert_eq!(
            host.report(SEQ).expect("open"),
            with_device.report(SEQ).expect("open"),
            "repeat with HEADROOM_SEED={seed}"
        );
        let blind = with_device.head(SEQ, 0, 0).expect("open");
        assert!(blind.positions().is_empty() && !blind.is_empty());
        // Whose tokens nobody knows cannot be planned anew.
        let refused = with_device.shrink(SEQ, 0, &kept);
        assert_eq!(refused, Err(CacheError::Blind { seq: SEQ, layer: 0 }));
        assert!(
            !with_device
                .head(SEQ, 0, 1)
                .expect("open")
                .positions()
                .is_empty()
        );
    }
}
