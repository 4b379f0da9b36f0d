//! Prompts that are read in chunks: the engine passes over one chunk after the other, so that no pass is longer than a chunk.
//!
//! The first chunk is read as a prompt. Each that follows is entered behind what the heads hold and attends to that and to itself; then,
//! where the policy compresses chunk by chunk, what is held is planned anew. A policy that observes the end of the prompt plans after the
//! last chunk, and all is held until then.
use std::time::Instant;

use attention_kernels::{
    AttendArgs, HeadSlots, PageStore, PromptArgs, RowWrite, attend_into, observe, write,
};
use candle_core::{Result, Tensor};
use kv_core::{Chunks, Growth, HeadTable, Kept, Observation, Position, SeqId};

use super::{
    Opened, Terms,
    host::{HostBackend, HostRows, kernel_error},
    machine::Place,
    parts::Parts,
    pass::{Backend, Pass, cache_error},
    relative::Asking,
};
use crate::{CacheConfig, StartError};

/// Refuses chunks where they cannot be had.
pub(super) fn check_chunks(
    config: &CacheConfig,
    terms: &Terms,
    place: &Place,
) -> std::result::Result<(), StartError> {
    let chunk = config.prefill_chunk;
    if chunk == 0 {
        return Ok(());
    }
    let refuse = |allowed: String| {
        Err(StartError::OutOfRange {
            field: "prefill-chunk",
            value: chunk.to_string(),
            allowed,
        })
    };
    if !place.is_host() {
        return refuse(format!(
            "0 on {place}: prompts are read in chunks on the CPU only"
        ));
    }
    match terms.needs.chunks() {
        Chunks::Never(why) => refuse(format!(
            "0 under {}, which has to read a prompt at once: {why}",
            config.policy
        )),
        _ if chunk < terms.least_chunk() => refuse(format!(
            "0, or at least {} under {}",
            terms.least_chunk(),
            config.policy
        )),
        _ => Ok(()),
    }
}

/// Which of a prompt's new tokens one pass compresses, and what is behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Where the first new token stands in the text.
    pub(super) first: usize,
    /// New tokens that are compressed.
    pub(super) compressed: usize,
    /// New tokens behind them, which are read through the compressed cache.
    pub(super) tail: usize,
    /// Tokens to compress that later passes read.
    to_come: usize,
}

impl Span {
    /// Of `length` new tokens from `first` on, of a text of which `end` tokens are compressed.
    pub(super) fn of(first: usize, length: usize, end: usize) -> Self {
        let rest = end.saturating_sub(first);
        let compressed = rest.min(length);
        Self {
            first,
            compressed,
            tail: length - compressed,
            to_come: rest - compressed,
        }
    }

    /// Whether it goes on with a prompt of which a chunk has been read.
    pub(super) const fn reads_on(self) -> bool {
        self.first > 0 && self.compressed > 0
    }

    /// Whether more of the text is compressed later.
    pub(super) const fn is_last(self) -> bool {
        self.to_come == 0
    }

    /// The text that is compressed so far.
    pub(super) const fn end(self) -> usize {
        self.first + self.compressed
    }
}

/// How many of `tokens` tokens a pass reads, where `chunk` are asked for: each prompt has so many tokens left to compress (`rests`), and of
/// them none or at least `least` are to be left for the last pass.
pub(super) fn length(rests: &[usize], tokens: usize, (chunk, least): (usize, usize)) -> usize {
    let is_good = |&length: &usize| {
        let leaves = |&rest: &usize| length >= rest || rest - length >= least;
        rests.iter().all(leaves)
    };
    let shorter = (2..=chunk.min(tokens)).rev();
    let mut lengths = shorter.chain(chunk.min(tokens)..tokens);
    lengths.find(is_good).unwrap_or(tokens)
}

