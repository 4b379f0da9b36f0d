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
    /// So many slots from the front of the head are scored by these queries instead, `[G, D]`.
    pub(super) front: Option<(usize, &'a [f32])>,
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

/// Tokens of a chunk whose values are added before the keys of the next are scored, a stride. While one is worked on the next is asked for, no
/// more and no less: so memory is read without a pause where keys change to values, and what comes is still near when it is needed.
const STRIDE_TOKENS: usize = 64;

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

    /// The usual widths are compiled on their own, so that the loops over a row are laid out flat and nothing is divided.
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.chunk.layout.head_dim() {
            64 => self.run_wide(simd, 64),
            128 => self.run_wide(simd, 128),
            head_dim => self.run_wide(simd, head_dim),
        }
    }
}

impl<E: Element> AttendChunk<'_, '_, E> {
    #[inline(always)]
    fn run_wide<S: Simd>(self, simd: S, head_dim: usize) {
        let Self {
            chunk,
            scores,
            partial: Partial { sums, totals },
        } = self;
        sums.fill(0.0);
        totals.fill(Total::NONE);
        let len = chunk.tokens.len();
        let mut at = 0;
        while at < len {
            let end = len.min(at + STRIDE_TOKENS);
            let (front, others) = chunk.parts(at..end);
            for (tokens, queries) in front.into_iter().chain([others]) {
                for tile in Tiles::of(chunk, tokens) {
                    let mut scores = Scores {
                        scores: &mut *scores,
                        stride: CHUNK_TOKENS,
                        at: tile.at,
                    };
                    let keys = chunk.rows(&tile, Half::Keys);
                    score_rows(simd, keys, queries, head_dim, &mut scores);
                }
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
                let values = chunk.rows(&tile, Half::Values);
                add_rows(simd, values, weights, sums, head_dim);
            }
            at = end;
        }
    }
}

/// Half of a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Keys,
    Values,
}

/// Tokens of a chunk, and the queries that score them.
type Part<'a> = (Range<usize>, &'a [f32]);

impl<E: Element> Chunk<'_, E> {
    /// Some tokens, counted from the start of the chunk, cut into those that queries of their own score, if there are any, and the others.
    #[inline(always)]
    fn parts(&self, tokens: Range<usize>) -> (Option<Part<'_>>, Part<'_>) {
        let Some((count, queries)) = self.front else {
            return (None, (tokens, self.queries));
        };
        let end = count.saturating_sub(self.tokens.start);
        let end = end.clamp(tokens.start, tokens.end);
        (
            Some((tokens.start..end, queries)),
            (end..tokens.end, self.queries),
        )
    }

    /// Rows of a tile, and those to be asked for meanwhile. While a stride is worked on, first its keys and then its values, the halves of the
    /// next stride's pages are asked for in the order in which they lie in memory: that is what it can be read in fastest.
    #[inline(always)]
    fn rows(&self, tile: &Tile, half: Half) -> Rows<'_, E> {
        let stride = STRIDE_TOKENS.div_ceil(self.layout.block());
        let within = tile.index % stride;
        let nth = match half {
            Half::Keys => within,
            Half::Values => within + stride,
        };
        let later = self.pages.get(tile.index - within + stride + nth / 2);
        let ahead = match later {
            Some(&page) if nth % 2 == 0 => self.half(page, tile, Half::Keys),
            Some(&page) => self.half(page, tile, Half::Values),
            None => &[],
        };
        Rows {
            rows: self.half(self.pages[tile.index], tile, half),
            ahead,
        }
    }

    /// The rows of a page that lie where the tile's do.
    #[inline(always)]
    fn half(&self, page: u32, tile: &Tile, half: Half) -> &[E] {
        let Tile { offset, rows, .. } = *tile;
        &self.memory[match half {
            Half::Keys => self.layout.key_rows(page, offset, rows),
            Half::Values => self.layout.value_rows(page, offset, rows),
        }]
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
