//! `attend` against the oracle.

use attention_kernels::attend::CHUNK_TOKENS;
use attention_kernels::{
    AttendArgs, Front, HeadSlots, KernelError, KvDtype, PageLayout, PageStore, Workspace, attend,
    attend_into, attend_with_front_into, oracle,
};
use proptest::prelude::*;
use rand::{Rng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::world::{
    BOUND, DTYPES, Rows, World, bits, check, random_queries, relative_error, rng, worst_error,
};

/// A call's shape. The numbers come from `contents`, so that a failure shrinks to a small shape.
#[derive(Clone, Debug)]
struct Shape {
    dtype: KvDtype,
    block: usize,
    head_dim: usize,
    group: usize,
    /// One per (sequence, KV head).
    lengths: Vec<usize>,
    softcap: Option<f32>,
    contents: u64,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let dims = (
        prop::sample::select(DTYPES.to_vec()),
        prop::sample::select(vec![8, 16, 32]),
        prop::sample::select(vec![64, 80, 96, 128]),
        1..=8_usize,
        1..=4_usize,
        1..=3_usize,
    );
    let dims = dims.prop_flat_map(|(dtype, block, head_dim, group, kv_heads, sequences)| {
        let length = prop_oneof![
            Just(0),
            Just(1),
            Just(block - 1),
            Just(block),
            Just(block + 1),
            2..5 * block,
        ];
        let lengths = prop::collection::vec(length, sequences * kv_heads);
        let softcap = prop_oneof![Just(None), Just(Some(50.0)), Just(Some(0.5))];
        (
            Just((dtype, block, head_dim, group)),
            lengths,
            softcap,
            any::<u64>(),
        )
    });
    dims.prop_map(|(dims, lengths, softcap, contents)| Shape {
        dtype: dims.0,
        block: dims.1,
        head_dim: dims.2,
        group: dims.3,
        lengths,
        softcap,
        contents,
    })
}

/// `1 / sqrt(D)`.
fn usual_scale(head_dim: usize) -> f32 {
    (head_dim as f32).sqrt().recip()
}

fn world(rng: &mut ChaCha8Rng, shape: &Shape) -> World {
    let rows: Vec<Rows> = shape
        .lengths
        .iter()
        .map(|&len| Rows::random(rng, len, shape.head_dim, shape.dtype))
        .collect();
    let layout = PageLayout::new(shape.block, shape.head_dim).expect("a layout");
    World::new(rng, layout, shape.dtype, &rows)
}

/// A call of this shape.
fn call<'a>(shape: &Shape, queries: &'a [f32], heads: &'a [HeadSlots<'a>]) -> AttendArgs<'a> {
    AttendArgs {
        queries,
        heads,
        group: shape.group,
        scale: usual_scale(shape.head_dim),
        softcap: shape.softcap,
    }
}

/// Queries of `magnitude`, the error of the result, and the largest score.
fn error_of(rng: &mut ChaCha8Rng, shape: &Shape, magnitude: f32) -> (f64, f64) {
    let world = world(rng, shape);
    let elements = shape.lengths.len() * shape.group * shape.head_dim;
    let queries = random_queries(rng, elements, magnitude);
    let slots = world.slots();
    let args = call(shape, &queries, &slots);
    let out = attend(&world.store, &args).expect("a sound call");
    worst_error(&args, &world.heads, &out)
}

#[test]
fn any_shape_follows_the_oracle() {
    check(0x01, 96, &shapes(), |shape| {
        let mut rng = rand::SeedableRng::seed_from_u64(shape.contents);
        let (error, highest) = error_of(&mut rng, &shape, 3.0);
        prop_assert!(
            highest <= 16.0,
            "scores up to {highest} are outside the stated bound"
        );
        prop_assert!(error <= BOUND, "relative error {error:e}");
        Ok(())
    });
}

/// Lengths around one, two and more chunks, in pages that do and do not divide a chunk.
#[test]
fn chunk_boundaries_follow_the_oracle() {
    let mut rng = rng(0x02);
    let chunk = CHUNK_TOKENS;
    for (dtype, block) in [(KvDtype::F32, 16), (KvDtype::F16, 24), (KvDtype::Bf16, 40)] {
        let shape = Shape {
            dtype,
            block,
            head_dim: 64,
            group: 2,
            lengths: vec![
                chunk - 1,
                chunk,
                chunk + 1,
                0,
                2 * chunk - 1,
                2 * chunk,
                2 * chunk + 1,
                3 * chunk + 7,
            ],
            softcap: None,
            contents: 0,
        };
        let (error, _) = error_of(&mut rng, &shape, 3.0);
        assert!(error <= BOUND, "{dtype}: relative error {error:e}");
    }
}