/// What the heads of a layer hold, each head's oldest token first.
struct Held {
    /// Slots of the table, `[H][T]`.
    slots: Vec<Vec<u32>>,
    /// `[H][T]`.
    positions: Vec<Vec<Position>>,
    /// `[H, rows, D]`; empty where nobody reads them.
    keys: Vec<f32>,
    /// As the keys.
    values: Vec<f32>,
    /// Rows of each head: as many as the head has that holds most.
    rows: usize,
}

impl Held {
    fn read(
        store: &PageStore,
        pass: &Pass<'_>,
        seq: SeqId,
        (keys, values): (bool, bool),
    ) -> Result<Self> {
        let tables = pass.ledger.heads(seq, pass.layer).map_err(cache_error)?;
        let rows = tables.iter().map(|table| table.len()).max().unwrap_or(0);
        let mut held = Self {
            slots: Vec::with_capacity(tables.len()),
            positions: Vec::with_capacity(tables.len()),
            keys: Vec::new(),
            values: Vec::new(),
            rows,
        };
        let dim = pass.opened.geometry.head_dim;
        for (head, table) in (1..).zip(tables) {
            let positions = table.positions();
            let mut slots: Vec<u32> = (0..).take(positions.len()).collect();
            slots.sort_unstable_by_key(|&slot| positions[slot as usize]);
            for &slot in &slots {
                let (page, offset) = table.address(kv_core::Slot(slot));
                let offset = Position::new(offset).0;
                if keys {
                    held.keys.extend(store.read_key(page.0, offset));
                }
                if values {
                    held.values.extend(store.read_value(page.0, offset));
                }
            }
            held.keys
                .resize(if keys { head * rows * dim } else { 0 }, 0.0);
            let end = if values { head * rows * dim } else { 0 };
            held.values.resize(end, 0.0);
            let in_order = slots.iter().map(|&slot| positions[slot as usize]);
            held.positions.push(in_order.collect());
            held.slots.push(slots);
        }
        Ok(held)
    }

    /// A plan by age, as one by slots of the table.
    fn by_slot(&self, kept: &mut Kept) {
        for (head, ages) in kept.slots.iter_mut().enumerate() {
            let mut entries: Vec<(u32, Option<f32>)> = Vec::with_capacity(ages.len());
            for (index, &age) in ages.iter().enumerate() {
                let score = kept.scores.as_ref().map(|scores| scores[head][index]);
                entries.push((self.slots[head][age as usize], score));
            }
            entries.sort_unstable_by_key(|entry| entry.0);
            *ages = entries.iter().map(|entry| entry.0).collect();
            if let Some(scores) = &mut kept.scores {
                scores[head] = entries.iter().filter_map(|entry| entry.1).collect();
            }
        }
    }
}

impl HostBackend {
    /// Reads a later chunk of the prompt of the batch's sequence `index`, and returns its attention, `[1, H * G, T, D]`.
    pub(super) fn read_chunk(
        &mut self,
        pass: &mut Pass<'_>,
        rows: &HostRows,
        (index, span): (usize, Span),
    ) -> Result<Tensor> {
        let seq = pass.seq(index);
        self.enter_chunk(pass, rows, (index, span))?;
        let attention = self.attend_chunk(pass, rows, (index, span))?;
        let noted = pass.ledger.note_prompt(seq, span.end(), false);
        noted.map_err(cache_error)?;
        let terms = pass.terms(index);
        if !span.is_last() && terms.needs.chunks() != Chunks::Each {
            return Ok(attention);
        }
        let mut kept = self.plan_held(pass, rows, (index, span), &terms)?;
        terms.check()?;
        if !span.is_last() {
            until_whole(&mut kept);
        }
        let moves = pass.ledger.shrink(seq, pass.layer, &kept);
        self.compact(&moves.map_err(cache_error)?)?;
        Ok(attention)
    }

