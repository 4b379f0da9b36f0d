//! What the bits of an observation depend on, and what they do not.

use attention_kernels::{AttendArgs, PageLayout, attend, attend_observed};
use kv_core::{Pool, Reduce, Reduction};

use crate::prompts::{Prompt, Shape};
use crate::world::{DTYPES, Rows, World, bits, on_threads, random_queries, rng};

fn shape(heads: usize, tokens: usize) -> Shape {
    Shape {
        heads,
        group: 2,
        head_dim: 20,
        tokens,
        padding: 3,
        softcap: None,
        window: 40,
        reduction: Reduction {
            pool: Pool::Average(5),
            ..Reduction::MEAN
        },
        contents: 0,
    }
}

fn both(prompt: &Prompt) -> [Vec<u32>; 2] {
    [bits(&prompt.window()), bits(&prompt.accumulated())]
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let mut rng = rng(0x41);
    let prompt = Prompt::random(&mut rng, &shape(3, 300), 3.0);
    let results = on_threads(|| both(&prompt));
    assert!(results.iter().all(|result| result == &results[0]));
}

/// A head alone is too little work for several threads here, all heads are enough.
#[test]
fn a_head_alone_is_the_head_among_others() {
    let mut rng = rng(0x42);
    let tokens = 70;
    let prompt = Prompt::random(&mut rng, &shape(3, tokens), 3.0);
    let together = both(&prompt);
    for head in 0..3 {
        let mut alone = prompt.clone();
        let per_head = prompt.per_head();
        alone.keys = prompt.keys[head * per_head..][..per_head].to_vec();
        alone.queries = prompt.queries[head * 2 * per_head..][..2 * per_head].to_vec();
        let alone = both(&alone);
        for (alone, together) in alone.iter().zip(&together) {
            assert_eq!(alone, &together[head * tokens..][..tokens], "head {head}");
        }
    }
}

#[test]
fn padding_does_not_matter() {
    let mut rng = rng(0x43);
    let padded = Prompt::random(&mut rng, &shape(2, 50), 3.0);
    let mut plain = padded.clone();
    let (per_head, used) = (padded.per_head(), 50 * 20);
    let strip = |rows: &[f32]| -> Vec<f32> {
        let heads = rows.chunks_exact(per_head);
        heads.flat_map(|head| &head[..used]).copied().collect()
    };
    plain.queries = strip(&padded.queries);
    plain.keys = strip(&padded.keys);
    plain.shape.padding = 0;
    assert_eq!(both(&padded), both(&plain));
}

/// Watching a step changes nothing about it, on any number of threads.
#[test]
fn a_watched_step_is_the_step() {
    let mut rng = rng(0x44);
    let (head_dim, group) = (72, 2);
    for dtype in DTYPES {
        let lengths = [5, 513, 0, 1124, 512, 17];
        let rows: Vec<Rows> = lengths
            .iter()
            .map(|&len| Rows::random(&mut rng, len, head_dim, dtype))
            .collect();
        let layout = PageLayout::new(16, head_dim).expect("a layout");
        let world = World::new(&mut rng, layout, dtype, &rows);
        let queries = random_queries(&mut rng, lengths.len() * group * head_dim, 3.0);
        let slots = world.slots();
        let args = AttendArgs {
            queries: &queries,
            heads: &slots,
            group,
            scale: 0.11,
            softcap: None,
        };
        let unwatched = bits(&attend(&world.store, &args).expect("a sound call"));
        for reduce in [Reduce::Mean, Reduce::Sum, Reduce::Max] {
            let seen = on_threads(|| {
                let seen = attend_observed(&world.store, &args, reduce).expect("a sound call");
                (bits(&seen.out), bits(&seen.rows))
            });
            assert!(seen.iter().all(|(out, _)| out == &unwatched), "{dtype}");
            assert!(seen.iter().all(|(_, rows)| rows == &seen[0].1), "{dtype}");
        }
    }
}
