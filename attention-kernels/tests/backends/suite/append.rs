//! Decode steps: new tokens in slots that a ledger names or that the device chooses.

use attention_kernels::cuda::entries::PINNED;
use attention_kernels::cuda::{HeadStep, SlotWrite, StepTarget};
use attention_kernels::{KvDtype, PageLayout};
use kv_core::rank;
use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::scene::step_of;
use super::{Backend, Decode, NewTokens, Scene, slot_write};
use crate::world::{DTYPES, Rows, random_queries, rng};

mod ledgers;

use ledgers::{BLOCK, HEAD_DIM, Ledgers, PAGES, SCORES, SEQS, Spoken, Text};

const STEPS: usize = 40;

/// Forty steps of two sequences, in which the ledger's host chooses victims from its own copy of positions and scores.
pub(crate) fn steps_follow_the_ledger<B: Backend>(backend: &B) {
    let mut rng = rng(0x161);
    for dtype in DTYPES {
        let lowest = follow(backend, &mut rng, dtype, STEPS);
        assert!(lowest > 2 * STEPS, "the device chose {lowest} times");
    }
}

/// Returns how often a victim was left to the device.
pub(crate) fn follow<B: Backend>(
    backend: &B,
    rng: &mut ChaCha8Rng,
    dtype: KvDtype,
    steps: usize,
) -> usize {
    let layout = PageLayout::new(BLOCK, HEAD_DIM).expect("a layout");
    let mut store = backend.store(layout, dtype, PAGES);
    let mut ledgers = Ledgers::new();
    let mut texts = SEQS.map(|seq| Text::random(rng, seq));
    for text in &mut texts {
        ledgers.read(backend, &mut store, rng, text, dtype);
    }
    let mut lowest = 0;
    for step in 0..steps {
        let targets = texts
            .iter()
            .map(|text| ledgers.targets(text, text.tokens + step));
        let targets: Vec<StepTarget> = targets.flatten().collect();
        let chosen = targets
            .iter()
            .filter(|target| matches!(target, StepTarget::Lowest { .. }));
        lowest += chosen.count();
        let spoken = Spoken::new(rng, &mut texts, step, dtype);
        let heads = ledgers.steps(&texts, &targets);
        spoken.append(backend, &mut store, &heads);
        let record = backend.contents(&store);
        for text in &texts {
            ledgers.assert_hold(&record, text, text.tokens + step);
            ledgers.observe(backend, &mut store, rng, text);
        }
    }
    lowest
}

/// Named slots are written and nothing else is; heads without a target are left alone, in every layer of a step.
pub(crate) fn targets_are_taken_or_left<B: Backend>(backend: &B) {
    let mut rng = rng(0x162);
    for dtype in DTYPES {
        let scene = Scene::random(&mut rng, (16, 80), dtype, &[40, 17, 16, 33, 300, 1, 2, 64]);
        let mut store = scene.build(backend);
        let mut record = backend.contents(&store);
        let heads: Vec<HeadStep<'_>> = scene
            .steps()
            .into_iter()
            .enumerate()
            .map(|(index, head)| HeadStep {
                target: match index % 3 {
                    0 => StepTarget::Nothing,
                    _ => StepTarget::Slot(
                        u32::try_from(rng.random_range(0..head.len)).expect("small"),
                    ),
                },
                ..head
            })
            .collect();
        let positions = [(70, false), (71, true)];
        let step = Decode {
            layers: 2,
            heads: &heads,
            positions: &positions,
        };
        for layer in [1, 0] {
            let keys = random_queries(&mut rng, 4 * 2 * 80, 2.0);
            let values = random_queries(&mut rng, 4 * 2 * 80, 2.0);
            let new = NewTokens {
                keys: &keys,
                values: &values,
            };
            backend.append(&mut store, &step, layer, new, (1, 2));
            for (index, head) in step.layer(layer).iter().enumerate() {
                let StepTarget::Slot(slot) = head.target else {
                    continue;
                };
                let (position, is_pinned) = positions[index / 2];
                let write = SlotWrite {
                    is_pinned,
                    ..slot_write(
                        2 * index + 1,
                        head.pages,
                        slot as usize,
                        16,
                        position as usize,
                    )
                };
                record.write(new, None, &[write], dtype);
            }
            backend
                .contents(&store)
                .assert_is(&record, &format!("{dtype}, layer {layer}"));
        }
    }
}

/// Positions up to the last, in any order among the slots, against the rule said once more.
pub(crate) fn the_lowest_goes_wherever_it_stands_in_the_text<B: Backend>(backend: &B) {
    let mut rng = rng(0x163);
    for dtype in DTYPES {
        for len in [1, 2, 127, 128, 129, 300] {
            lowest_of(backend, &mut rng, dtype, len);
        }
    }
}

/// One head of `len` tokens, and one victim.
pub(crate) fn lowest_of<B: Backend>(backend: &B, rng: &mut ChaCha8Rng, dtype: KvDtype, len: usize) {
    let scene = Scene::random(rng, (BLOCK, HEAD_DIM), dtype, &[len]);
    let head = &scene.heads[0];
    let mut store = scene.build(backend);
    // Close together, or far apart.
    let spread = [4, 1000, (1 << 31) / 300][rng.random_range(0..3)];
    let mut positions: Vec<usize> = (0..len)
        .map(|index| index * spread + rng.random_range(0..spread))
        .collect();
    positions.shuffle(rng);
    let scores: Vec<f32> = (0..len)
        .map(|_| *SCORES.choose(rng).expect("some"))
        .collect();
    let recent = rng.random_range(0..len.min(40));
    let mut writes: Vec<SlotWrite> = (0..len)
        .map(|slot| SlotWrite {
            is_pinned: rng.random_bool(0.3),
            ..slot_write(slot, &head.pages, slot, BLOCK, positions[slot])
        })
        .collect();
    let mut newest = positions.clone();
    newest.sort_unstable();
    let protected = newest.split_off(len - recent);
    // One may go.
    if let Some(&free) = newest.first() {
        let slot = positions
            .iter()
            .position(|&position| position == free)
            .expect("there");
        writes[slot].is_pinned = false;
    }
    let new = NewTokens {
        keys: &head.rows.keys,
        values: &head.rows.values,
    };
    backend.write(&mut store, new, Some(&scores), &writes);
    let mut record = backend.contents(&store);

    let key = |slot: usize| (scores[slot], positions[slot]);
    let free =
        (0..len).filter(|&slot| !writes[slot].is_pinned && !protected.contains(&positions[slot]));
    let victim = free
        .max_by(|&a, &b| rank(key(a), key(b)))
        .expect("one that may go");

    let recent = u32::try_from(recent).expect("small");
    let last = PINNED - 1;
    let step = Decode {
        layers: 1,
        heads: &[step_of(head, StepTarget::Lowest { recent })],
        positions: &[(last, false)],
    };
    let token = Rows::random(rng, 1, HEAD_DIM, dtype);
    let new = NewTokens {
        keys: &token.keys,
        values: &token.values,
    };
    backend.append(&mut store, &step, 0, new, (0, 1));
    record.write(
        new,
        None,
        &[slot_write(0, &head.pages, victim, BLOCK, last as usize)],
        dtype,
    );
    backend.contents(&store).assert_is(
        &record,
        &format!("{dtype}, {len} tokens, {recent} recent, {scores:?}"),
    );
}
