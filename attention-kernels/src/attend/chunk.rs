//! Attention of one group of queries over one chunk of a head's tokens, and putting chunks together.

use std::ops::Range;

use super::CHUNK_TOKENS;
use crate::lanes::{TILE, add_rows, dot_tile, exp_at_most_0, exponentiate, highest};
use crate::scoring::Scoring;
use crate::{Element, PageLayout};

/// What one unit of work reads.
pub(super) struct Chunk<'a> {
    pub(super) layout: PageLayout,
    /// Pages of the head, from its first token on.
    pub(super) pages: &'a [u32],
    /// Slots of the head, at most [`CHUNK_TOKENS`] and at least one.
    pub(super) tokens: Range<usize>,
    /// `[G, D]`.
    pub(super) queries: &'a [f32],
    pub(super) scoring: Scoring,
}

/// Working memory of a thread, used for one chunk after the other.
pub(super) struct Scratch {
    /// `[G, CHUNK_TOKENS]`: scores, then weights.
    scores: Vec<f32>,
    /// `[TILE, D]`: rows that had to be widened.
    rows: Vec<f32>,
}

impl Scratch {
    pub(super) fn new(group: usize, head_dim: usize) -> Self {
        Self {
            scores: vec![0.0; group * CHUNK_TOKENS],
            rows: vec![0.0; TILE * head_dim],
        }
    }
}

/// What a chunk leaves: for every query of the group a softmax that is not divided yet, relative to the chunk's own highest score.
pub(super) struct Partial<'a> {
    /// `[G, D]`: `sum_t exp(s_t - highest) * v_t`. Zero at first.
    pub(super) sums: &'a mut [f32],
    /// `[G]`.
    pub(super) totals: &'a mut [Total],
    /// `[G, tokens]` for the weights `exp(s_t - highest)` themselves, or empty where nobody asked for them.
    pub(super) weights: &'a mut [f32],
}

/// The weight of a chunk for one query.
#[derive(Clone, Copy, Default)]
pub(super) struct Total {
    /// The highest `s_t`.
    pub(super) highest: f32,
    /// `sum_t exp(s_t - highest)`.
    pub(super) weight: f32,
}

impl Total {
    /// The factor that brings the chunk's weights to `highest` instead of its own highest score.
    pub(super) fn rescale(&self, highest: f32) -> f32 {
        exp_at_most_0(self.highest - highest)
    }
}

/// Fills `partial`. Every K row and every V row of the chunk is loaded once, for all queries of the group.
///
/// The chunk goes through all its scores before the first value. Against rescaling the sums whenever a new highest score turns up,
/// this takes one `exp` per score and no branch per token, for the price of `G * CHUNK_TOKENS` scores kept in cache.
pub(super) fn attend_chunk<E: Element>(
    memory: &[E],
    chunk: &Chunk<'_>,
    scratch: &mut Scratch,
    partial: Partial<'_>,
) {
    let layout = chunk.layout;
    let head_dim = layout.head_dim();
    let Partial {
        sums,
        totals,
        weights: kept,
    } = partial;
    let Scratch { scores, rows } = scratch;

    for tile in tiles(chunk) {
        let keys = layout.key_rows(tile.page, tile.offset, tile.rows);
        let keys = E::as_f32(&memory[keys], rows);
        let queries = chunk.queries.chunks_exact(head_dim);
        for (scores, query) in scores.chunks_exact_mut(CHUNK_TOKENS).zip(queries) {
            dot_tile(&mut scores[tile.at..tile.at + tile.rows], keys, query);
        }
    }

    let len = chunk.tokens.len();
    for (scores, total) in scores.chunks_exact_mut(CHUNK_TOKENS).zip(totals) {
        let scores = &mut scores[..len];
        chunk.scoring.apply(scores);
        total.highest = highest(scores);
        total.weight = exponentiate(scores, total.highest);
    }
    let weights = scores.chunks_exact(CHUNK_TOKENS);
    for (kept, weights) in kept.chunks_exact_mut(len).zip(weights) {
        kept.copy_from_slice(&weights[..len]);
    }

    for tile in tiles(chunk) {
        let values = layout.value_rows(tile.page, tile.offset, tile.rows);
        let values = E::as_f32(&memory[values], rows);
        let sums = sums.chunks_exact_mut(head_dim);
        for (sums, weights) in sums.zip(scores.chunks_exact(CHUNK_TOKENS)) {
            let weights = &weights[tile.at..tile.at + tile.rows];
            if let Ok(&weights) = <&[f32; TILE]>::try_from(weights) {
                add_rows(sums, values, weights);
            } else {
                for (&weight, value) in weights.iter().zip(values.chunks_exact(head_dim)) {
                    add_rows(sums, value, [weight]);
                }
            }
        }
    }
}

/// Up to [`TILE`] tokens that follow each other in one page.
struct Tile {
    page: u32,
    offset: usize,
    rows: usize,
    /// The first of the tokens, counted from the start of the chunk.
    at: usize,
}

/// The chunk's tokens in slot order. How they fall into tiles depends on where pages end; no result does.
fn tiles(chunk: &Chunk<'_>) -> impl Iterator<Item = Tile> {
    let block = chunk.layout.block();
    let tokens = chunk.tokens.clone();
    let mut next = tokens.start;
    std::iter::from_fn(move || {
        if next >= tokens.end {
            return None;
        }
        let offset = next % block;
        let tile = Tile {
            page: chunk.pages[next / block],
            offset,
            rows: TILE.min(block - offset).min(tokens.end - next),
            at: next - tokens.start,
        };
        next += tile.rows;
        Some(tile)
    })
}

/// The weight of all chunks of a head for one query: their highest score, and the sum of their weights relative to it, first chunk
/// to last.
pub(super) fn weigh<'a>(totals: impl Iterator<Item = &'a Total> + Clone) -> Total {
    let highest = totals.clone().map(|total| total.highest);
    let highest = highest.fold(f32::NEG_INFINITY, f32::max);
    let weights = totals.map(|total| total.rescale(highest) * total.weight);
    Total {
        highest,
        weight: weights.fold(0.0, |sum, weight| sum + weight),
    }
}

/// Puts the chunks of one head together, first to last, into `out` (`[G, D]`): every chunk is scaled to the highest score of all, and
/// the sum divided by the sum of the weights. No chunk gives zeros.
///
/// `sums` is `[chunks, G, D]`, `totals` is `[chunks, G]`.
pub(super) fn merge_chunks(sums: &[f32], totals: &[Total], group: usize, out: &mut [f32]) {
    let per_head = out.len();
    out.fill(0.0);
    for (query, out) in out.chunks_exact_mut(per_head / group).enumerate() {
        let totals = totals.iter().skip(query).step_by(group);
        let Total { highest, weight } = weigh(totals.clone());
        for (sums, total) in sums.chunks_exact(per_head).zip(totals) {
            let sums = &sums[query * out.len()..][..out.len()];
            add_rows(out, sums, [total.rescale(highest)]);
        }
        if !sums.is_empty() {
            for out in out {
                *out /= weight;
            }
        }
    }
}
