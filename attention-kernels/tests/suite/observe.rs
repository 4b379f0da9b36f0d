//! What is seen of a prompt, against the oracle.

use attention_kernels::{
    KernelError, KeyNormsArgs, PromptArgs, key_norms, observe, observe_accumulated, observe_window,
    oracle,
};
use kv_core::{Observation, Pool, Reduce, Reduction, ReductionOrder};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;

use crate::prompts::{BOUND, Prompt, Shape, shapes, worst_error};
use crate::world::{bits, check, random_queries, rng};

/// Everything added up.
const SUMS: Reduction = Reduction {
    queries: Reduce::Sum,
    group: Reduce::Sum,
    pool: Pool::None,
    order: ReductionOrder::GroupThenPool,
    shared: false,
};

fn shape(tokens: usize, reduction: Reduction) -> Shape {
    Shape {
        heads: 2,
        group: 3,
        head_dim: 24,
        tokens,
        padding: 1,
        softcap: None,
        window: 32,
        reduction,
        contents: 0,
    }
}

/// The errors of both ops.
fn errors_of(prompt: &Prompt) -> [f64; 2] {
    let (args, shape) = (prompt.args(), &prompt.shape);
    let window = oracle::observe_window(&args, shape.window, shape.reduction);
    let accumulated = oracle::observe_accumulated(&args, shape.reduction);
    [
        worst_error(&prompt.window(), &window),
        worst_error(&prompt.accumulated(), &accumulated),
    ]
}

#[test]
fn any_shape_follows_the_oracle() {
    check(0x31, 192, &shapes(), |shape| {
        let mut rng: ChaCha8Rng = rand::SeedableRng::seed_from_u64(shape.contents);
        let prompt = Prompt::random(&mut rng, &shape, 3.0);
        let terms = prompt.greatest_terms();
        prop_assert!(terms <= 16.0, "{terms} is outside the stated bound");
        let [window, accumulated] = errors_of(&prompt);
        prop_assert!(window <= BOUND, "window: relative error {window:e}");
        prop_assert!(
            accumulated <= BOUND,
            "accumulated: relative error {accumulated:e}"
        );
        Ok(())
    });
}

/// Every reduction with every other, on a prompt of more blocks than parts.
#[test]
fn any_reduction_follows_the_oracle() {
    let mut rng = rng(0x32);
    let reduces = [Reduce::Mean, Reduce::Sum, Reduce::Max];
    let pools = [Pool::None, Pool::Average(5), Pool::Max(5)];
    let orders = [ReductionOrder::GroupThenPool, ReductionOrder::PoolThenGroup];
    let small = Shape {
        group: 2,
        head_dim: 8,
        ..shape(140, SUMS)
    };
    let mut prompt = Prompt::random(&mut rng, &small, 3.0);
    for queries in reduces {
        for group in reduces {
            for (pool, order) in pools.into_iter().flat_map(|pool| orders.map(|o| (pool, o))) {
                let reduction = Reduction {
                    queries,
                    group,
                    pool,
                    order,
                    shared: false,
                };
                prompt.shape.reduction = reduction;
                let errors = errors_of(&prompt);
                assert!(
                    errors.iter().all(|&error| error <= BOUND),
                    "{reduction:?}: relative errors {errors:?}"
                );
            }
        }
    }
}

/// Scores far beyond what `exp` can take without its highest score subtracted.
#[test]
fn great_scores_neither_overflow_nor_lose_more_than_their_own_rounding() {
    let mut rng = rng(0x33);
    for magnitude in [30.0, 300.0] {
        let prompt = Prompt::random(&mut rng, &shape(150, Reduction::MEAN), magnitude);
        let bound = BOUND * prompt.greatest_terms() / 16.0;
        assert!(bound > 2.0 * BOUND);
        for error in errors_of(&prompt) {
            assert!(error <= bound, "relative error {error:e}, bound {bound:e}");
        }
    }
}

