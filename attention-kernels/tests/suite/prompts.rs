//! Prompts with queries and keys drawn at random, padded with NaN.

use attention_kernels::{PromptArgs, observe_accumulated, observe_window};
use kv_core::{Pool, Reduce, Reduction, ReductionOrder};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;

use crate::world::random_queries;

/// Bound on the error of a number of an observation, relative to the number.
pub(crate) const BOUND: f64 = 1e-5;

/// What [`BOUND`] leaves out: weights too small for `f32`.
pub(crate) const FLOOR: f64 = 1e-30;

/// A call's shape. The numbers come from `contents`, so that a failure shrinks to a small shape.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) heads: usize,
    pub(crate) group: usize,
    pub(crate) head_dim: usize,
    pub(crate) tokens: usize,
    pub(crate) padding: usize,
    pub(crate) softcap: Option<f32>,
    pub(crate) window: usize,
    pub(crate) reduction: Reduction,
    pub(crate) contents: u64,
}

fn reductions() -> impl Strategy<Value = Reduction> {
    let reduce = || prop::sample::select(vec![Reduce::Mean, Reduce::Sum, Reduce::Max]);
    let width = || prop::sample::select(vec![1, 3, 7, 13, 301]);
    let pool = prop_oneof![
        Just(Pool::None),
        width().prop_map(Pool::Average),
        width().prop_map(Pool::Max),
    ];
    let order = prop::sample::select(vec![
        ReductionOrder::GroupThenPool,
        ReductionOrder::PoolThenGroup,
    ]);
    (reduce(), reduce(), pool, order).prop_map(|(queries, group, pool, order)| Reduction {
        queries,
        group,
        pool,
        order,
        shared: false,
    })
}

/// Windows of one query, of less and more than a block, and prompts around the window and of up to several blocks.
pub(crate) fn shapes() -> impl Strategy<Value = Shape> {
    let window = prop::sample::select(vec![1, 2, 7, 32, 40]);
    let sizes = window.prop_flat_map(|window| {
        let tokens = prop_oneof![
            Just(1),
            Just((window - 1).max(1)),
            Just(window),
            Just(window + 1),
            1..170_usize,
        ];
        (Just(window), tokens, 0..3_usize)
    });
    let dims = (
        1..=3_usize,
        1..=3_usize,
        prop::sample::select(vec![1, 3, 8, 17, 33, 64]),
    );
    let softcap = prop_oneof![Just(None), Just(Some(50.0)), Just(Some(0.5))];
    (dims, sizes, softcap, reductions(), any::<u64>()).prop_map(
        |(dims, sizes, softcap, reduction, contents)| Shape {
            heads: dims.0,
            group: dims.1,
            head_dim: dims.2,
            tokens: sizes.1,
            padding: sizes.2,
            softcap,
            window: sizes.0,
            reduction,
            contents,
        },
    )
}

/// A prompt of a shape.
#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    pub(crate) shape: Shape,
    pub(crate) scale: f32,
    pub(crate) queries: Vec<f32>,
    pub(crate) keys: Vec<f32>,
}

impl Prompt {
    /// Queries of `magnitude`, keys between -1 and 1, scale `1 / sqrt(D)`.
    pub(crate) fn random(rng: &mut ChaCha8Rng, shape: &Shape, magnitude: f32) -> Self {
        let mut padded = |heads: usize, magnitude| {
            let head = |_| {
                let mut rows = random_queries(rng, shape.tokens * shape.head_dim, magnitude);
                rows.resize((shape.tokens + shape.padding) * shape.head_dim, f32::NAN);
                rows
            };
            (0..heads).flat_map(head).collect()
        };
        Self {
            shape: shape.clone(),
            scale: (shape.head_dim as f32).sqrt().recip(),
            queries: padded(shape.heads * shape.group, magnitude),
            keys: padded(shape.heads, 1.0),
        }
    }

    /// Elements of a head, padding and all.
    pub(crate) fn per_head(&self) -> usize {
        (self.shape.tokens + self.shape.padding) * self.shape.head_dim
    }

    pub(crate) fn args(&self) -> PromptArgs<'_> {
        PromptArgs {
            queries: &self.queries,
            keys: &self.keys,
            rows: self.shape.tokens + self.shape.padding,
            tokens: self.shape.tokens,
            group: self.shape.group,
            head_dim: self.shape.head_dim,
            scale: self.scale,
            softcap: self.shape.softcap,
        }
    }

    /// What the window of the shape sees.
    pub(crate) fn window(&self) -> Vec<f32> {
        let Shape {
            window, reduction, ..
        } = self.shape;
        observe_window(&self.args(), window, reduction).expect("a sound call")
    }

    /// What is accumulated.
    pub(crate) fn accumulated(&self) -> Vec<f32> {
        observe_accumulated(&self.args(), self.shape.reduction).expect("a sound call")
    }

    /// The largest `|scale| * sum_d |q_d * k_d|`, against which the bound is stated.
    pub(crate) fn greatest_terms(&self) -> f64 {
        let Shape {
            group, head_dim, ..
        } = self.shape;
        let used = self.shape.tokens * head_dim;
        let queries = self.queries.chunks_exact(self.per_head());
        let heads = queries.enumerate().map(|(query_head, queries)| {
            let keys = &self.keys[query_head / group * self.per_head()..][..used];
            greatest_terms(keys, &queries[..used], head_dim, self.scale)
        });
        heads.fold(0.0, f64::max)
    }
}

/// As [`Prompt::greatest_terms`], of plain rows.
pub(crate) fn greatest_terms(keys: &[f32], queries: &[f32], head_dim: usize, scale: f32) -> f64 {
    let mut greatest = 0.0_f64;
    for query in queries.chunks_exact(head_dim) {
        for key in keys.chunks_exact(head_dim) {
            let terms = query.iter().zip(key);
            let sum: f64 = terms.map(|(q, k)| f64::from(q * k).abs()).sum();
            greatest = greatest.max(f64::from(scale.abs()) * sum);
        }
    }
    greatest
}

/// The worst of `(|got - want| - FLOOR) / want`. Infinite where an infinity is missed or a number is not a number.
pub(crate) fn worst_error(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let errors = got.iter().zip(want).map(|(&got, &want)| {
        let got = f64::from(got);
        if got == want {
            return 0.0;
        }
        let off = (got - want).abs();
        if off.is_finite() {
            (off - FLOOR).max(0.0) / want.abs()
        } else {
            f64::INFINITY
        }
    });
    errors.fold(0.0, f64::max)
}
