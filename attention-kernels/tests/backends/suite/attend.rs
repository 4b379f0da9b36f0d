//! Decode attention against the oracle.

use attention_kernels::cuda::{HeadStep, StepTarget};
use attention_kernels::{KvDtype, oracle};
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::scene::step_of;
use super::{Ask, Backend, Decode, Scene};
use crate::world::{BOUND, DTYPES, Head, Rows, random_queries, relative_error, rng, stored};

pub(crate) const GROUPS: [usize; 8] = [1, 2, 3, 4, 5, 8, 9, 12];
const HEAD_DIMS: [usize; 7] = [64, 80, 96, 112, 128, 192, 256];
const BLOCKS: [usize; 3] = [8, 16, 32];

/// What the result's own type adds, for outputs that are no larger than the values.
fn unit(dtype: KvDtype) -> f64 {
    match dtype {
        KvDtype::F16 => 2_f64.powi(-11),
        KvDtype::Bf16 => 2_f64.powi(-8),
        _ => 0.0,
    }
}

/// `1 / sqrt(D)`.
pub(crate) fn usual_scale(head_dim: usize) -> f32 {
    (head_dim as f32).sqrt().recip()
}

/// Queries as a store's type holds them.
pub(crate) fn queries(
    rng: &mut ChaCha8Rng,
    elements: usize,
    magnitude: f32,
    dtype: KvDtype,
) -> Vec<f32> {
    let numbers = random_queries(rng, elements, magnitude);
    numbers
        .into_iter()
        .map(|number| stored(number, dtype))
        .collect()
}

/// Refuses results that are further from the oracle than it says, and returns the greatest score.
pub(crate) fn assert_follows(
    heads: &[Head],
    ask: &Ask<'_>,
    dtype: KvDtype,
    out: &[f32],
    when: &str,
) -> f64 {
    let head_dim = ask.queries.len() / (heads.len() * ask.group);
    let queries = ask.queries.chunks_exact(head_dim);
    let mut greatest = 0.0_f64;
    assert_eq!(ask.queries.len(), out.len());
    for (index, (query, got)) in queries.zip(out.chunks_exact(head_dim)).enumerate() {
        let head = &heads[index / ask.group];
        let Rows { keys, values } = &head.rows;
        let want = oracle::attend(keys, values, query, ask.scale, ask.softcap);
        let scores = oracle::scores(keys, query, ask.scale, ask.softcap);
        let highest = scores
            .iter()
            .fold(16.0, |most: f64, score| most.max(score.abs()));
        let bound = BOUND * highest / 16.0 + unit(dtype);
        let error = relative_error(got, &want, values);
        assert!(
            error <= bound,
            "{when}, query {index}, {} tokens: relative error {error:e}, bound {bound:e}",
            head.len
        );
        greatest = greatest.max(highest);
    }
    greatest
}

/// Nothing, a page and a chunk more or less, and several chunks.
fn lengths(block: usize) -> [usize; 9] {
    [0, 1, block - 1, block, block + 1, 255, 256, 257, 600]
}

/// Attends with random queries to the heads of a scene, and returns the greatest score, or 16.
pub(crate) fn follow<B: Backend>(
    backend: &B,
    rng: &mut ChaCha8Rng,
    scene: &Scene,
    group: usize,
    magnitude: f32,
    softcap: Option<f32>,
) -> f64 {
    let (head_dim, dtype) = (scene.layout.head_dim(), scene.dtype);
    let queries = queries(rng, scene.heads.len() * group * head_dim, magnitude, dtype);
    let ask = Ask {
        queries: &queries,
        group,
        scale: usual_scale(head_dim),
        softcap,
        row: None,
    };
    let step = Decode {
        layers: 1,
        heads: &scene.steps(),
        positions: &[(0, false)],
    };
    let mut store = scene.build(backend);
    let before = backend.contents(&store);
    let seen = backend.attend(&mut store, &step, 0, &ask);
    assert_eq!(seen.rows, None);
    let when = format!(
        "{dtype}, D {head_dim}, B {}, G {group}, {softcap:?}",
        scene.layout.block()
    );
    backend.contents(&store).assert_is(&before, &when);
    assert_follows(&scene.heads, &ask, dtype, &seen.out, &when)
}