/// Attention is shared out, never made: each query gives 1.
#[test]
fn the_mass_is_that_of_the_queries() {
    let mut rng = rng(0x34);
    for tokens in [1, 31, 32, 33, 200] {
        let prompt = Prompt::random(&mut rng, &shape(tokens, SUMS), 3.0);
        let seen = prompt.accumulated();
        for head in seen.chunks_exact(tokens) {
            let mass: f64 = head.iter().copied().map(f64::from).sum();
            let want = (prompt.shape.group * tokens) as f64;
            assert!((mass / want - 1.0).abs() < BOUND, "n {tokens}: {mass}");
        }
    }
}

/// What the last queries add is what the window sees.
#[test]
fn a_window_is_a_difference_of_accumulations() {
    let mut rng = rng(0x35);
    let prompt = Prompt::random(&mut rng, &shape(100, SUMS), 3.0);
    let (window, all) = (prompt.window(), prompt.accumulated());
    let shorter = PromptArgs {
        tokens: 100 - 32,
        ..prompt.args()
    };
    let before = observe_accumulated(&shorter, SUMS).expect("a sound call");
    let heads = window.chunks_exact(100).zip(all.chunks_exact(100));
    for ((window, all), before) in heads.zip(before.chunks_exact(68)) {
        for ((window, all), before) in window.iter().zip(all).zip(before) {
            assert!((all - before - window).abs() <= 1e-5 * all);
        }
        assert!(window[68..].iter().all(|&score| score == f32::INFINITY));
    }
}

/// Weights of six queries as one would write them down, realised by keys that pick one element each of a query of logarithms.
#[test]
fn accumulated_by_hand() {
    let weights: [&[f32]; 6] = [
        &[1.0],
        &[3.0, 1.0],
        &[2.0, 1.0, 1.0],
        &[4.0, 1.0, 4.0, 1.0],
        &[2.0, 1.0, 5.0, 1.0, 1.0],
        &[1.0, 1.0, 4.0, 1.0, 2.0, 1.0],
    ];
    let (mut queries, mut keys) = (vec![0.0; 36], vec![0.0; 36]);
    for (token, weights) in weights.iter().enumerate() {
        keys[token * 6 + token] = 1.0;
        for (query, weight) in queries[token * 6..].iter_mut().zip(*weights) {
            *query = weight.ln();
        }
    }
    let args = PromptArgs {
        queries: &queries,
        keys: &keys,
        rows: 6,
        tokens: 6,
        group: 1,
        head_dim: 6,
        scale: 1.0,
        softcap: None,
    };
    let mean = [2.95 / 6.0, 0.16, 0.3875, 0.1, 0.15, 0.1];
    for (reduce, want) in [
        (Reduce::Sum, [2.95, 0.8, 1.55, 0.3, 0.3, 0.1]),
        (Reduce::Mean, mean),
        (Reduce::Max, [1.0, 0.25, 0.5, 0.1, 0.2, 0.1]),
    ] {
        let reduction = Reduction {
            queries: reduce,
            ..Reduction::MEAN
        };
        let got = observe_accumulated(&args, reduction).expect("a sound call");
        let error = worst_error(&got, &want);
        assert!(error < 1e-6, "{reduce:?}: {got:?}");
    }
}

#[test]
fn nothing_to_see() {
    let args = PromptArgs {
        queries: &[1.0; 12],
        keys: &[1.0; 6],
        rows: 3,
        tokens: 0,
        group: 2,
        head_dim: 1,
        scale: 1.0,
        softcap: None,
    };
    let seen = |args| observe_window(args, 2, Reduction::MEAN);
    assert_eq!(seen(&args), Ok(vec![]));
    let no_heads = PromptArgs {
        queries: &[],
        keys: &[],
        tokens: 3,
        ..args
    };
    assert_eq!(seen(&no_heads), Ok(vec![]));
    let no_rows = PromptArgs {
        rows: 0,
        tokens: 0,
        ..no_heads
    };
    assert_eq!(seen(&no_rows), Ok(vec![]));
    // Less than a window: every token is in it.
    let all = PromptArgs { tokens: 2, ..args };
    assert_eq!(seen(&all), Ok(vec![f32::INFINITY; 4]));
}

