//! What the bits of a result depend on, and what they do not.

use attention_kernels::attend::CHUNK_TOKENS;
use attention_kernels::{AttendArgs, HeadSlots, PageLayout, attend};

use crate::world::{DTYPES, Rows, World, bits, random_queries, rng};

const HEAD_DIM: usize = 72;
const GROUP: usize = 2;

/// `[sequence][head]`: tokens held. Ragged, some in one chunk and some in several, enough work to be shared between threads.
const LENGTHS: [[usize; 2]; 4] = [
    [5, CHUNK_TOKENS + 1],
    [2 * CHUNK_TOKENS + 100, 0],
    [CHUNK_TOKENS, 2 * CHUNK_TOKENS - 3],
    [17, 16],
];

fn rows(rng: &mut rand_chacha::ChaCha8Rng, dtype: attention_kernels::KvDtype) -> Vec<Rows> {
    let lengths = LENGTHS.iter().flatten();
    lengths
        .map(|&len| Rows::random(rng, len, HEAD_DIM, dtype))
        .collect()
}

fn args<'a>(queries: &'a [f32], heads: &'a [HeadSlots<'a>]) -> AttendArgs<'a> {
    AttendArgs {
        queries,
        heads,
        group: GROUP,
        scale: 0.11,
        softcap: None,
    }
}

#[test]
fn a_sequence_alone_is_the_sequence_in_a_batch() {
    let mut rng = rng(0x11);
    let layout = PageLayout::new(16, HEAD_DIM).expect("a layout");
    let per_head = GROUP * HEAD_DIM;
    for dtype in DTYPES {
        let rows = rows(&mut rng, dtype);
        let world = World::new(&mut rng, layout, dtype, &rows);
        let queries = random_queries(&mut rng, rows.len() * per_head, 3.0);
        let slots = world.slots();
        let batch = attend(&world.store, &args(&queries, &slots)).expect("a sound call");
        // A head alone, a sequence alone, parts of two sequences: in any surroundings.
        for start in 0..slots.len() {
            for end in start + 1..=slots.len().min(start + 3) {
                let elements = start * per_head..end * per_head;
                let args = args(&queries[elements.clone()], &slots[start..end]);
                let part = attend(&world.store, &args).expect("a sound call");
                assert_eq!(
                    bits(&part),
                    bits(&batch[elements]),
                    "{dtype}: heads {start}..{end}"
                );
            }
        }
        // And in reverse order.
        let backwards: Vec<HeadSlots<'_>> = slots.iter().copied().rev().collect();
        let heads = queries.chunks_exact(per_head).rev();
        let back_queries: Vec<f32> = heads.flatten().copied().collect();
        let out = attend(&world.store, &args(&back_queries, &backwards)).expect("a sound call");
        let forwards: Vec<f32> = out
            .chunks_exact(per_head)
            .rev()
            .flatten()
            .copied()
            .collect();
        assert_eq!(bits(&forwards), bits(&batch));
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let mut rng = rng(0x12);
    let layout = PageLayout::new(16, HEAD_DIM).expect("a layout");
    for dtype in DTYPES {
        let rows = rows(&mut rng, dtype);
        let world = World::new(&mut rng, layout, dtype, &rows);
        let queries = random_queries(&mut rng, rows.len() * GROUP * HEAD_DIM, 3.0);
        let slots = world.slots();
        let outs: Vec<_> = [1, 2, 3]
            .into_iter()
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let pool = pool.build().expect("a thread pool");
                let run = || attend(&world.store, &args(&queries, &slots)).expect("a sound call");
                // More than once, since threads meet the work in another order every time.
                (0..3).map(|_| bits(&pool.install(run))).collect::<Vec<_>>()
            })
            .collect();
        let first = &outs[0][0];
        assert!(outs.iter().flatten().all(|out| out == first), "{dtype}");
    }
}

/// The same rows in the same slots: other pages, other page sizes, other neighbours, same bits.
#[test]
fn pages_do_not_matter() {
    let mut rng = rng(0x13);
    for dtype in DTYPES {
        let rows = rows(&mut rng, dtype);
        let queries = random_queries(&mut rng, rows.len() * GROUP * HEAD_DIM, 3.0);
        let mut first = None;
        for block in [1, 16, 16, 37, 5000] {
            let layout = PageLayout::new(block, HEAD_DIM).expect("a layout");
            let world = World::new(&mut rng, layout, dtype, &rows);
            let slots = world.slots();
            let out = attend(&world.store, &args(&queries, &slots)).expect("a sound call");
            let out = bits(&out);
            assert_eq!(
                first.get_or_insert_with(|| out.clone()),
                &out,
                "{dtype}, B {block}"
            );
        }
    }
}

/// Query heads of a group share rows, not roundings.
#[test]
fn a_query_alone_is_the_query_in_a_group() {
    let mut rng = rng(0x14);
    let layout = PageLayout::new(16, HEAD_DIM).expect("a layout");
    for dtype in DTYPES {
        let rows = Rows::random(&mut rng, CHUNK_TOKENS + 9, HEAD_DIM, dtype);
        let world = World::new(&mut rng, layout, dtype, &[rows]);
        let queries = random_queries(&mut rng, GROUP * HEAD_DIM, 3.0);
        let slots = world.slots();
        let together = attend(&world.store, &args(&queries, &slots)).expect("a sound call");
        let alone = queries.chunks_exact(HEAD_DIM).flat_map(|query| {
            let args = AttendArgs {
                group: 1,
                ..args(query, &slots)
            };
            attend(&world.store, &args).expect("a sound call")
        });
        assert_eq!(bits(&alone.collect::<Vec<_>>()), bits(&together));
    }
}
