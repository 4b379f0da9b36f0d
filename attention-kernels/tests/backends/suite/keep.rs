//! What a plan keeps, to the last slot what [`KeepPlan::resolve`] keeps.

use kv_core::{KeepPlan, LayerView, Observation, Pins};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::Backend;
use crate::world::rng;

/// One thread's worth more or less, a block's, and several.
const LENGTHS: [usize; 6] = [1, 2, 255, 256, 257, 700];
const HEADS: usize = 3;

/// Few distinct scores, and all that is odd among them.
const ODD: [f32; 9] = [
    f32::NAN,
    -0.0,
    0.0,
    f32::INFINITY,
    f32::NEG_INFINITY,
    1.0,
    1.5,
    -2.0,
    f32::MIN_POSITIVE / 2.0,
];

fn scores(rng: &mut ChaCha8Rng, tokens: usize, kind: usize) -> Vec<f32> {
    let mut numbers: Vec<f32> = (0..HEADS * tokens)
        .map(|_| match kind % 4 {
            0 => *ODD.choose(rng).expect("some"),
            1 => rng.random_range(-1.0..1.0),
            // Alike but for the last bits, and for the sign.
            2 => f32::from_bits(
                0x3f80_0000 + rng.random_range(0..3) + (rng.random_range(0..2) << 31),
            ),
            _ => rng.random_range(0_u8..4).into(),
        })
        .collect();
    // A NaN with a sign and a payload, too.
    if kind.is_multiple_of(4) {
        numbers[tokens / 2] = f32::from_bits(0xffc0_1234);
    }
    numbers
}

fn pins(rng: &mut ChaCha8Rng, tokens: usize) -> Pins {
    let tokens = u32::try_from(tokens).expect("small");
    // A loop over them may be unrolled.
    let spans = rng.random_range(0..14);
    Pins::new((0..spans).map(|_| {
        let start = rng.random_range(0..tokens + 3);
        start..start + rng.random_range(0..5)
    }))
}

fn check<B: Backend>(backend: &B, plan: &KeepPlan, pins: &Pins, tokens: usize, scores: &[f32]) {
    let rows: Vec<&[f32]> = scores.chunks_exact(tokens).collect();
    let view =
        LayerView::prefill(0, HEADS, tokens, tokens).with_scores(Observation::Accumulated, &rows);
    let want = plan.resolve(&view, pins).slots;
    let got = backend.keep(plan, pins, tokens, Some(scores));
    assert_eq!(got, want, "{plan:?}, {pins:?}, scores {scores:?}");
}

/// Fills a plan for so many tokens, in this turn.
type Fill = fn(&mut ChaCha8Rng, &mut KeepPlan, usize, usize);

/// `run` fills a plan for every length, kind of scores and turn.
fn plans<B: Backend>(backend: &B, rng: &mut ChaCha8Rng, turns: usize, run: Fill) {
    for tokens in LENGTHS {
        for turn in 0..turns {
            let scores = scores(rng, tokens, turn);
            let pins = pins(rng, tokens);
            let mut plan = KeepPlan::all(HEADS);
            run(rng, &mut plan, tokens, turn);
            check(backend, &plan, &pins, tokens, &scores);
        }
    }
}

/// Nothing, little, nearly everything, everything and more of `tokens`.
fn amount(rng: &mut ChaCha8Rng, tokens: usize) -> usize {
    let edges = [0, 1, tokens / 2, tokens - 1, tokens, tokens + 1];
    if rng.random_bool(0.5) {
        *edges.choose(rng).expect("some")
    } else {
        rng.random_range(0..=tokens)
    }
}

pub(crate) fn windows_and_slots<B: Backend>(backend: &B) {
    narrowed(backend, &mut rng(0x141), 6);
    // Without scores, and without verbs.
    let mut plan = KeepPlan::all(2);
    assert_eq!(
        backend.keep(&plan, &Pins::default(), 3, None),
        [[0, 1, 2], [0, 1, 2]]
    );
    plan.window(1, 1, 0);
    assert_eq!(
        backend.keep(&plan, &Pins::default(), 3, None),
        [vec![0, 1, 2], vec![0, 2]]
    );
    assert_eq!(
        backend.keep(&plan, &Pins::default(), 0, None),
        [[0_u32; 0], []]
    );
}