/// A NaN among the keys or queries of a head stays there.
#[test]
fn nan_stays_in_its_head() {
    let mut rng = rng(0x36);
    for in_keys in [false, true] {
        let mut prompt = Prompt::random(&mut rng, &shape(70, SUMS), 3.0);
        // Head 1 of two, or the first of its three query heads; token 5.
        let spoiled = if in_keys { 1 } else { 3 } * prompt.per_head() + 5 * 24;
        let rows = if in_keys {
            &mut prompt.keys
        } else {
            &mut prompt.queries
        };
        rows[spoiled] = f32::NAN;
        let (window, accumulated) = (prompt.window(), prompt.accumulated());
        assert!(window[..38].iter().all(|x| x.is_finite()));
        assert!(accumulated[..70].iter().all(|x| x.is_finite()));
        assert!(accumulated[70..].iter().any(|x| x.is_nan()));
    }
}

#[test]
fn key_norms_follow_the_oracle() {
    let mut rng = rng(0x37);
    for head_dim in [1, 3, 16, 17, 64, 128] {
        for magnitude in [1e-12, 1.0, 1e12] {
            let (rows, tokens) = (9, 7);
            let mut keys = random_queries(&mut rng, 2 * rows * head_dim, magnitude);
            for head in keys.chunks_exact_mut(rows * head_dim) {
                head[..head_dim].fill(0.0);
                head[tokens * head_dim..].fill(f32::NAN);
            }
            let args = KeyNormsArgs {
                keys: &keys,
                rows,
                tokens,
                head_dim,
            };
            let got = key_norms(&args).expect("a sound call");
            assert_eq!(got.len(), 2 * tokens);
            let keys = keys.chunks_exact(rows * head_dim);
            let keys = keys.flat_map(|head| head.chunks_exact(head_dim).take(tokens));
            for (key, got) in keys.zip(got) {
                let want = oracle::key_norm(key);
                let off = (f64::from(got) - want).abs();
                assert!(off <= 1e-6 * want.abs(), "D {head_dim}: {got} {want}");
            }
        }
    }
}

/// An observation finds the kernel that its name says, and gets what the kernel gives, errors too.
#[test]
fn an_observation_finds_its_kernel() {
    let mut rng = rng(0x38);
    let prompt = Prompt::random(&mut rng, &shape(70, SUMS), 3.0);
    let args = prompt.args();
    let seen = |observation| observe(observation, SUMS, &args).map(|seen| seen.map(|s| bits(&s)));
    let some = |scores: &[f32]| Ok(Some(bits(scores)));
    let accumulated = some(&prompt.accumulated());
    let norms = key_norms(&KeyNormsArgs::from(&args)).expect("a sound call");
    assert_eq!(
        seen(Observation::Window { queries: 32 }),
        some(&prompt.window())
    );
    assert_eq!(seen(Observation::Accumulated), accumulated);
    assert_eq!(seen(Observation::Rows), accumulated);
    assert_eq!(seen(Observation::KeyNorms), some(&norms));
    assert_eq!(
        seen(Observation::Window { queries: 0 }),
        Err(KernelError::WindowOutOfRange { window: 0 })
    );
}

#[test]
fn what_is_not_read_may_be_missing() {
    let mut rng = rng(0x39);
    let prompt = Prompt::random(&mut rng, &shape(7, SUMS), 3.0);
    let bare = PromptArgs {
        queries: &[],
        group: 0,
        scale: f32::NAN,
        ..prompt.args()
    };
    let norms = key_norms(&KeyNormsArgs::from(&bare)).expect("a sound call");
    assert_eq!(observe(Observation::KeyNorms, SUMS, &bare), Ok(Some(norms)));
    assert_eq!(observe(Observation::None, SUMS, &bare), Ok(None));
}
