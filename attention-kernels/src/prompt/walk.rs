//! From queries and keys to softmax rows, and from those to sums of values and to columns, block by block.

use std::ops::Range;

use kv_core::{Reduce, Sight};
use rayon::prelude::*;

use super::PromptArgs;
use super::sight::{hide, seen_by};
use crate::attend::SERIAL_WORK;
use crate::scratch::with_scratch;
use crate::simd::{
    Op, Scores, Simd, Weights, add_rows, dispatch, exponentiate, highest, scale, score_rows,
};

/// Queries whose scores are kept at a time. Enough that a tile of keys is loaded once for many queries, few enough that the scores
/// against a few thousand tokens stay in the second-level cache.
pub const BLOCK_QUERIES: usize = 32;

/// Units of work per query head of which columns are wanted, where it has as many blocks. Each costs a row of columns.
pub const PARTS: usize = 4;

/// Keys, or values, that all queries of a block go over before the next ones come.
const BLOCK_KEYS: usize = 128;

/// Whose softmax rows are folded, and for which tokens.
#[derive(Clone, Debug)]
pub(crate) struct Folded {
    /// The queries.
    pub(crate) queries: Range<usize>,
    /// The tokens: those in front of this one.
    pub(crate) before: usize,
    pub(crate) reduce: Reduce,
}

impl Folded {
    /// Divides every column by the number of queries that can see its token.
    fn divide_by_viewers(&self, columns: &mut [f64]) {
        let Range { start, end } = self.queries;
        for (token, column) in columns.iter_mut().enumerate() {
            *column /= (end - token.max(start)) as f64;
        }
    }
}

/// Where attention goes, and what it reads beside queries and keys.
pub(crate) struct Attended<'a> {
    /// `[H, rows, D]`.
    pub(crate) values: &'a [f32],
    /// `[H]`.
    pub(crate) sights: &'a [Sight],
    /// `[H * G, rows, D]`.
    pub(crate) out: &'a mut [f32],
}

/// Walks over the prompt once: attends where that is wanted, and folds softmax rows where those are: `[H * G, before]`, reduced over
/// the queries.
pub(crate) fn walk(
    prompt: &PromptArgs<'_>,
    heads: usize,
    attended: Option<Attended<'_>>,
    folded: Option<&Folded>,
) -> Vec<f64> {
    let query_heads = heads * prompt.group;
    let before = folded.map_or(0, |folded| folded.before);
    let first = match folded {
        Some(folded) if attended.is_none() => folded.queries.start / BLOCK_QUERIES,
        _ => 0,
    };
    let blocks = prompt.tokens.div_ceil(BLOCK_QUERIES);
    // Blocks are dealt to parts in turn: later ones have more to do. What parts there are shows in the columns' last bits.
    let parts = blocks.min(if before > 0 { PARTS } else { usize::MAX });
    if query_heads == 0 || parts == 0 || (attended.is_none() && before == 0) {
        return Vec::new();
    }
    let mut columns = vec![0.0; query_heads * parts * before];
    let (values, sights, out) = match attended {
        Some(attended) => (attended.values, attended.sights, Some(attended.out)),
        None => (&[][..], &[][..], None),
    };
    let mut units = deal(prompt, query_heads, parts, first, out);
    if before > 0 {
        let columns = columns.chunks_exact_mut(before);
        for (unit, columns) in units.iter_mut().zip(columns) {
            unit.columns = columns;
        }
    }
    let run = |unit: Unit<'_>| {
        let head = unit.query_head / prompt.group;
        for (block, out) in unit.blocks {
            let sight = sights.get(head).copied().unwrap_or_default();
            let seen = seen_by(sight, &block);
            let elements = (seen[0].len() + seen[1].len()) * block.len();
            with_scratch(elements, |scores| {
                dispatch(Block {
                    prompt,
                    query_head: unit.query_head,
                    seen,
                    sight,
                    queries: block,
                    scores,
                    attended: out.map(|out| (values, out)),
                    folded: folded.map(|folded| (folded, &mut *unit.columns)),
                });
            });
        }
    };
    let work = (query_heads * prompt.head_dim)
        .saturating_mul(prompt.tokens - first * BLOCK_QUERIES)
        .saturating_mul(prompt.tokens);
    if work < SERIAL_WORK {
        units.into_iter().for_each(run);
    } else {
        units.into_par_iter().with_max_len(1).for_each(run);
    }
    match folded {
        Some(folded) if before > 0 => join_parts(columns, parts, folded),
        _ => columns,
    }
}

/// Some blocks of queries of one query head.
struct Unit<'a> {
    query_head: usize,
    /// Their queries, and where their attention goes.
    blocks: Vec<(Range<usize>, Option<&'a mut [f32]>)>,
    /// `[before]`.
    columns: &'a mut [f64],
}

/// Deals the blocks of each query head, from block `first` on, to its parts.
fn deal<'a>(
    prompt: &PromptArgs<'_>,
    query_heads: usize,
    parts: usize,
    first: usize,
    out: Option<&'a mut [f32]>,
) -> Vec<Unit<'a>> {
    let mut units: Vec<Unit<'a>> = (0..query_heads * parts)
        .map(|unit| Unit {
            query_head: unit / parts,
            blocks: Vec::new(),
            columns: &mut [],
        })
        .collect();
    let queries = |block: usize| {
        let start = block * BLOCK_QUERIES;
        start..prompt.tokens.min(start + BLOCK_QUERIES)
    };
    let blocks = prompt.tokens.div_ceil(BLOCK_QUERIES);
    if let Some(out) = out {
        let per_head = prompt.rows * prompt.head_dim;
        for (query_head, out) in out.chunks_exact_mut(per_head).enumerate() {
            let (out, padding) = out.split_at_mut(prompt.tokens * prompt.head_dim);
            padding.fill(0.0);
            let out = out.chunks_mut(BLOCK_QUERIES * prompt.head_dim);
            for (block, out) in out.enumerate() {
                let unit = &mut units[query_head * parts + block % parts];
                unit.blocks.push((queries(block), Some(out)));
            }
        }
    } else {
        for (index, unit) in units.iter_mut().enumerate() {
            let own = (first..blocks).filter(|block| block % parts == index % parts);
            unit.blocks = own.map(|block| (queries(block), None)).collect();
        }
    }
    units
}

