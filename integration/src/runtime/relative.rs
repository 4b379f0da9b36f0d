//! Positions in the cache instead of the text: what was evicted leaves no gap, and a text may go on past the positions that the model knows.
//!
//! Where `E` tokens went between a head's front (its attention sinks) and its recent tokens, the recent ones are as far from the query as in
//! the text without the gap; only the front has to come closer by `E`. Its keys stay as they are: a score depends on the distance alone, so
//! they are scored by a second query, turned for a position that is earlier by `E`. Nothing is written, so nothing drifts, and pages may be
//! shared.
//!
//! The engine turns queries and keys by positions that it has tables for. When a text comes to their end, the recent keys of all heads are
//! turned back by what has gone since the last time (a *rebase*), and the engine is told positions that are smaller by as much. A key is
//! turned once more each time that this happens while it is held.
use std::sync::Arc;

use candle_core::{Result, bail};
use kv_core::{
    ConfigError, Geometry, Growth, HeadTable, Positions, Room, Rotation, SeqId, Sequence,
};

use super::{
    Runtime, State, Terms, parts,
    pass::{Pass, cache_error},
};
use crate::CacheConfig;

/// How far the sum of two turns may be from the turn of the sum: engines work their tables out in single precision.
const TABLES: f32 = 5e-3;

/// Whether texts may go on past the model's positions: no head keeps everything.
pub(super) fn is_endless(terms: &Terms, geometry: &Geometry) -> bool {
    let is_bounded = |layer| room_of(terms, geometry, layer) < usize::MAX;
    terms.needs.positions == Positions::CacheRelative && (0..geometry.layers).all(is_bounded)
}

/// The most tokens of a head of a layer.
fn room_of(terms: &Terms, geometry: &Geometry, layer: usize) -> usize {
    let prompt = geometry.max_positions;
    let budget = terms.tokens(geometry, prompt);
    match terms.policy.room(layer, prompt, budget) {
        Room::Heads(heads) => heads.into_iter().max().unwrap_or(0),
        Room::Each(tokens) | Room::Together(tokens) => tokens,
    }
}

/// Tokens of a chunk where texts are endless: what the configuration says, else half of the positions, or what the heads leave of them.
///
/// # Errors
///
/// [`ConfigError::Budget`] if the heads leave no room for a chunk.
pub(super) fn endless_chunk(
    config: &CacheConfig,
    terms: &Terms,
    geometry: &Geometry,
) -> std::result::Result<usize, ConfigError> {
    let all = geometry.max_positions;
    let room = (0..geometry.layers).map(|layer| room_of(terms, geometry, layer));
    let room = room.max().unwrap_or(0) + config.pin_prefix as usize;
    let most = all.saturating_sub(room);
    let wanted = match config.prefill_chunk {
        0 => most.min(all / 2),
        chunk => chunk,
    };
    if most < terms.least_chunk() || wanted > most {
        return Err(ConfigError::Budget {
            value: format!("{} ({room} tokens per KV head)", terms.budget),
            allowed: format!(
                "with `positions = \"cache-relative\"`, at most {} tokens per KV head: the heads and a chunk of {wanted} tokens share the \
                 model's {all} positions",
                all - wanted.clamp(terms.least_chunk(), all)
            ),
        });
    }
    Ok(wanted)
}

