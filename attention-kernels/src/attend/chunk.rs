//! Attention of one group of queries over one chunk of a head's tokens, and putting chunks together.

use std::ops::Range;

use super::CHUNK_TOKENS;
use crate::scoring::Scoring;
use crate::simd::{
    Op, Rows, Scores, Simd, Weights, add_rows, dispatch, exponentiate, highest, rescale, scale,
    score_rows,
};
use crate::{Element, PageLayout};

/// What one unit of work reads.
pub(super) struct Chunk<'a, E> {
    /// All pages of the store.
    pub(super) memory: &'a [E],
    pub(super) layout: PageLayout,
    /// Pages of the head, from its first token on.
    pub(super) pages: &'a [u32],
    /// Slots of the head, at most [`CHUNK_TOKENS`] and at least one.
    pub(super) tokens: Range<usize>,
    /// `[G, D]`.
    pub(super) queries: &'a [f32],
    pub(super) scoring: Scoring,
}

/// What a chunk leaves: for every query of the group a softmax that is not divided yet, relative to the chunk's own highest score.
pub(super) struct Partial<'a> {
    /// `[G, D]`: `sum_t exp(s_t - highest) * v_t`.
    pub(super) sums: &'a mut [f32],
    /// `[G]`.
    pub(super) totals: &'a mut [Total],
}

/// The weight of a chunk for one query.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Total {
    /// The highest `s_t`.
    pub(super) highest: f32,
    /// `sum_t exp(s_t - highest)`.
    pub(super) weight: f32,
}

impl Total {
    const NONE: Self = Self {
        highest: f32::NEG_INFINITY,
        weight: 0.0,
    };

    /// Takes the highest of some new scores into account: where it is higher than all before, what there is becomes relative to it.
    #[inline(always)]
    fn raise<S: Simd>(&mut self, simd: S, new: &[f32], weights: &mut [f32], sums: &mut [f32]) {
        let raised = highest(simd, new).max(self.highest);
        if raised > self.highest && self.weight > 0.0 {
            let factor = self.rescale(simd, raised);
            scale(simd, weights, factor);
            scale(simd, sums, factor);
            self.weight *= factor;
        }
        self.highest = raised;
    }

    /// The factor that brings the chunk's weights to `highest` instead of its own highest score.
    #[inline(always)]
    pub(super) fn rescale<S: Simd>(&self, simd: S, highest: f32) -> f32 {
        rescale(simd, self.highest, highest)
    }
}

/// Tokens of a chunk whose values are added before the keys of the next are scored. Memory is read without a pause where both follow
/// each other closely, and what is asked for ahead of time is still near when it is needed.
const STRIDE_TOKENS: usize = 128;

/// Fills `partial`, and leaves the weights `exp(s_t - highest)` in `scores` (`[G, CHUNK_TOKENS]`). Every K row and every V row of the
/// chunk is loaded once, for all queries of the group, while the pages after it are on their way.
pub(super) fn attend_chunk<E: Element>(
    chunk: &Chunk<'_, E>,
    scores: &mut [f32],
    partial: Partial<'_>,
) {
    dispatch(AttendChunk {
        chunk,
        scores,
        partial,
    });
}

struct AttendChunk<'a, 'b, E> {
    chunk: &'a Chunk<'a, E>,
    scores: &'a mut [f32],
    partial: Partial<'b>,
}

impl<E: Element> Op for AttendChunk<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            chunk,
            scores,
            partial: Partial { sums, totals },
        } = self;
        let head_dim = chunk.layout.head_dim();
        sums.fill(0.0);
        totals.fill(Total::NONE);
        let len = chunk.tokens.len();
        let mut at = 0;
        while at < len {
            let end = len.min(at + STRIDE_TOKENS);
            for tile in Tiles::of(chunk, at..end) {
                let mut scores = Scores {
                    scores: &mut *scores,
                    stride: CHUNK_TOKENS,
                    at: tile.at,
                };
                let keys = chunk.rows(&tile, PageLayout::key_rows);
                score_rows(simd, keys, chunk.queries, head_dim, &mut scores);
            }
            let of_query = scores.chunks_exact_mut(CHUNK_TOKENS).zip(&mut *totals);
            for ((scores, total), sums) in of_query.zip(sums.chunks_exact_mut(head_dim)) {
                let (before, scores) = scores[..end].split_at_mut(at);
                chunk.scoring.apply(simd, scores);
                total.raise(simd, scores, before, sums);
                total.weight += exponentiate(simd, scores, total.highest);
            }
            for tile in Tiles::of(chunk, at..end) {
                let weights = Weights {
                    weights: scores,
                    stride: CHUNK_TOKENS,
                    at: tile.at,
                };
                let values = chunk.rows(&tile, PageLayout::value_rows);
                add_rows(simd, values, weights, sums, head_dim);
            }
            at = end;
        }
    }
}