/// The parts of each query head, first to last, in one.
fn join_parts(mut columns: Vec<f64>, parts: usize, folded: &Folded) -> Vec<f64> {
    let before = folded.before;
    let heads = columns.chunks_exact_mut(parts * before).map(|head| {
        let (joined, others) = head.split_at_mut(before);
        for part in others.chunks_exact(before) {
            fold(folded.reduce, joined, part.iter().copied());
        }
        if folded.reduce == Reduce::Mean {
            folded.divide_by_viewers(joined);
        }
        &*joined
    });
    heads.collect::<Vec<_>>().concat()
}

/// Takes one more row into `into`, which starts as zeros: attention is never below 0. A mean is a sum until it is divided.
#[inline(always)]
pub(crate) fn fold(reduce: Reduce, into: &mut [f64], row: impl Iterator<Item = f64>) {
    let pairs = into.iter_mut().zip(row);
    match reduce {
        Reduce::Mean | Reduce::Sum => pairs.for_each(|(sum, number)| *sum += number),
        Reduce::Max => pairs.for_each(|(highest, number)| *highest = highest.max(number)),
    }
}

/// One block of queries of one query head.
struct Block<'a> {
    prompt: &'a PromptArgs<'a>,
    query_head: usize,
    queries: Range<usize>,
    sight: Sight,
    /// The tokens that any of the queries sees, in two pieces.
    seen: [Range<usize>; 2],
    /// `[queries, seen]`.
    scores: &'a mut [f32],
    /// Values `[H, rows, D]`, and where the attention goes, `[queries, D]`.
    attended: Option<(&'a [f32], &'a mut [f32])>,
    folded: Option<(&'a Folded, &'a mut [f64])>,
}

impl Op for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let stride = self.seen[0].len() + self.seen[1].len();
        self.score(simd, stride);
        let mut shares = [0.0; BLOCK_QUERIES];
        self.soften(simd, stride, &mut shares);
        if let Some((values, out)) = self.attended.take() {
            let head_dim = self.prompt.head_dim;
            let head = self.query_head / self.prompt.group * self.prompt.rows * head_dim;
            let values = &values[head..head + self.prompt.rows * head_dim];
            out.fill(0.0);
            for (at, tokens) in key_blocks(&self.seen) {
                let weights = Weights {
                    weights: self.scores,
                    stride,
                    at,
                };
                let rows = &values[tokens.start * head_dim..tokens.end * head_dim];
                add_rows(simd, rows.into(), weights, out, head_dim);
            }
            for (out, share) in out.chunks_exact_mut(head_dim).zip(shares) {
                scale(simd, out, share);
            }
        }
    }
}

impl Block<'_> {
    /// Dot products of the queries with all keys that any of them sees: `[queries, seen]`.
    #[inline(always)]
    fn score<S: Simd>(&mut self, simd: S, stride: usize) {
        let prompt = self.prompt;
        let queries = prompt.queries_of(self.query_head, self.queries.clone());
        for (at, tokens) in key_blocks(&self.seen) {
            let mut into = Scores {
                scores: self.scores,
                stride,
                at,
            };
            let keys = prompt.keys_of(self.query_head, tokens);
            score_rows(simd, keys.into(), queries, prompt.head_dim, &mut into);
        }
    }

    /// Makes weights of every query's scores, 0 where it does not see; leaves each query's share, by which its weights are a softmax,
    /// and folds that.
    #[inline(always)]
    fn soften<S: Simd>(&mut self, simd: S, stride: usize, shares: &mut [f32; BLOCK_QUERIES]) {
        let scoring = self.prompt.scoring();
        let rows = self.scores.chunks_exact_mut(stride);
        for ((query, row), share) in self.queries.clone().zip(rows).zip(shares) {
            for (tokens, row) in seen_rows(&self.seen, row) {
                scoring.apply(simd, row);
                hide(self.sight, query, &tokens, row);
            }
            let highest = highest(simd, row);
            *share = exponentiate(simd, row, highest).recip();
            if let Some((folded, columns)) = &mut self.folded
                && folded.queries.contains(&query)
            {
                let weights = row.iter().map(|weight| f64::from(weight * *share));
                fold(folded.reduce, columns, weights);
            }
        }
    }
}

/// The pieces of a row of scores, and the tokens of each.
#[inline(always)]
fn seen_rows<'a>(
    [first, second]: &[Range<usize>; 2],
    row: &'a mut [f32],
) -> [(Range<usize>, &'a mut [f32]); 2] {
    let (front, back) = row.split_at_mut(first.len());
    [(first.clone(), front), (second.clone(), back)]
}

/// Blocks of keys, and where each begins in a row of scores.
#[inline(always)]
fn key_blocks(seen: &[Range<usize>; 2]) -> impl Iterator<Item = (usize, Range<usize>)> {
    let [first, second] = seen.clone();
    let skipped = first.len();
    let blocks = |piece: Range<usize>, at: usize| {
        let Range { start, end } = piece;
        (start..end)
            .step_by(BLOCK_KEYS)
            .map(move |token| (at + token - start, token..end.min(token + BLOCK_KEYS)))
    };
    blocks(first, 0).chain(blocks(second, skipped))
}