impl Pass<'_> {
    /// Sees to it that keys can be moved by the tables that this call's were turned by.
    pub(super) fn check_movable(&mut self) -> Result<()> {
        let known = self.rotation.as_ref().map(|(id, _)| *id);
        let rotation = parts::rotation(self)?;
        let is_new = known != self.rotation.as_ref().map(|(id, _)| *id);
        if is_new && !rotation.adds_up(TABLES) {
            bail!(
                "`positions` is `cache-relative`, which moves keys to other positions, and this model's rotary embedding does more than turn \
                 them, or not everywhere alike (as with YaRN and LongRoPE): set it to `original`"
            );
        }
        Ok(())
    }

    /// Refuses a layer whose heads hold anything but their front and the newest tokens, which positions in the cache are not worked out for.
    pub(super) fn check_gaps(&self, seq: SeqId) -> Result<()> {
        if self.opened.needs.positions != Positions::CacheRelative {
            return Ok(());
        }
        let tables = self.ledger.heads(seq, self.layer).map_err(cache_error)?;
        let has_one_gap = |table: &HeadTable| {
            let recent = &table.positions()[table.front()..];
            let newest = recent.iter().max().map_or(0, |newest| newest.index() + 1);
            let oldest = recent.iter().min().map_or(0, |oldest| oldest.index());
            newest - oldest == recent.len()
                && matches!(table.growth(), Growth::Append | Growth::Ring { .. })
        };
        if !tables.iter().all(has_one_gap) {
            bail!(
                "the policy {} asks for cache-relative positions, and a head holds other tokens than its first and its newest ones",
                self.config.policy
            );
        }
        Ok(())
    }

    /// How queries and keys are turned, where their positions are those of the cache.
    pub(super) fn relative(&self) -> Option<Arc<Rotation>> {
        let is_relative = self.opened.needs.positions == Positions::CacheRelative;
        let rotation = self.rotation.as_ref().filter(|_| is_relative);
        rotation.map(|(_, rotation)| rotation.clone())
    }
}

/// A query of one KV head, or those of its group: who asks, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) table: &'a HeadTable,
    /// Tokens held of which it knows.
    pub(super) len: usize,
    /// Where it stands in the text.
    pub(super) position: usize,
    /// [`Sequence::base`].
    pub(super) base: usize,
}

/// The fronts of heads that lie behind a gap, and queries that are turned for them.
#[derive(Debug, Default)]
pub(super) struct Fronts {
    /// Tokens of each head's front; 0 where nothing was evicted. `[N * H]`.
    pub(super) tokens: Vec<usize>,
    /// `[N * H, G, D]`.
    pub(super) queries: Vec<f32>,
}

impl Fronts {
    /// Those of `heads`, `[N * H]`, whose queries are `[N * H, G, D]`.
    pub(super) fn see(
        &mut self,
        rotation: &Rotation,
        heads: &[Asking<'_>],
        (queries, head_dim): (&[f32], usize),
    ) {
        self.tokens.clear();
        self.queries.clear();
        self.queries.extend_from_slice(queries);
        let group = queries.len() / heads.len().max(1);
        let of_heads = self.queries.chunks_exact_mut(group.max(1));
        for (asking, queries) in heads.iter().zip(of_heads) {
            let evicted = asking.position + 1 - asking.len;
            let front = if evicted == 0 {
                0
            } else {
                asking.table.front()
            };
            self.tokens.push(front);
            if front > 0 {
                for query in queries.chunks_exact_mut(head_dim) {
                    rotation.turn_back(evicted - asking.base, query);
                }
            }
        }
    }
}

impl Runtime {
    /// Turns a sequence's keys back where the model has no positions for the text up to `end`, and says by how much they stand earlier.
    pub(super) fn stay_within(&self, state: &mut State, seq: SeqId, end: usize) -> Result<usize> {
        let positions = self.opened()?.geometry.max_positions;
        let Ok(sequence) = state.ledger.sequence(seq) else {
            return Ok(0);
        };
        let base = sequence.base();
        if end - base <= positions {
            return Ok(base);
        }
        let by = least_evicted(sequence).saturating_sub(base);
        let Some((_, rotation)) = state.rotation.clone().filter(|_| by > 0) else {
            return Ok(base); // the engine ends it where its positions do
        };
        let rebased = state.ledger.rebase(seq, by).map_err(cache_error)?;
        state.cache.rebase(&rebased, by, &rotation)?;
        state.counts.rebases += 1;
        Ok(base + by)
    }
}

/// Tokens that every head of a sequence has let go of, between two passes.
fn least_evicted(sequence: &Sequence) -> usize {
    let most = sequence.heads().iter().map(HeadTable::len).max();
    sequence.seen() - most.unwrap_or(0)
}