    /// Enters a chunk's tokens behind what the heads hold.
    fn enter_chunk(
        &mut self,
        pass: &mut Pass<'_>,
        rows: &HostRows,
        (index, span): (usize, Span),
    ) -> Result<()> {
        let heads = pass.opened.geometry.kv_heads;
        let seq = pass.seq(index);
        let entered = &mut self.buffers.entered;
        entered.clear();
        for position in span.first..span.end() {
            let position = Position::new(position);
            let appended = pass.ledger.append_into(seq, pass.layer, position, entered);
            appended.map_err(cache_error)?;
        }
        let source = |at: usize| (index * heads + at % heads) * rows.tokens + at / heads;
        let writes: Vec<RowWrite> = (0..)
            .zip(&entered.heads)
            .map(|(at, &address)| RowWrite::at(source(at), address))
            .collect();
        let moves = std::mem::take(&mut entered.moves);
        self.compact(&moves)?;
        pass.counts.kernels.write += 1;
        write(&mut self.store, &rows.write(&writes)).map_err(kernel_error)
    }

    /// Attends with each token of a chunk just entered to what the heads hold up to it.
    fn attend_chunk(
        &mut self,
        pass: &mut Pass<'_>,
        rows: &HostRows,
        (index, span): (usize, Span),
    ) -> Result<Tensor> {
        let geometry = pass.opened.geometry;
        let (tokens, dim) = (span.compressed, geometry.head_dim);
        let query_heads = geometry.kv_heads * geometry.group;
        let tables = pass.ledger.heads(pass.seq(index), pass.layer);
        let tables = tables.map_err(cache_error)?;
        let sequence = pass.ledger.sequence(pass.seq(index));
        let base = sequence.map_err(cache_error)?.base();
        let relative = pass.relative();
        let mut asking = Vec::new();
        let mut heads = Vec::with_capacity(tokens * tables.len());
        let mut queries = Vec::with_capacity(tokens * query_heads * dim);
        let all = rows.queries_of(index, &geometry);
        for token in 0..tokens {
            let len = |table: &HeadTable| table.len() + token + 1 - tokens;
            heads.extend(tables.iter().map(|table| HeadSlots {
                pages: table.page_ids(),
                len: len(table),
            }));
            if relative.is_some() {
                asking.extend(tables.iter().map(|table| Asking {
                    table,
                    len: len(table),
                    position: span.first + token,
                    base,
                }));
            }
            for head in all.chunks_exact(rows.tokens * dim) {
                queries.extend_from_slice(&head[token * dim..(token + 1) * dim]);
            }
        }
        let args = AttendArgs {
            queries: &queries,
            heads: &heads,
            group: geometry.group,
            scale: pass.call.softmax_scale,
            softcap: pass.call.softcap,
        };
        let mut out = vec![0.0; queries.len()];
        let start = Instant::now();
        let buffers = &mut self.buffers;
        match relative {
            Some(rotation) => {
                buffers.attend_relative(&self.store, (&args, &rotation), &asking, &mut out)?;
            }
            None => {
                let workspace = &mut buffers.workspace;
                attend_into(&self.store, &args, workspace, &mut out).map_err(kernel_error)?;
            }
        }
        pass.counts.kernels.attend_prompt += 1;
        pass.counts.time.attend_prompt += start.elapsed();
        Tensor::from_vec(
            out,
            (1, tokens, query_heads, dim),
            pass.call.queries.device(),
        )?
        .transpose(1, 2)?
        .contiguous()
    }

    /// What stays of all that a layer holds of a prompt.
    fn plan_held(
        &self,
        pass: &mut Pass<'_>,
        rows: &HostRows,
        (index, span): (usize, Span),
        terms: &Terms,
    ) -> Result<Kept> {
        let needs = pass.opened.needs;
        let (observation, reads) = (needs.observation, needs.reads);
        let is_observed = observation != Observation::None;
        let is_read = (
            is_observed || reads.keys,
            reads.values || reads.output_norms,
        );
        let seq = pass.seq(index);
        let start = Instant::now();
        let held = Held::read(&self.store, pass, seq, is_read)?;
        let scores = observe_held(pass, rows, &held, (index, span))?;
        let parts = Parts::of_held(pass, (&held.keys, &held.values), held.rows)?;
        let shown = parts.shown(pass, held.rows);
        let positions: Vec<&[Position]> = held.positions.iter().map(Vec::as_slice).collect();
        let mut view = pass
            .blind_view(terms, span.end())
            .with_positions(&positions);
        if let Some(shown) = &shown {
            view = view.with_rows(shown);
        }
        let scores: Vec<&[f32]> = scores
            .chunks_exact(held.rows.max(1))
            .zip(&positions)
            .map(|(row, positions)| &row[..positions.len()])
            .collect();
        if is_observed {
            view = view.with_scores(observation, &scores);
        }
        let mut kept = pass.resolve(index, terms, &view)?;
        kept.forget_idle_scores(&needs);
        held.by_slot(&mut kept);
        pass.counts.time.plan += start.elapsed();
        Ok(kept)
    }
}

