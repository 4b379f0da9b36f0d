//! What is planted where, and what of it is harmless.

use super::Kind;

/// Faults of a kind in an entry, by number, that nothing can show, and why.
pub(super) struct Harmless {
    pub(super) kind: Kind,
    pub(super) entry: &'static str,
    pub(super) faults: &'static [usize],
    pub(super) why: &'static str,
}

pub(super) const HARMLESS: [Harmless; 9] = [
    Harmless {
        kind: Kind::Barrier,
        entry: "kv_attend_g1_f16",
        faults: &[9],
        why: "keeps the end of a tile of queries from the next one, and the host gives this entry one tile",
    },
    Harmless {
        kind: Kind::Barrier,
        entry: "kv_attend_g4_f16",
        faults: &[5],
        why: "as in `kv_attend_g1`",
    },
    Harmless {
        kind: Kind::Store,
        entry: "kv_attend_g1_f16",
        faults: &[9, 10, 11],
        why: "of the last part, among turns unrolled by four, where it is never one of the first three",
    },
    Harmless {
        kind: Kind::Store,
        entry: "kv_attend_g4_f16",
        faults: &[11, 12, 13, 14],
        why: "of the last part, among turns unrolled by two, where it is never the first",
    },
    Harmless {
        kind: Kind::Store,
        entry: "kv_merge_f16",
        faults: &[4, 5],
        why: "the row of a group of no query heads, which the host refuses",
    },
    Harmless {
        kind: Kind::Stride,
        entry: "kv_attend_g8_f16",
        faults: &[2],
        why: "end of the queries' tile: more zeros, all in shared memory that is written again before it is read",
    },
    Harmless {
        kind: Kind::Stride,
        entry: "kv_shift_f16",
        faults: &[12],
        why: "a step to pairs from 128 on, which no key has",
    },
    Harmless {
        kind: Kind::Stride,
        entry: "kv_weigh_queries_f16",
        faults: &[3, 4, 5, 6, 7, 8, 17, 18, 19, 20, 21, 22],
        why: "what an unrolled loop leaves over, of tiles that are a multiple of what it takes",
    },
    Harmless {
        kind: Kind::Stride,
        entry: "kv_keep",
        faults: &[3, 11, 21],
        why: "a step to buckets from 256 on, and what is left over of eight warps by loops unrolled by four",
    },
];

/// The entries whose strides are changed.
pub(super) const STRIDES: [&str; 9] = [
    "kv_attend_g8_f16",
    "kv_write_f16",
    "kv_copy_f16",
    "kv_shift_f16",
    "kv_append_f16",
    "kv_weigh_queries_f16",
    "kv_key_norms_f16",
    "kv_keep",
    "kv_across_heads",
];

/// The entries whose limits are changed, and which of them. Of the others many guard what lies beyond an end and is never used.
pub(super) const BOUNDS: [(&str, &[usize]); 7] = [
    ("kv_write_f16", &[0, 1, 2]),
    ("kv_copy_f16", &[0, 1, 2]),
    ("kv_shift_f16", &[0, 1, 2, 3, 4, 5]),
    ("kv_key_norms_f16", &[0, 1, 2]),
    (
        "kv_attend_g8_f16",
        &[5, 6, 8, 10, 12, 29, 33, 36, 37, 40, 41],
    ),
    ("kv_weigh_queries_f16", &[7, 8, 19, 20, 23, 25, 26, 27]),
    ("kv_keep", &[0, 2, 14, 15, 20, 21, 25, 26, 30, 32, 33]),
];
