//! `ChunkKV`: the prompt is cut into chunks, and all heads of a layer keep the same whole chunks, those that another policy
//! scores best.
//!
//! Liu et al., *ChunkKV: Semantic-Preserving KV Cache Compression for Efficient Long-Context LLM Inference*, 2025,
//! <https://arxiv.org/abs/2502.00299>; here as `ChunkKVPress` of kvpress 0.5.5 does it.
//!
//! A chunk is `chunk` tokens of the text in a row, the last one what is left. Its score is the mean of the scores that the
//! policy `over` gives its tokens in all heads of the layer. The best `floor(budget / chunk)` chunks stay, and what is
//! generated is appended: a head holds the budget at most, and `chunk - 1` tokens less, or the part of a last chunk, at
//! least.
//!
//! Chunks with more tokens that the other policy never drops come before the others, and the one with the newest token
//! first of all; kvpress scores such tokens one above the best, which comes to the same for attention. Where a prompt is
//! no multiple of `chunk`, kvpress takes that share of the chunks, which may be one chunk above the budget, and it always
//! takes one; here the budget is a bound, and one below a chunk is refused. The paper shares one choice among several
//! layers; kvpress does not, and a plan here sees one layer.
#![forbid(unsafe_code)]

use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Observation, Over, Policy,
    PolicyConfig, Reads, Registry, Room, schemars::JsonSchema,
};
use serde::{Deserialize, Serialize};

/// Configuration of [`ChunkKv`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(crate = "kv_core::schemars")]
pub struct ChunkKvConfig {
    /// The policy whose score ranks the prompt's tokens.
    pub over: Over,
    /// Tokens of a chunk, from 1 to the budget.
    #[schemars(range(min = 1))]
    pub chunk: usize,
}

impl Default for ChunkKvConfig {
    /// kvpress' chunks, over `SnapKV`; the paper's are of 10 tokens.
    fn default() -> Self {
        Self {
            over: Over::named("snap-kv"),
            chunk: 20,
        }
    }
}

/// Whole chunks of the prompt, the same in all heads of a layer.
#[derive(Debug)]
pub struct ChunkKv {
    over: Box<dyn Policy>,
    chunk: usize,
    /// No budget: nothing is dropped.
    is_unlimited: bool,
}

impl PolicyConfig for ChunkKvConfig {
    const NAME: &'static str = "chunk-kv";
    const SUMMARY: &'static str =
        "whole chunks of the prompt, the best by another policy's score (Liu et al. 2025)";
    type Policy = ChunkKv;

    fn bind(self, geometry: &Geometry, budget: Budget) -> Result<ChunkKv, ConfigError> {
        self.bind_in(&Registry::default(), geometry, budget)
    }

    fn bind_in(
        self,
        registry: &Registry,
        geometry: &Geometry,
        budget: Budget,
    ) -> Result<ChunkKv, ConfigError> {
        let Self { over, chunk } = self;
        let fixed = budget.fixed_tokens(geometry);
        let most = fixed.unwrap_or(geometry.max_positions);
        if chunk == 0 || chunk > most {
            let allowed = format!("from 1 to {most}, the tokens that a head may hold");
            return Err(ConfigError::out_of_range(
                Self::NAME,
                "chunk",
                chunk,
                allowed,
            ));
        }
        let over = over.bind_scorer((Self::NAME, "over"), registry, geometry, budget)?;
        Ok(ChunkKv {
            over,
            chunk,
            is_unlimited: budget == Budget::Full,
        })
    }
}

/// How a chunk ranks: it holds the newest token, the share of its tokens that are never dropped, and the mean score of the
/// others.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rank(bool, f64, f64);

impl Rank {
    /// Of the scores of a chunk's tokens in all heads.
    fn of(is_last: bool, scores: impl Iterator<Item = f32>) -> Self {
        let (mut fixed, mut others, mut sum) = (0.0, 0.0, 0.0);
        for score in scores {
            if score == f32::INFINITY {
                fixed += 1.0;
            } else {
                others += 1.0;
                sum += f64::from(score);
            }
        }
        let mean = if others > 0.0 { sum / others } else { 0.0 };
        let mean = if mean.is_nan() {
            f64::NEG_INFINITY
        } else {
            mean
        };
        Self(is_last, fixed / (fixed + others), mean + 0.0)
    }

    fn is_above(self, other: Self) -> std::cmp::Ordering {
        let by_share = other.1.total_cmp(&self.1);
        other
            .0
            .cmp(&self.0)
            .then(by_share)
            .then(other.2.total_cmp(&self.2))
    }
}

impl ChunkKv {
    /// The best chunks by number, `count` of them.
    fn best(&self, scores: &[Vec<f32>], orders: &[Vec<u32>], count: usize) -> Vec<usize> {
        let tokens = orders.iter().map(Vec::len).max().unwrap_or(0);
        let chunks = tokens.div_ceil(self.chunk);
        let rank = |chunk: usize| {
            let ages = chunk * self.chunk..((chunk + 1) * self.chunk).min(tokens);
            let heads = scores.iter().zip(orders);
            let all = heads.flat_map(|(row, order)| {
                let chunk = order.iter().take(ages.end).skip(ages.start);
                chunk.map(|&slot| row[slot as usize])
            });
            Rank::of(chunk + 1 == chunks, all)
        };
        let ranks: Vec<Rank> = (0..chunks).map(rank).collect();
        let mut best: Vec<usize> = (0..chunks).collect();
        best.sort_by(|&a, &b| ranks[a].is_above(ranks[b]).then(a.cmp(&b)));
        best.truncate(count);
        best
    }
}