/// Every element type with every `D`, and with them every `B` and `G`, in another combination each time.
pub(crate) fn any_shape_follows_the_oracle<B: Backend>(backend: &B) {
    let mut rng = rng(0x111);
    let mut groups = GROUPS;
    groups.shuffle(&mut *rng);
    let mut turn = 0;
    for dtype in DTYPES {
        for head_dim in HEAD_DIMS {
            let (group, block) = (groups[turn % 8], BLOCKS[(turn / 2) % 3]);
            let softcap = [None, Some(20.0), Some(0.5)][turn % 3];
            let mut lengths = lengths(block);
            lengths.shuffle(&mut *rng);
            let scene = Scene::random(&mut rng, (block, head_dim), dtype, &lengths);
            let greatest = follow(backend, &mut rng, &scene, group, 3.0, softcap);
            assert!(
                greatest <= 16.0,
                "scores up to {greatest} are outside the stated bound"
            );
            turn += 1;
        }
    }
}

/// Scores far beyond what `exp` takes, so that a chunk may weigh nothing beside another.
pub(crate) fn great_scores_lose_only_their_own_rounding<B: Backend>(backend: &B) {
    let mut rng = rng(0x112);
    for (dtype, group) in [(KvDtype::F32, 5), (KvDtype::F16, 2), (KvDtype::Bf16, 1)] {
        for magnitude in [60.0, 600.0] {
            let scene = Scene::random(&mut rng, (16, 64), dtype, &[300, 31, 700]);
            let greatest = follow(backend, &mut rng, &scene, group, magnitude, None);
            assert!(greatest > 40.0);
        }
    }
}

/// Three layers of two sequences in one step, each attended with queries of its own.
pub(crate) fn layers_share_a_step<B: Backend>(backend: &B) {
    let mut rng = rng(0x113);
    let (layers, per_layer, group, head_dim) = (3, 4, 2, 64);
    for dtype in DTYPES {
        let lengths = [9, 0, 40, 17, 300, 1, 2, 256, 5, 8, 12, 0];
        let scene = Scene::random(&mut rng, (8, head_dim), dtype, &lengths);
        let mut store = scene.build(backend);
        let heads: Vec<HeadStep<'_>> = scene.steps();
        let step = Decode {
            layers,
            heads: &heads,
            positions: &[(5, false), (9, true)],
        };
        for layer in [1, 2, 0] {
            let queries = queries(&mut rng, per_layer * group * head_dim, 3.0, dtype);
            let ask = Ask {
                queries: &queries,
                group,
                scale: usual_scale(head_dim),
                softcap: None,
                row: None,
            };
            let seen = backend.attend(&mut store, &step, layer, &ask);
            let heads = &scene.heads[layer * per_layer..][..per_layer];
            assert_follows(heads, &ask, dtype, &seen.out, &format!("layer {layer}"));
        }
    }
}

pub(crate) fn heads_without_tokens_are_zeros<B: Backend>(backend: &B) {
    let mut rng = rng(0x114);
    for dtype in DTYPES {
        for heads in [0, 3] {
            let scene = Scene::random(&mut rng, (16, 64), dtype, &vec![0; heads]);
            let mut store = scene.build(backend);
            let queries = queries(&mut rng, heads * 3 * 64, 3.0, dtype);
            let ask = Ask {
                queries: &queries,
                group: 3,
                scale: 0.125,
                softcap: None,
                row: None,
            };
            let step = Decode {
                layers: 1,
                heads: &scene.steps(),
                positions: &[(0, false)],
            };
            let seen = backend.attend(&mut store, &step, 0, &ask);
            assert_eq!(seen.out, vec![0.0; queries.len()]);
        }
    }
}

/// A NaN among the tokens of a head is that head's own trouble.
pub(crate) fn nan_stays_in_its_head<B: Backend>(backend: &B) {
    let mut rng = rng(0x115);
    let (head_dim, len) = (64, 290);
    for spoiled in [0, 17, 256, len - 1] {
        let mut scene = Scene::random(&mut rng, (16, head_dim), KvDtype::F32, &[len; 3]);
        scene.heads[1].rows.keys[spoiled * head_dim + 5] = f32::NAN;
        let mut store = scene.build(backend);
        let queries = queries(&mut rng, 3 * 2 * head_dim, 1.0, KvDtype::F32);
        let ask = Ask {
            queries: &queries,
            group: 2,
            scale: 0.125,
            softcap: None,
            row: None,
        };
        let heads: Vec<HeadStep<'_>> = scene
            .heads
            .iter()
            .map(|head| step_of(head, StepTarget::Nothing))
            .collect();
        let step = Decode {
            layers: 1,
            heads: &heads,
            positions: &[(0, false)],
        };
        let out = backend.attend(&mut store, &step, 0, &ask).out;
        let (before, rest) = out.split_at(2 * head_dim);
        let (spoilt, after) = rest.split_at(2 * head_dim);
        assert!(spoilt.iter().all(|number| !number.is_finite()));
        assert!(before.iter().chain(after).all(|number| number.is_finite()));
    }
}