/// Bytes of keys, and of values, between what is worked on and what is asked for: what a core reads while the memory answers.
const AHEAD_BYTES: usize = 8 << 10;

/// Where the rows of a tile lie: [`PageLayout::key_rows`] or [`PageLayout::value_rows`].
type RowsOf = fn(&PageLayout, u32, usize, usize) -> Range<usize>;

impl<E: Element> Chunk<'_, E> {
    /// The rows of a tile, and those of a page of the same head that comes [`AHEAD_BYTES`] later.
    #[inline(always)]
    fn rows(&self, tile: &Tile, rows_of: RowsOf) -> Rows<'_, E> {
        let Tile { offset, rows, .. } = *tile;
        let at = |page: u32| &self.memory[rows_of(&self.layout, page, offset, rows)];
        let page_bytes = self.layout.head_dim() * self.layout.block() * size_of::<E>();
        let later = tile.index + AHEAD_BYTES.div_ceil(page_bytes);
        Rows {
            rows: at(self.pages[tile.index]),
            ahead: self.pages.get(later).map_or(&[], |&page| at(page)),
        }
    }
}

/// Tokens that follow each other in one page.
#[derive(Clone, Copy)]
struct Tile {
    /// Which of the head's pages.
    index: usize,
    offset: usize,
    rows: usize,
    /// The first of the tokens, counted from the start of the chunk.
    at: usize,
}

/// The chunk's tokens in slot order, page by page. How they fall into tiles depends on where pages end; no result does.
struct Tiles {
    block: usize,
    /// The chunk's first token.
    first: usize,
    /// Those that are left.
    tokens: Range<usize>,
}

impl Tiles {
    /// Those of some tokens, counted from the start of the chunk.
    #[inline(always)]
    fn of<E>(chunk: &Chunk<'_, E>, tokens: Range<usize>) -> Self {
        let first = chunk.tokens.start;
        Self {
            block: chunk.layout.block(),
            first,
            tokens: first + tokens.start..first + tokens.end,
        }
    }
}

impl Iterator for Tiles {
    type Item = Tile;

    #[inline(always)]
    fn next(&mut self) -> Option<Tile> {
        let Range { start, end } = self.tokens;
        if start >= end {
            return None;
        }
        let offset = start % self.block;
        let tile = Tile {
            index: start / self.block,
            offset,
            rows: (self.block - offset).min(end - start),
            at: start - self.first,
        };
        self.tokens.start += tile.rows;
        Some(tile)
    }
}

/// The weight of all chunks of a head for one query: their highest score, and the sum of their weights relative to it, first chunk
/// to last.
#[inline(always)]
pub(super) fn weigh<'a, S: Simd>(
    simd: S,
    totals: impl Iterator<Item = &'a Total> + Clone,
) -> Total {
    let mut all = Total::NONE;
    for total in totals.clone() {
        all.highest = all.highest.max(total.highest);
    }
    for total in totals {
        all.weight += total.rescale(simd, all.highest) * total.weight;
    }
    all
}

/// Puts the chunks of one head together, first to last, into `out` (`[G, D]`): every chunk is scaled to the highest score of all, and
/// the sum divided by the sum of the weights. No chunk gives zeros.
pub(super) struct MergeChunks<'a> {
    /// `[chunks, G, D]`.
    pub(super) sums: &'a [f32],
    /// `[chunks, G]`.
    pub(super) totals: &'a [Total],
    pub(super) group: usize,
    pub(super) out: &'a mut [f32],
}

impl Op for MergeChunks<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            sums,
            totals,
            group,
            out,
        } = self;
        let per_head = out.len();
        out.fill(0.0);
        for (query, out) in out.chunks_exact_mut(per_head / group).enumerate() {
            let totals = totals.iter().skip(query).step_by(group);
            let Total { highest, weight } = weigh(simd, totals.clone());
            for (sums, total) in sums.chunks_exact(per_head).zip(totals) {
                let sums = &sums[query * out.len()..][..out.len()];
                add_scaled(simd, sums, total.rescale(simd, highest), out);
            }
            if !sums.is_empty() {
                for out in out {
                    *out /= weight;
                }
            }
        }
    }
}

/// Adds `factor * row` to `total`, number by number.
#[inline(always)]
pub(super) fn add_scaled<S: Simd>(simd: S, row: &[f32], factor: f32, total: &mut [f32]) {
    let weights = Weights {
        weights: &[factor],
        stride: 1,
        at: 0,
    };
    let width = total.len();
    add_rows(simd, row.into(), weights, total, width);
}