/// Row widths with a tail behind the last full set of lanes, pages of odd sizes, one token per page.
#[test]
fn uneven_shapes_follow_the_oracle() {
    let mut rng = rng(0x03);
    for (head_dim, block) in [
        (1, 1),
        (3, 5),
        (15, 7),
        (17, 1),
        (40, 16),
        (72, 3),
        (576, 2),
    ] {
        for dtype in DTYPES {
            let shape = Shape {
                dtype,
                block,
                head_dim,
                group: 11,
                lengths: vec![37, 4],
                softcap: None,
                contents: 0,
            };
            let world = world(&mut rng, &shape);
            let queries = random_queries(&mut rng, 2 * 11 * head_dim, 2.0);
            let args = AttendArgs {
                queries: &queries,
                heads: &world.slots(),
                group: 11,
                scale: usual_scale(head_dim),
                softcap: None,
            };
            let out = attend(&world.store, &args).expect("a sound call");
            let (error, _) = worst_error(&args, &world.heads, &out);
            assert!(
                error <= BOUND,
                "D {head_dim}, {dtype}: relative error {error:e}"
            );
        }
    }
}

/// A table may hold pages in reserve, whose numbers are nobody's business.
#[test]
fn pages_beyond_the_last_token_are_not_looked_at() {
    let store = PageStore::new(PageLayout::new(2, 4).expect("a layout"), KvDtype::F16, 3);
    let store = store.expect("a store");
    let pages = [2, 0, u32::MAX, u32::MAX, u32::MAX];
    let attend_to = |pages: &[u32]| {
        let heads = [HeadSlots { pages, len: 3 }];
        let args = AttendArgs {
            queries: &[1.0; 4],
            heads: &heads,
            group: 1,
            scale: 1.0,
            softcap: None,
        };
        attend(&store, &args)
    };
    assert_eq!(attend_to(&pages), attend_to(&pages[..2]));
    assert!(attend_to(&pages).is_ok());
}

/// Scores far beyond what `exp` can take without its highest score subtracted, in one chunk and across chunks.
#[test]
fn great_scores_neither_overflow_nor_lose_more_than_their_own_rounding() {
    let mut rng = rng(0x04);
    for magnitude in [100.0, 1000.0] {
        for dtype in DTYPES {
            let shape = Shape {
                dtype,
                block: 16,
                head_dim: 64,
                group: 3,
                lengths: vec![100, CHUNK_TOKENS + 100],
                softcap: None,
                contents: 0,
            };
            let (error, highest) = error_of(&mut rng, &shape, magnitude);
            assert!(highest > 90.0, "scores only up to {highest}");
            let bound = BOUND * highest / 16.0;
            assert!(
                error <= bound,
                "{dtype}: relative error {error:e}, bound {bound:e}"
            );
        }
    }
}

/// One token holds nearly all the weight, in every place it can stand relative to chunk and page borders.
#[test]
fn one_heavy_token_is_found_anywhere() {
    let mut rng = rng(0x05);
    let (head_dim, len) = (64, 2 * CHUNK_TOKENS + 3);
    let layout = PageLayout::new(16, head_dim).expect("a layout");
    for heavy in [
        0,
        3,
        4,
        15,
        16,
        CHUNK_TOKENS - 1,
        CHUNK_TOKENS,
        2 * CHUNK_TOKENS,
        len - 1,
    ] {
        let mut rows = Rows::random(&mut rng, len, head_dim, KvDtype::F32);
        rows.keys[heavy * head_dim..(heavy + 1) * head_dim].fill(2.0);
        let world = World::new(&mut rng, layout, KvDtype::F32, std::slice::from_ref(&rows));
        let args = AttendArgs {
            queries: &vec![1.0; head_dim],
            heads: &world.slots(),
            group: 1,
            scale: 1.0,
            softcap: None,
        };
        let out = attend(&world.store, &args).expect("a sound call");
        let value = &rows.values[heavy * head_dim..(heavy + 1) * head_dim];
        for (out, value) in out.iter().zip(value) {
            assert!((out - value).abs() < 1e-6, "heavy token {heavy}");
        }
    }
}