/// What is observed of all that a layer holds, `[H, rows]`; empty where nothing is. What looks at queries looks at the last chunk's alone.
fn observe_held(
    pass: &mut Pass<'_>,
    rows: &HostRows,
    held: &Held,
    (index, span): (usize, Span),
) -> Result<Vec<f32>> {
    let Opened {
        geometry, needs, ..
    } = pass.opened;
    let (dim, query_heads) = (geometry.head_dim, geometry.kv_heads * geometry.group);
    let mut queries = Vec::new();
    if needs.chunks() != Chunks::Each {
        queries.resize(query_heads * held.rows * dim, 0.0);
        let all = rows.queries_of(index, geometry);
        let new = span.compressed * dim;
        let heads = queries.chunks_exact_mut(held.rows * dim);
        for (to, from) in heads.zip(all.chunks_exact(rows.tokens * dim)) {
            let first = to.len() - new;
            to[first..].copy_from_slice(&from[..new]);
        }
    }
    let args = PromptArgs {
        queries: &queries,
        keys: &held.keys,
        rows: held.rows,
        tokens: held.rows,
        group: geometry.group,
        head_dim: dim,
        scale: pass.call.softmax_scale,
        softcap: pass.call.softcap,
    };
    pass.counts.kernels.note_observation(needs.observation);
    let scores = observe(needs.observation, needs.reduction, &args).map_err(kernel_error)?;
    Ok(scores.unwrap_or_default())
}

/// While more of the prompt is to come, nothing is evicted but by the plan after a chunk.
pub(super) fn until_whole(kept: &mut Kept) {
    kept.growth.fill(Growth::Append);
    kept.scores = None;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_reads_a_chunk_and_leaves_enough_for_the_last() {
        let next = |rests: &[usize], tokens| length(rests, tokens, (64, 32));
        assert_eq!(next(&[50], 50), 50);
        assert_eq!(next(&[200], 200), 64);
        // 64 would leave 16.
        assert_eq!(next(&[80], 80), 48);
        assert_eq!(next(&[65], 65), 33);
        // A question behind the text to compress is read with the text's end as far as it fits.
        assert_eq!(next(&[40], 140), 64);
        assert_eq!(next(&[0], 140), 64);
        assert_eq!(next(&[80, 0], 80), 48);
        // Of two prompts with other ends neither is left with too little.
        assert_eq!(next(&[80, 60], 100), 28);
        assert_eq!(next(&[40, 70, 95], 100), 8);
        // Where a chunk cannot be so short, it is longer.
        assert_eq!(length(&[33], 40, (32, 32)), 33);
    }

    #[test]
    fn a_span_ends_where_the_text_to_compress_does() {
        let span = |first, length| Span::of(first, length, 100);
        assert_eq!(span(0, 100).tail, 0);
        assert!(span(0, 100).is_last() && !span(0, 100).reads_on());
        assert!(!span(0, 60).is_last() && span(60, 20).reads_on());
        assert_eq!((span(60, 50).compressed, span(60, 50).tail), (40, 10));
        assert!(!span(100, 7).reads_on() && span(100, 7).is_last());
        assert_eq!(span(100, 7).tail, 7);
    }
}
