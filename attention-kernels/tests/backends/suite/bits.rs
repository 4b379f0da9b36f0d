//! What the bits of a result depend on.

use attention_kernels::cuda::{HeadStep, RowWanted, StepTarget};
use attention_kernels::{CopyRow, KvDtype, RopeStyle, RowShift, ShiftArgs};
use kv_core::{KeepPlan, Observation, Pins, Pool, Reduce, Reduction, ReductionOrder};
use rand_chacha::ChaCha8Rng;

use super::attend::queries;
use super::scene::step_of;
use super::{Ask, Backend, Decode, NewTokens, Scene};
use crate::world::{Head, bits, rng};

const HEAD_DIM: usize = 64;

/// One call of every op, every result of which is noted, the same for the same generator.
pub(crate) fn everything<B: Backend>(backend: &B, rng: &mut ChaCha8Rng) -> Vec<u32> {
    let mut noted = Vec::new();
    for dtype in [KvDtype::F32, KvDtype::Bf16] {
        decoding(backend, rng, dtype, &mut noted);
        prompt(backend, rng, dtype, &mut noted);
    }
    noted
}

fn decoding<B: Backend>(backend: &B, rng: &mut ChaCha8Rng, dtype: KvDtype, noted: &mut Vec<u32>) {
    let scene = Scene::random(rng, (8, HEAD_DIM), dtype, &[300, 33, 7]);
    let mut store = scene.build(backend);
    let target = StepTarget::Lowest { recent: 3 };
    let heads: Vec<HeadStep<'_>> = scene
        .heads
        .iter()
        .map(|head| step_of(head, target))
        .collect();
    let step = Decode {
        layers: 1,
        heads: &heads,
        positions: &[(900, false)],
    };
    let rows = queries(rng, 2 * 3 * HEAD_DIM, 1.0, dtype);
    let (keys, values) = rows.split_at(3 * HEAD_DIM);
    backend.append(&mut store, &step, 0, NewTokens { keys, values }, (0, 1));
    let queries = queries(rng, 3 * 5 * HEAD_DIM, 3.0, dtype);
    let ask = Ask {
        queries: &queries,
        group: 5,
        scale: 0.125,
        softcap: Some(9.0),
        row: Some(RowWanted {
            reduce: Reduce::Mean,
            add_to_scores: true,
            returned: true,
        }),
    };
    let seen = backend.attend(&mut store, &step, 0, &ask);
    noted.extend(bits(&seen.out));
    noted.extend(seen.rows.iter().flatten().flat_map(|row| bits(row)));
    let page = scene.heads[0].pages[0];
    let by = |offset, by| RowShift { page, offset, by };
    let args = ShiftArgs {
        rows: &[by(0, 1), by(3, -1)],
        cos: &[0.9; 4],
        sin: &[0.2; 4],
        rotary_dim: 4,
        style: RopeStyle::Halves,
    };
    backend.shift(&mut store, &args);
    let copy = |from_offset, to_offset| CopyRow {
        from_page: page,
        from_offset,
        to_page: page,
        to_offset,
    };
    backend.copy_rows(&mut store, &[copy(0, 1), copy(3, 2), copy(1, 4)]);
    let record = backend.contents(&store);
    for numbers in [&record.keys, &record.values, &record.scores] {
        noted.extend(bits(numbers));
    }
    noted.extend(record.positions);
}

fn prompt<B: Backend>(backend: &B, rng: &mut ChaCha8Rng, dtype: KvDtype, noted: &mut Vec<u32>) {
    let (heads, group, tokens, head_dim) = (2, 2, 70, 16);
    let reduction = Reduction {
        queries: Reduce::Sum,
        group: Reduce::Mean,
        pool: Pool::Average(5),
        order: ReductionOrder::PoolThenGroup,
        shared: false,
    };
    let queries_of = queries(rng, heads * group * tokens * head_dim, 3.0, dtype);
    let keys = queries(rng, heads * tokens * head_dim, 1.0, dtype);
    let prompt = attention_kernels::PromptArgs {
        queries: &queries_of,
        keys: &keys,
        rows: tokens,
        tokens,
        group,
        head_dim,
        scale: 0.25,
        softcap: None,
    };
    for observation in [
        Observation::Accumulated,
        Observation::Window { queries: 8 },
        Observation::KeyNorms,
    ] {
        let scores = backend
            .observe(observation, reduction, &prompt, dtype)
            .expect("asked for");
        noted.extend(bits(&scores));
        let mut plan = KeepPlan::all(heads);
        plan.top_across_heads(80, 4, 5);
        plan.top(1, 30, 3);
        plan.window(0, 9, 50);
        let pins = Pins::new(std::iter::once(11..13));
        for kept in backend.keep(&plan, &pins, tokens, Some(&scores)) {
            noted.extend(kept);
        }
    }
}

pub(crate) fn the_same_call_gives_the_same_bits<B: Backend>(backend: &B) {
    let rng = rng(0x171);
    let first = everything(backend, &mut rng.clone());
    assert!(first.len() > 1000);
    assert_eq!(everything(backend, &mut rng.clone()), first);
}

/// A head alone, and the same among others, in pages of another size and in other places.
pub(crate) fn company_changes_no_bit<B: Backend>(backend: &B) {
    let mut rng = rng(0x172);
    for (dtype, group) in [(KvDtype::F32, 1), (KvDtype::F16, 3), (KvDtype::Bf16, 8)] {
        let company = Scene::random(&mut rng, (8, HEAD_DIM), dtype, &[5, 270, 900, 31]);
        let queries = queries(&mut rng, 4 * group * HEAD_DIM, 3.0, dtype);
        let together = rows_of(backend, &company, &queries, group);
        for (index, head) in company.heads.iter().enumerate() {
            let rows = vec![head.rows.clone()];
            let alone = Scene::of(&mut rng, (32, HEAD_DIM), dtype, rows);
            let queries = &queries[index * group * HEAD_DIM..][..group * HEAD_DIM];
            let alone = rows_of(backend, &alone, queries, group);
            assert_eq!(alone[0], together[index], "{dtype}, head {index}");
        }
    }
}

/// Result and row of every head.
fn rows_of<B: Backend>(
    backend: &B,
    scene: &Scene,
    queries: &[f32],
    group: usize,
) -> Vec<[Vec<u32>; 2]> {
    let mut store = scene.build(backend);
    let ask = Ask {
        queries,
        group,
        scale: 0.125,
        softcap: None,
        row: Some(RowWanted {
            reduce: Reduce::Max,
            add_to_scores: false,
            returned: true,
        }),
    };
    let step = Decode {
        layers: 1,
        heads: &scene.steps(),
        positions: &[(0, false)],
    };
    let seen = backend.attend(&mut store, &step, 0, &ask);
    let out = seen.out.chunks_exact(group * HEAD_DIM);
    let rows = seen.rows.expect("asked for");
    let results = out
        .zip(&rows)
        .map(|(out, row)| [bits(out), bits(row)])
        .collect();
    let lens: Vec<usize> = scene.heads.iter().map(|head: &Head| head.len).collect();
    assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), lens);
    results
}
