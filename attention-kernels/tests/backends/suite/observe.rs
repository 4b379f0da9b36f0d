//! What is seen of a prompt, against the oracles.

use attention_kernels::{KvDtype, PromptArgs, oracle};
use kv_core::{Observation, Pool, Reduce, Reduction, ReductionOrder};
use rand_chacha::ChaCha8Rng;

use super::Backend;
use crate::prompts::{BOUND, Prompt, Shape, worst_error};
use crate::world::{DTYPES, rng, stored};

/// Everything added up.
const SUMS: Reduction = Reduction {
    queries: Reduce::Sum,
    group: Reduce::Sum,
    pool: Pool::None,
    order: ReductionOrder::GroupThenPool,
    shared: false,
};

/// A pool wider than any prompt.
const WIDEST: usize = usize::MAX;

pub(crate) fn shape((heads, group): (usize, usize), head_dim: usize, tokens: usize) -> Shape {
    Shape {
        heads,
        group,
        head_dim,
        tokens,
        padding: 0,
        softcap: None,
        window: 32,
        reduction: SUMS,
        contents: 0,
    }
}

/// A prompt in the numbers of a type.
pub(crate) fn prompt(rng: &mut ChaCha8Rng, shape: &Shape, dtype: KvDtype) -> Prompt {
    let mut prompt = Prompt::random(rng, shape, 3.0);
    let numbers = prompt.queries.iter_mut().chain(&mut prompt.keys);
    numbers.for_each(|number| *number = stored(*number, dtype));
    let terms = prompt.greatest_terms();
    assert!(terms <= 16.0, "{terms} is outside the stated bound");
    prompt
}

/// Runs one observation of a prompt and compares.
pub(crate) fn follow<B: Backend>(
    backend: &B,
    prompt: &Prompt,
    dtype: KvDtype,
    window: Option<usize>,
) {
    let (args, reduction) = (prompt.args(), prompt.shape.reduction);
    let (observation, want) = match window {
        Some(queries) => (
            Observation::Window { queries },
            oracle::observe_window(&args, queries, reduction),
        ),
        None => (
            Observation::Accumulated,
            oracle::observe_accumulated(&args, reduction),
        ),
    };
    let got = backend
        .observe(observation, reduction, &args, dtype)
        .expect("asked for");
    let error = worst_error(&got, &want);
    let shape = &prompt.shape;
    assert!(
        error <= BOUND,
        "{dtype}, {observation:?}, {shape:?}: relative error {error:e}"
    );
}

pub(crate) fn windows_follow_the_oracle<B: Backend>(backend: &B) {
    let mut rng = rng(0x131);
    for dtype in DTYPES {
        for tokens in [33, 70] {
            let shape = Shape {
                padding: 3,
                softcap: Some(4.0),
                ..shape((2, 2), 24, tokens)
            };
            let prompt = prompt(&mut rng, &shape, dtype);
            for window in [1, 7, 32, tokens - 1, tokens, tokens + 1, usize::MAX] {
                follow(backend, &prompt, dtype, Some(window));
            }
        }
    }
}

/// Tiles filled in part, just and beyond; one and several steps along `D`.
pub(crate) fn lengths_follow_the_oracle<B: Backend>(backend: &B) {
    let mut rng = rng(0x132);
    let mut turn = 0;
    for dtype in DTYPES {
        for tokens in [1, 2, 31, 32, 33, 64, 65, 130] {
            let shape = Shape {
                padding: turn % 3,
                softcap: [None, Some(30.0)][turn % 2],
                ..shape(
                    [(1, 1), (2, 3), (3, 1)][turn % 3],
                    [8, 40, 64, 96][turn % 4],
                    tokens,
                )
            };
            let prompt = prompt(&mut rng, &shape, dtype);
            follow(backend, &prompt, dtype, None);
            follow(backend, &prompt, dtype, Some([1, 7, 32][turn % 3]));
            turn += 1;
        }
    }
}

/// Every reduction over queries and group with every order, and every pool.
pub(crate) fn reductions_follow_the_oracle<B: Backend>(backend: &B) {
    let mut rng = rng(0x133);
    let reduces = [Reduce::Mean, Reduce::Sum, Reduce::Max];
    let widths = [3, 5, 63, WIDEST];
    let pools: Vec<Pool> = std::iter::once(Pool::None)
        .chain(widths.map(Pool::Average))
        .chain(widths.map(Pool::Max))
        .collect();
    let mut turn = 0;
    let shape = Shape {
        padding: 1,
        ..shape((2, 2), 8, 67)
    };
    let mut prompt = prompt(&mut rng, &shape, KvDtype::F32);
    for queries in reduces {
        for group in reduces {
            for order in [ReductionOrder::GroupThenPool, ReductionOrder::PoolThenGroup] {
                prompt.shape.reduction = Reduction {
                    queries,
                    group,
                    pool: pools[turn % pools.len()],
                    order,
                    shared: false,
                };
                follow(backend, &prompt, KvDtype::F32, None);
                prompt.shape.reduction.pool = pools[(turn + 4) % pools.len()];
                follow(backend, &prompt, KvDtype::F32, Some(9));
                // Nine pools and eighteen reductions: another one for each order.
                turn += 1;
            }
        }
    }
}

pub(crate) fn key_norms_follow_the_oracle<B: Backend>(backend: &B) {
    let mut rng = rng(0x134);
    for dtype in DTYPES {
        for (head_dim, tokens) in [(8, 1), (64, 5), (80, 33), (256, 4)] {
            let shape = Shape {
                padding: 2,
                ..shape((3, 1), head_dim, tokens)
            };
            let mut prompt = prompt(&mut rng, &shape, dtype);
            prompt.keys[..head_dim].fill(0.0);
            norms(backend, &prompt, dtype);
        }
    }
}

pub(crate) fn norms<B: Backend>(backend: &B, prompt: &Prompt, dtype: KvDtype) {
    let (args, observation) = (prompt.args(), Observation::KeyNorms);
    let got = backend
        .observe(observation, SUMS, &args, dtype)
        .expect("asked for");
    let keys = prompt.keys.chunks_exact(prompt.per_head());
    let keys = keys.flat_map(|head| head.chunks_exact(args.head_dim).take(args.tokens));
    assert_eq!(got.len(), prompt.shape.heads * args.tokens);
    for (key, got) in keys.zip(got) {
        let want = oracle::key_norm(key);
        let off = (f64::from(got) - want).abs();
        let head_dim = args.head_dim;
        assert!(
            off <= 1e-6 * want.abs(),
            "{dtype}, D {head_dim}: {got} {want}"
        );
    }
}

pub(crate) fn nothing_asked_is_nothing_seen<B: Backend>(backend: &B) {
    let mut rng = rng(0x135);
    let shape = shape((1, 1), 8, 3);
    let prompt = prompt(&mut rng, &shape, KvDtype::F32);
    let seen =
        |observation, args: &PromptArgs<'_>| backend.observe(observation, SUMS, args, KvDtype::F32);
    assert_eq!(seen(Observation::None, &prompt.args()), None);
    let rows = seen(Observation::Rows, &prompt.args());
    assert_eq!(rows, seen(Observation::Accumulated, &prompt.args()));
    assert!(rows.is_some());
    let none = PromptArgs {
        tokens: 0,
        ..prompt.args()
    };
    for observation in [
        Observation::Accumulated,
        Observation::KeyNorms,
        Observation::Window { queries: 2 },
    ] {
        assert_eq!(seen(observation, &none), Some(vec![]));
    }
}