pub(crate) fn narrowed<B: Backend>(backend: &B, rng: &mut ChaCha8Rng, turns: usize) {
    plans(backend, rng, turns, |rng, plan, tokens, _| {
        plan.window(0, amount(rng, tokens), amount(rng, tokens));
        let named = amount(rng, tokens);
        let most = u32::try_from(tokens).expect("small") + 3;
        let slots: Vec<u32> = (0..named).map(|_| rng.random_range(0..most)).collect();
        plan.slots(1, slots);
        plan.slots(2, []);
    });
}

pub(crate) fn best_of_a_head<B: Backend>(backend: &B) {
    plans(backend, &mut rng(0x142), 8, |rng, plan, tokens, _| {
        for head in 0..HEADS {
            plan.top(head, amount(rng, tokens), amount(rng, tokens / 2 + 1));
        }
    });
}

pub(crate) fn best_across_heads<B: Backend>(backend: &B) {
    across(backend, &mut rng(0x143), 8);
}

pub(crate) fn across<B: Backend>(backend: &B, rng: &mut ChaCha8Rng, turns: usize) {
    plans(backend, rng, turns, |rng, plan, tokens, turn| {
        let floor = [0, 1, 3, tokens + 5][turn % 4].min(tokens + 1);
        let total = amount(rng, HEADS * tokens);
        plan.top_across_heads(
            total,
            floor,
            amount(rng, tokens / 2 + 1).min(1 + 9 * (turn % 3)),
        );
    });
}

pub(crate) fn verbs_together<B: Backend>(backend: &B) {
    together(backend, &mut rng(0x144), 4);
}

pub(crate) fn together<B: Backend>(backend: &B, rng: &mut ChaCha8Rng, turns: usize) {
    plans(backend, rng, turns, |rng, plan, tokens, _| {
        plan.top_across_heads(amount(rng, HEADS * tokens), 2, 3);
        plan.top(1, amount(rng, tokens), 2);
        plan.window(1, 3, amount(rng, tokens));
        plan.slots(0, (0..u32::try_from(tokens).expect("small")).step_by(2));
        plan.top_across_heads(amount(rng, HEADS * tokens), 0, 1);
        plan.slots(2, [1, 0, 1, 5]);
        plan.top(2, 1, 1);
    });
}

/// Nothing but ties, so that indices decide.
pub(crate) fn scores_alike<B: Backend>(backend: &B) {
    let mut rng = rng(0x145);
    for tokens in LENGTHS {
        for number in [0.5, f32::NAN, f32::INFINITY] {
            let scores = vec![number; HEADS * tokens];
            let mut plan = KeepPlan::all(HEADS);
            plan.top(0, tokens / 2, 3);
            plan.top_across_heads(tokens + tokens / 3, rng.random_range(0..4), 2);
            check(backend, &plan, &Pins::default(), tokens, &scores);
        }
    }
}

pub(crate) fn amounts_beyond_everything<B: Backend>(backend: &B) {
    let mut rng = rng(0x146);
    let (tokens, most) = (9, usize::MAX);
    let scores = scores(&mut rng, tokens, 0);
    let plans: [fn(&mut KeepPlan, usize); 6] = [
        |plan, most| plan.window(0, most, most),
        |plan, most| plan.window(0, 0, most),
        |plan, most| plan.top(1, most, most),
        |plan, most| plan.top(1, most, 2),
        |plan, most| plan.top_across_heads(most, most, most),
        |plan, most| plan.top_across_heads(most, 0, 1),
    ];
    for fill in plans {
        let mut plan = KeepPlan::all(HEADS);
        fill(&mut plan, most);
        check(
            backend,
            &plan,
            &Pins::new(std::iter::once(2..u32::MAX)),
            tokens,
            &scores,
        );
        check(backend, &plan, &Pins::default(), tokens, &scores);
    }
}