#[test]
fn slot_order_is_free_within_the_bound() {
    let mut rng = rng(0x06);
    let (head_dim, len) = (64, CHUNK_TOKENS + 77);
    let layout = PageLayout::new(16, head_dim).expect("a layout");
    for dtype in DTYPES {
        let rows = Rows::random(&mut rng, len, head_dim, dtype);
        let mut order: Vec<usize> = (0..len).collect();
        order.shuffle(&mut *rng);
        let permuted = rows.permuted(&order, head_dim);
        let queries = random_queries(&mut rng, 4 * head_dim, 3.0);
        // Both against the same oracle, which takes the rows in the first order.
        for placed in [&rows, &permuted] {
            let world = World::new(&mut rng, layout, dtype, std::slice::from_ref(placed));
            let args = AttendArgs {
                queries: &queries,
                heads: &[world.heads[0].slots()],
                group: 4,
                scale: 0.125,
                softcap: Some(30.0),
            };
            let out = attend(&world.store, &args).expect("a sound call");
            let mut heads = world.heads.clone();
            heads[0].rows = rows.clone();
            let (error, _) = worst_error(&args, &heads, &out);
            assert!(error <= BOUND, "{dtype}: relative error {error:e}");
        }
    }
}

#[test]
fn empty_heads_and_empty_calls() {
    let layout = PageLayout::new(16, 64).expect("a layout");
    for dtype in DTYPES {
        let store = PageStore::new(layout, dtype, 0).expect("a store of nothing");
        let mut args = AttendArgs {
            queries: &[],
            heads: &[],
            group: 3,
            scale: 1.0,
            softcap: None,
        };
        assert_eq!(attend(&store, &args), Ok(vec![]));
        let queries = [1.0; 2 * 3 * 64];
        args.queries = &queries;
        args.heads = &[HeadSlots { pages: &[], len: 0 }; 2];
        let mut out = vec![f32::NAN; queries.len()];
        attend_into(&store, &args, &mut Workspace::default(), &mut out).expect("a sound call");
        assert_eq!(out, vec![0.0; queries.len()]);
    }
}

/// A NaN among the tokens of a head is that head's own trouble: it is neither hidden nor passed on.
#[test]
fn nan_stays_in_its_head() {
    let mut rng = rng(0x07);
    let (head_dim, len) = (64, CHUNK_TOKENS + 40);
    let layout = PageLayout::new(16, head_dim).expect("a layout");
    for spoiled in [0, 17, CHUNK_TOKENS, len - 1] {
        let mut rows: Vec<Rows> = (0..3)
            .map(|_| Rows::random(&mut rng, len, head_dim, KvDtype::F32))
            .collect();
        rows[1].keys[spoiled * head_dim + 5] = f32::NAN;
        let world = World::new(&mut rng, layout, KvDtype::F32, &rows);
        let queries = random_queries(&mut rng, 3 * 2 * head_dim, 1.0);
        let args = AttendArgs {
            queries: &queries,
            heads: &world.slots(),
            group: 2,
            scale: 0.125,
            softcap: None,
        };
        let out = attend(&world.store, &args).expect("a sound call");
        let per_head = 2 * head_dim;
        assert!(out[per_head..2 * per_head].iter().all(|x| x.is_nan()));
        assert!(out[..per_head].iter().all(|x| x.is_finite()));
        assert!(out[2 * per_head..].iter().all(|x| x.is_finite()));
    }
}

/// The scale and the cap reach the scores in the order that the oracle says.
#[test]
fn scale_zero_and_tight_cap_are_the_mean() {
    let mut rng = rng(0x08);
    let (head_dim, len) = (64, 50);
    let layout = PageLayout::new(16, head_dim).expect("a layout");
    let rows = Rows::random(&mut rng, len, head_dim, KvDtype::F32);
    let world = World::new(&mut rng, layout, KvDtype::F32, std::slice::from_ref(&rows));
    let queries = random_queries(&mut rng, head_dim, 3.0);
    let zeros = vec![0.0; head_dim];
    let mean = oracle::attend(&rows.keys, &rows.values, &zeros, 1.0, None);
    for (scale, softcap) in [(0.0, None), (1.0, Some(1e-6))] {
        let args = AttendArgs {
            queries: &queries,
            heads: &world.slots(),
            group: 1,
            scale,
            softcap,
        };
        let out = attend(&world.store, &args).expect("a sound call");
        let error = relative_error(&out, &mean, &rows.values);
        assert!(error <= BOUND, "relative error {error:e}");
    }
}

