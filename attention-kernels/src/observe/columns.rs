//! From queries and keys to one row of columns per query head, block by block.

use std::ops::Range;

use kv_core::Reduce;
use rayon::prelude::*;

use super::prompt::PromptArgs;
use super::reduce::fold;
use crate::attend::SERIAL_WORK;
use crate::lanes::{TILE, dot_tile, exponentiate, highest};

/// Queries whose scores are kept at a time. Enough that a tile of keys is loaded once for many queries, few enough that the scores
/// against a few thousand tokens stay in the second-level cache.
pub const BLOCK_QUERIES: usize = 32;

/// Units of work per query head, where it has as many blocks. Each costs a row of columns.
pub const PARTS: usize = 4;

/// Whose attention is reduced, and to which tokens.
pub(super) struct Queries {
    /// The queries.
    pub(super) range: Range<usize>,
    /// The tokens: those in front of this one.
    pub(super) before: usize,
}

/// The attention of `queries` over their tokens, reduced over the queries: `[H * G, before]`.
pub(super) fn columns(
    prompt: &PromptArgs<'_>,
    heads: usize,
    queries: &Queries,
    reduce: Reduce,
) -> Vec<f64> {
    let (query_heads, before) = (heads * prompt.group, queries.before);
    if query_heads == 0 || before == 0 {
        return Vec::new();
    }
    let blocks = queries.range.len().div_ceil(BLOCK_QUERIES);
    let parts = blocks.min(PARTS);
    let mut columns = vec![0.0; query_heads * parts * before];

    let new_scores = || vec![0.0; BLOCK_QUERIES * queries.range.end];
    let fold_part = |scores: &mut Vec<f32>, (unit, columns): (usize, &mut [f64])| {
        for block in (unit % parts..blocks).step_by(parts) {
            let start = queries.range.start + block * BLOCK_QUERIES;
            let block = start..queries.range.end.min(start + BLOCK_QUERIES);
            score_block(prompt, unit / parts, block.clone(), scores);
            fold_block(prompt, block, reduce, scores, columns);
        }
    };
    let work = (query_heads * prompt.head_dim)
        .saturating_mul(queries.range.len())
        .saturating_mul(queries.range.end);
    if work < SERIAL_WORK {
        let mut scores = new_scores();
        let units = columns.chunks_exact_mut(before).enumerate();
        units.for_each(|unit| fold_part(&mut scores, unit));
    } else {
        let units = columns.par_chunks_exact_mut(before).enumerate();
        units.for_each_init(new_scores, fold_part);
    }
    let mut columns = join_parts(columns, parts, before, reduce);
    if reduce == Reduce::Mean {
        for columns in columns.chunks_exact_mut(before) {
            divide_by_viewers(columns, queries);
        }
    }
    columns
}

/// Dot products of a block of queries with all keys that its last query can see: `[queries, keys]`.
fn score_block(
    prompt: &PromptArgs<'_>,
    query_head: usize,
    block: Range<usize>,
    scores: &mut [f32],
) {
    let head_dim = prompt.head_dim;
    let keys = prompt.keys_of(query_head, 0..block.end);
    let queries = prompt.queries_of(query_head, block.clone());
    for (tile, keys) in keys.chunks(TILE * head_dim).enumerate() {
        let dots = tile * TILE..tile * TILE + keys.len() / head_dim;
        let scores = scores.chunks_exact_mut(block.end);
        for (scores, query) in scores.zip(queries.chunks_exact(head_dim)) {
            dot_tile(&mut scores[dots.clone()], keys, query);
        }
    }
}

/// Makes a softmax of what each query of the block can see, and folds it into the columns.
fn fold_block(
    prompt: &PromptArgs<'_>,
    block: Range<usize>,
    reduce: Reduce,
    scores: &mut [f32],
    columns: &mut [f64],
) {
    let (keys, scoring) = (block.end, prompt.scoring());
    for (query, scores) in block.zip(scores.chunks_exact_mut(keys)) {
        let weights = &mut scores[..=query];
        scoring.apply(weights);
        let highest = highest(weights);
        let share = exponentiate(weights, highest).recip();
        let weights = weights.iter().map(|weight| f64::from(weight * share));
        fold(reduce, columns, weights);
    }
}

/// The parts of each query head, first to last, in the place of the first.
fn join_parts(mut columns: Vec<f64>, parts: usize, before: usize, reduce: Reduce) -> Vec<f64> {
    if parts == 1 {
        return columns;
    }
    let heads = columns.chunks_exact_mut(parts * before);
    let heads = heads.map(|head| {
        let (first, others) = head.split_at_mut(before);
        for part in others.chunks_exact(before) {
            fold(reduce, first, part.iter().copied());
        }
        &*first
    });
    heads.collect::<Vec<_>>().concat()
}

/// Divides every column by the number of queries that can see its token.
fn divide_by_viewers(columns: &mut [f64], queries: &Queries) {
    let Range { start, end } = queries.range;
    for (token, column) in columns.iter_mut().enumerate() {
        *column /= (end - token.max(start)) as f64;
    }
}
