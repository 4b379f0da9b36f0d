//! What is run for each entry: small, and through everything that the entry does.

use attention_kernels::KvDtype;
use attention_kernels::cuda::{Emulated, RowWanted};
use kv_core::{Pool, Reduce, ReductionOrder};
use rand_chacha::ChaCha8Rng;

use crate::prompts::Shape;
use crate::suite::{Cuda, Scene, append, attend, keep, observe, rows, shift, write};

/// The element type of all scenarios.
const TYPE: KvDtype = KvDtype::F16;

type Device = Cuda<Emulated>;

/// What to run for an entry, and the entries that it needs beside it.
pub(super) struct Scenario {
    pub(super) entry: &'static str,
    pub(super) others: &'static [&'static str],
    pub(super) run: fn(&Device, &mut ChaCha8Rng),
}

fn attends(device: &Device, rng: &mut ChaCha8Rng, groups: &[usize]) {
    for (turn, &group) in groups.iter().enumerate() {
        // One to eight threads for an element, and two elements for a thread.
        let shapes = [
            (8, 64),
            (16, 80),
            (8, 136),
            (8, 16),
            (8, 24),
            (32, 40),
            (8, 32),
            (8, 256),
        ];
        for (block, head_dim) in shapes {
            let softcap = (head_dim == 80).then_some(2.0);
            let scene = Scene::random(rng, (block, head_dim), TYPE, &[9, 0, 260, 45, 77]);
            if head_dim == 136 {
                attend::follow(device, rng, &scene, group, 3.0, softcap);
                continue;
            }
            let row = RowWanted {
                reduce: [Reduce::Mean, Reduce::Sum, Reduce::Max][turn % 3],
                add_to_scores: head_dim != 80,
                returned: head_dim != 64,
            };
            rows::run(device, rng, &scene, group, softcap, row).check(&scene, row);
        }
    }
}

fn merges(device: &Device, rng: &mut ChaCha8Rng) {
    for reduce in [Reduce::Mean, Reduce::Sum, Reduce::Max] {
        for (add_to_scores, returned) in [(true, true), (false, true), (true, false)] {
            let scene = Scene::random(rng, (8, 24), TYPE, &[600, 0, 1]);
            let row = RowWanted {
                reduce,
                add_to_scores,
                returned,
            };
            rows::run(device, rng, &scene, 3, None, row).check(&scene, row);
        }
    }
}

fn observes(device: &Device, rng: &mut ChaCha8Rng) {
    let pools = [Pool::None, Pool::Average(5), Pool::Max(7), Pool::Average(1)];
    for (turn, (tokens, head_dim)) in [(70, 40), (130, 8), (33, 64), (67, 16)]
        .into_iter()
        .enumerate()
    {
        for order in [ReductionOrder::GroupThenPool, ReductionOrder::PoolThenGroup] {
            let mut shape = Shape {
                padding: turn,
                softcap: [None, Some(2.0)][turn % 2],
                ..observe::shape((1 + turn % 2, 1 + turn), head_dim, tokens)
            };
            let reduces = [Reduce::Mean, Reduce::Sum, Reduce::Max];
            shape.reduction.queries = reduces[turn % 3];
            shape.reduction.group = reduces[(turn + 1) % 3];
            shape.reduction.pool = pools[turn];
            shape.reduction.order = order;
            let prompt = observe::prompt(rng, &shape, TYPE);
            observe::follow(device, &prompt, TYPE, [None, Some(9)][turn % 2]);
        }
    }
}

const ATTENDED: &[&str] = &["kv_write_f16", "kv_merge_f16"];

pub(super) const SCENARIOS: [Scenario; 14] = [
    Scenario {
        entry: "kv_attend_g1_f16",
        others: ATTENDED,
        run: |device, rng| attends(device, rng, &[1]),
    },
    Scenario {
        entry: "kv_attend_g4_f16",
        others: ATTENDED,
        run: |device, rng| attends(device, rng, &[2, 3, 4]),
    },
    Scenario {
        entry: "kv_attend_g8_f16",
        others: ATTENDED,
        run: |device, rng| attends(device, rng, &[5, 12]),
    },
    Scenario {
        entry: "kv_merge_f16",
        others: &["kv_write_f16", "kv_attend_g4_f16"],
        run: merges,
    },
    Scenario {
        entry: "kv_write_f16",
        others: &[],
        run: |device, rng| {
            write::filled(device, rng, TYPE, (24, 16));
            write::filled(device, rng, TYPE, (64, 8));
        },
    },
    Scenario {
        entry: "kv_copy_f16",
        others: &["kv_write_f16"],
        run: |device, rng| {
            write::copies(device, rng, TYPE, (40, 16));
            write::copies(device, rng, TYPE, (24, 8));
        },
    },
    Scenario {
        entry: "kv_shift_f16",
        others: &["kv_write_f16"],
        run: |device, rng| {
            // One to four pairs for a thread, and more.
            for rotary_dim in [16, 128, 160, 192, 256] {
                shift::follow(device, rng, TYPE, (256, rotary_dim));
            }
        },
    },
    Scenario {
        entry: "kv_append_f16",
        others: &["kv_write_f16"],
        run: |device, rng| {
            append::follow(device, rng, TYPE, 20);
            for len in [30, 200] {
                append::lowest_of(device, rng, TYPE, len);
            }
        },
    },
    Scenario {
        entry: "kv_weigh_queries_f16",
        others: &["kv_fold_queries_f16", "kv_reduce_heads"],
        run: observes,
    },
    Scenario {
        entry: "kv_fold_queries_f16",
        others: &["kv_weigh_queries_f16", "kv_reduce_heads"],
        run: observes,
    },
    Scenario {
        entry: "kv_reduce_heads",
        others: &["kv_weigh_queries_f16", "kv_fold_queries_f16"],
        run: observes,
    },
    Scenario {
        entry: "kv_key_norms_f16",
        others: &[],
        run: |device, rng| {
            for (head_dim, tokens) in [(8, 9), (80, 5)] {
                let shape = observe::shape((2, 1), head_dim, tokens);
                observe::norms(device, &observe::prompt(rng, &shape, TYPE), TYPE);
            }
        },
    },
    Scenario {
        entry: "kv_keep",
        others: &["kv_across_heads"],
        run: |device, rng| {
            keep::together(device, rng, 2);
            keep::narrowed(device, rng, 3);
        },
    },
    Scenario {
        entry: "kv_across_heads",
        others: &["kv_keep"],
        run: |device, rng| keep::across(device, rng, 4),
    },
];