/// The first tokens of each head are scored by queries of their own, under the same softmax; none of them, or all, is plain attention.
#[test]
fn tokens_in_front_have_queries_of_their_own() {
    check(0x09, 64, &shapes(), |shape| {
        let mut rng: ChaCha8Rng = rand::SeedableRng::seed_from_u64(shape.contents);
        let world = world(&mut rng, &shape);
        let elements = shape.lengths.len() * shape.group * shape.head_dim;
        let queries = random_queries(&mut rng, elements, 3.0);
        let others = random_queries(&mut rng, elements, 3.0);
        let slots = world.slots();
        let args = call(&shape, &queries, &slots);
        let mut out = vec![0.0; elements];
        let mut run = |tokens: &[usize]| {
            let front = Front {
                queries: &others,
                tokens,
            };
            let workspace = &mut Workspace::default();
            let done = attend_with_front_into(&world.store, &args, &front, workspace, &mut out);
            done.expect("a sound call");
            out.clone()
        };
        let heads = shape.lengths.len();
        prop_assert_eq!(
            bits(&run(&vec![0; heads])),
            bits(&attend(&world.store, &args).expect("a sound call"))
        );
        let swapped = AttendArgs {
            queries: &others,
            ..args
        };
        prop_assert_eq!(
            bits(&run(&vec![usize::MAX; heads])),
            bits(&attend(&world.store, &swapped).expect("a sound call"))
        );
        let tokens: Vec<usize> = shape
            .lengths
            .iter()
            .map(|&len| rng.random_range(0..=len + 2))
            .collect();
        let out = run(&tokens);
        let pairs = queries
            .chunks_exact(shape.head_dim)
            .zip(others.chunks_exact(shape.head_dim));
        for (index, ((query, other), got)) in
            pairs.zip(out.chunks_exact(shape.head_dim)).enumerate()
        {
            let head = index / shape.group;
            let Rows { keys, values } = &world.heads[head].rows;
            let want = oracle::attend_with_front(
                keys,
                values,
                (query, other, tokens[head]),
                args.scale,
                args.softcap,
            );
            let error = relative_error(got, &want, values);
            prop_assert!(error <= BOUND, "relative error {error:e}");
        }
        Ok(())
    });
}

/// More tokens than a chunk, and a front that ends before, at and behind its end.
#[test]
fn a_front_may_end_in_any_chunk() {
    let mut rng = rng(0x0a);
    let lengths = vec![3 * CHUNK_TOKENS + 7; 4];
    let shape = Shape {
        dtype: KvDtype::F16,
        block: 16,
        head_dim: 64,
        group: 3,
        lengths,
        softcap: None,
        contents: 0,
    };
    let world = world(&mut rng, &shape);
    let elements = 4 * 3 * 64;
    let queries = random_queries(&mut rng, elements, 3.0);
    let others = random_queries(&mut rng, elements, 3.0);
    let slots = world.slots();
    let args = call(&shape, &queries, &slots);
    let tokens = [4, CHUNK_TOKENS, CHUNK_TOKENS + 1, 2 * CHUNK_TOKENS + 100];
    let front = Front {
        queries: &others,
        tokens: &tokens,
    };
    let mut out = vec![0.0; elements];
    let workspace = &mut Workspace::default();
    attend_with_front_into(&world.store, &args, &front, workspace, &mut out).expect("sound");
    for (index, got) in out.chunks_exact(64).enumerate() {
        let Rows { keys, values } = &world.heads[index / 3].rows;
        let query = &queries[index * 64..(index + 1) * 64];
        let other = &others[index * 64..(index + 1) * 64];
        let front = (query, other, tokens[index / 3]);
        let want = oracle::attend_with_front(keys, values, front, args.scale, None);
        let error = relative_error(got, &want, values);
        assert!(error <= BOUND, "query {index}: relative error {error:e}");
    }
    let short = Front {
        queries: &others,
        tokens: &tokens[1..],
    };
    let refused = attend_with_front_into(&world.store, &args, &short, workspace, &mut out);
    let expected = KernelError::FrontLength {
        counts: 3,
        heads: 4,
    };
    assert_eq!(refused, Err(expected));
}