impl Policy for ChunkKv {
    fn needs(&self) -> Needs {
        let over = self.over.needs();
        // What is generated is not ranked.
        let (observation, reads) = if self.is_unlimited {
            (Observation::None, Reads::NONE)
        } else {
            (over.observation.of_the_prompt(), over.reads)
        };
        Needs {
            observation,
            reduction: over.reduction,
            reads,
            appends: true,
            min_tokens: over.min_tokens.max(self.chunk),
            ..Needs::NONE
        }
    }

    fn room(&self, _: usize, prompt: usize, budget: usize) -> Room {
        Room::Each(if prompt > budget {
            budget / self.chunk * self.chunk
        } else {
            budget
        })
    }

    fn failure(&self) -> Option<String> {
        self.over.failure()
    }

    fn notice(&self) -> Option<String> {
        self.over.notice()
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        let lens: Vec<usize> = (0..view.heads()).map(|head| view.len(head)).collect();
        if self.room(view.layer, view.prompt, view.budget).holds(&lens) {
            return;
        }
        let Some(scorer) = self.over.scorer() else {
            return;
        };
        let orders: Vec<Vec<u32>> = (0..view.heads()).map(|head| view.by_age(head)).collect();
        let best = self.best(&scorer.scores(view), &orders, view.budget / self.chunk);
        for (head, order) in orders.iter().enumerate() {
            let chunks: Vec<&[u32]> = order.chunks(self.chunk).collect();
            let best = best.iter().filter_map(|&chunk| chunks.get(chunk));
            keep.slots(head, best.copied().flatten().copied());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::{
        Pins,
        conformance::{geometry, registry},
    };

    const KEPT: f32 = f32::INFINITY;

    /// What the heads keep under a budget, in chunks of 3; the kit's stand-in never drops the four newest tokens.
    fn kept(budget: usize, rows: &[&[f32]]) -> Vec<Vec<u32>> {
        let config = ChunkKvConfig {
            chunk: 3,
            ..ChunkKvConfig::default()
        };
        let policy = config
            .bind_in(&registry(), &geometry(rows.len()), Budget::Tokens(budget))
            .expect("a good configuration");
        let view = LayerView::prefill(0, rows.len(), rows[0].len(), budget)
            .with_scores(policy.needs().observation, rows);
        let mut keep = KeepPlan::all(rows.len());
        policy.plan(&view, &mut keep);
        keep.resolve(&view, &Pins::default()).slots
    }

    /// Chunks of 3, 3, 3, 3 and 1 tokens; the window is the last chunk and the one before it.
    const ROWS: [&[f32]; 2] = [
        &[
            0.25, 0.0, 0.0, 0.1, 0.1, 0.2, 0.0, 0.0, 0.75, KEPT, KEPT, KEPT, KEPT,
        ],
        &[
            0.25, 0.0, 0.25, 0.3, 0.2, 0.3, 0.0, 0.0, 0.0, KEPT, KEPT, KEPT, KEPT,
        ],
    ];

    #[test]
    fn all_heads_keep_the_same_whole_chunks() {
        // Of the first three chunks the heads' sums are 0.75, 1.2 and 0.75: of equal ones the earlier stays.
        assert_eq!(kept(9, &ROWS), [[3, 4, 5, 9, 10, 11, 12]; 2]);
        assert_eq!(kept(12, &ROWS), [[0, 1, 2, 3, 4, 5, 9, 10, 11, 12]; 2]);
    }

    #[test]
    fn a_part_of_a_chunk_is_not_kept() {
        assert_eq!(kept(11, &ROWS), kept(9, &ROWS));
        assert_eq!(kept(7, &ROWS), [[9, 10, 11, 12]; 2]);
        assert_eq!(
            kept(13, &ROWS),
            [(0..13).collect::<Vec<u32>>(), (0..13).collect()]
        );
    }

    #[test]
    fn the_newest_token_and_what_is_never_dropped_come_first() {
        // One chunk: the last, though it is short.
        assert_eq!(kept(5, &ROWS), [[12]; 2]);
        // Two: before the best by score, a chunk that is never dropped, be it as a whole or in part.
        let window_of_four: [&[f32]; 1] = [&[9.0, 9.0, 9.0, 0.1, 0.1, 0.0, KEPT, KEPT, KEPT, KEPT]];
        assert_eq!(kept(6, &window_of_four), [[6, 7, 8, 9]]);
        let in_part: [&[f32]; 1] = [&[9.0, 9.0, 9.0, 9.0, 0.0, KEPT, KEPT, KEPT, KEPT]];
        assert_eq!(kept(6, &in_part), [[3, 4, 5, 6, 7, 8]]);
    }

    #[test]
    fn a_chunk_with_nan_goes_first() {
        let rows: [&[f32]; 1] = [&[
            f32::NAN,
            9.0,
            9.0,
            -1.0,
            -1.0,
            -1.0,
            KEPT,
            KEPT,
            KEPT,
            KEPT,
            KEPT,
        ]];
        // The four newest are in the last two chunks.
        assert_eq!(kept(9, &rows), [[3, 4, 5, 6, 7, 8, 9, 10]]);
    }
}
