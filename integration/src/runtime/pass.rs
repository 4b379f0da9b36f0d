//! One layer of one forward pass, wherever its pages are.
use std::{collections::HashMap, fmt, ops::Range, sync::Arc};

use candle_core::{IndexOp, Result, Tensor, TensorId, bail};
use kv_core::{
    Address, CacheError, Chunks, KeepPlan, Kept, LayerView, Ledger, Move, Position, Rebased,
    Rotation, SeqId, Sight,
};
use kv_hook::LayerCall;

use super::{
    Counts, Idle, Open, Opened, Terms,
    cascade::cut_earlier,
    chunks::{Span, until_whole},
    parts::numbers,
    shared::share_with_twin,
    watch::Watch,
};
use crate::CacheConfig;

/// What is known of a layer's call, and what it changes.
pub(super) struct Pass<'a> {
    pub(super) config: &'a CacheConfig,
    /// Tokens at the end of a prompt that are read through the compressed cache, as asked for.
    pub(super) prompt_tail: usize,
    /// Who is told where heads look.
    pub(super) watch: &'a Watch,
    pub(super) opened: &'a Opened,
    pub(super) ledger: &'a mut Ledger,
    pub(super) open: &'a mut HashMap<SeqId, Open>,
    pub(super) idle: &'a mut Idle,
    pub(super) counts: &'a mut Counts,
    pub(super) rotation: &'a mut Option<(TensorId, Arc<Rotation>)>,
    pub(super) call: &'a LayerCall<'a>,
    /// The layer, `0..L`.
    pub(super) layer: usize,
}

/// One token to write: row `source` of the keys and values, row-major `[S, H, T]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Write {
    pub(super) source: usize,
    pub(super) address: Address,
    pub(super) position: Position,
    pub(super) is_pinned: bool,
}

/// One token for each of some sequences of a batch.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    /// The sequences, by their place in the batch.
    pub(super) sequences: Range<usize>,
    /// Which of the `T` rows of each.
    pub(super) token: usize,
    /// Where it stands in the text, for each of the sequences.
    pub(super) positions: Vec<usize>,
    /// Whether it has yet to be entered, or stands in the cache already.
    pub(super) is_new: bool,
}

/// What differs between pages on the host and pages on a device.
pub(super) trait Backend: fmt::Debug + Send {
    /// The rows of a layer's call, where this backend works with them.
    type Rows;

    /// Brings the call's rows to where the pages are; queries only where they are asked for.
    fn rows(&self, pass: &Pass<'_>, with_queries: bool) -> Result<Self::Rows>;

    /// Whether it attends over the prompts of this call itself.
    fn attends_itself(&self, pass: &Pass<'_>) -> bool {
        let _ = pass;
        false
    }

    /// Attention over every prompt, `[S, H * G, T, D]`. `dense` is the engine's own.
    fn attend_prompt(
        &mut self,
        pass: &mut Pass<'_>,
        rows: &mut Self::Rows,
        dense: &dyn Fn() -> Result<Tensor>,
    ) -> Result<Tensor> {
        let _ = (pass, rows);
        dense()
    }

    /// What stays of the first `length` tokens of a sequence's prompt.
    fn plan(
        &mut self,
        pass: &mut Pass<'_>,
        rows: &mut Self::Rows,
        index: usize,
        length: usize,
    ) -> Result<Kept>;

    /// Reads a later chunk of a sequence's prompt behind what the layer holds, and plans what stays where that is due. Returns the
    /// attention of the tokens that are compressed, `[1, H * G, T, D]`.
    fn read_on(
        &mut self,
        pass: &mut Pass<'_>,
        rows: &Self::Rows,
        index: usize,
        span: Span,
    ) -> Result<Tensor> {
        let _ = (pass, rows, index, span);
        bail!("prompts are read in chunks in the host's memory only"); // cannot be: refused at start-up
    }

    /// Writes rows into pages.
    fn write(&mut self, pass: &mut Pass<'_>, rows: &Self::Rows, writes: &[Write]) -> Result<()>;

    /// Enters tokens that are new and attends with each to what its heads hold: `[S, H * G, D]`. Where the policy asked for it and
    /// the tokens are new, the attention rows are added to the slots' scores.
    fn step(&mut self, pass: &mut Pass<'_>, rows: &Self::Rows, tokens: &Tokens) -> Result<Tensor>;

    /// Whether it can move tokens: without that no page is shared, for one that is has to be copied before it is written.
    fn moves_tokens(&self) -> bool {
        false
    }

    /// Whether two sequences of the batch have the same keys and values in the first `length` tokens of this layer.
    fn has_same_rows(
        &self,
        pass: &Pass<'_>,
        rows: &Self::Rows,
        sequences: [usize; 2],
        length: usize,
    ) -> bool {
        let _ = (pass, rows, sequences, length);
        false
    }

    /// What is in these pages, one after the other; `None` where it cannot be had.
    fn save(&self, pages: &[u32]) -> Option<Vec<u8>> {
        let _ = pages;
        None
    }

    /// Puts into these pages what [`Backend::save`] said of as many.
    fn restore(&mut self, pages: &[u32], bytes: &[u8]) {
        let _ = (pages, bytes);
    }

    /// Turns keys back by `by` positions, once what is to be copied first is.
    fn rebase(&mut self, rebased: &Rebased, by: usize, rotation: &Rotation) -> Result<()> {
        let _ = (rebased, by, rotation);
        bail!("keys are turned in the host's memory only"); // cannot be: refused at start-up
    }

    /// Moves tokens to other slots, in this order.
    fn compact(&mut self, moves: &[Move]) -> Result<()> {
        stay(moves)
    }

    /// Forgets what it keeps from one call to the next.
    fn reset(&mut self) {}
}

/// Refuses moves.
pub(super) fn stay(moves: &[Move]) -> Result<()> {
    if moves.is_empty() {
        return Ok(());
    }
    bail!("tokens are moved in the host's memory only"); // cannot be: such policies are refused at start-up, and nothing is shared elsewhere
}

/// A backend as the runtime holds it.
pub(super) trait Layers: fmt::Debug + Send {
    /// Attends over every prompt, plans what stays of it and writes that; then reads the prompts' last tokens through what stayed,
    /// where the configuration says so. Returns the attention, with those tokens' rows in place of the others. `dense` is the
    /// engine's own attention.
    fn prompt(&mut self, pass: &mut Pass<'_>, dense: &dyn Fn() -> Result<Tensor>)
    -> Result<Tensor>;

    /// Writes one new token per sequence and attends to what its heads hold.
    fn decode(&mut self, pass: &mut Pass<'_>) -> Result<Tensor>;

    /// As [`Backend::rebase`].
    fn rebase(&mut self, rebased: &Rebased, by: usize, rotation: &Rotation) -> Result<()>;

    /// As [`Backend::save`].
    fn save(&self, pages: &[u32]) -> Option<Vec<u8>>;

    /// As [`Backend::restore`].
    fn restore(&mut self, pages: &[u32], bytes: &[u8]);

    /// Every sequence is gone.
    fn reset(&mut self);
}

impl<B: Backend> Layers for B {
    fn prompt(
        &mut self,
        pass: &mut Pass<'_>,
        dense: &dyn Fn() -> Result<Tensor>,
    ) -> Result<Tensor> {
        let has_tails = pass.has_tails();
        pass.classify()?;
        let reads_queries = self.attends_itself(pass) || pass.opened.reads_queries() || has_tails;
        let mut rows = self.rows(pass, reads_queries)?;
        let dense = self.attend_prompt(pass, &mut rows, dense)?;
        let chunks = keep_prompts(self, pass, &mut rows)?;
        let dense = put_in(dense, &chunks)?;
        if has_tails {
            return read_tails(self, pass, &rows, &dense);
        }
        Ok(dense)
    }

    fn decode(&mut self, pass: &mut Pass<'_>) -> Result<Tensor> {
        let tokens = pass.call.queries.dims4()?.2;
        if tokens != 1 {
            bail!("a decode step of {tokens} new tokens");
        }
        let is_prompt = pass.call.batch.is_prompt;
        pass.classify()?;
        let mut rows = self.rows(pass, true)?;
        let of = |sequences: Range<usize>, is_new| Tokens {
            positions: pass.call.batch.positions[sequences.clone()].to_vec(),
            sequences,
            token: 0,
            is_new,
        };
        let count = pass.call.batch.seq_ids.len();
        let attention = if is_prompt {
            // A prompt of one token comes without a mask and so as a decode step: its plan is still due. What it was seen to
            // attend to is its whole row, so the step below adds nothing. One that goes on from a cache is as a generated token.
            let steps = (0..count).map(|index| of(index..index + 1, pass.span(index).tail > 0));
            let steps: Vec<Tokens> = steps.collect();
            keep_prompts(self, pass, &mut rows)?;
            let parts = steps.iter().map(|one| self.step(pass, &rows, one));
            Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?
        } else {
            let all = of(0..count, true);
            self.step(pass, &rows, &all)?
        };
        attention.to_dtype(pass.call.queries.dtype())
    }

    fn rebase(&mut self, rebased: &Rebased, by: usize, rotation: &Rotation) -> Result<()> {
        Backend::rebase(self, rebased, by, rotation)
    }

    fn save(&self, pages: &[u32]) -> Option<Vec<u8>> {
        Backend::save(self, pages)
    }

    fn restore(&mut self, pages: &[u32], bytes: &[u8]) {
        Backend::restore(self, pages, bytes);
    }

    fn reset(&mut self) {
        Backend::reset(self);
    }
}

impl<'a> Pass<'a> {
    /// The layer that a call speaks of.
    pub(super) fn layer_of(opened: &Opened, call: &LayerCall<'_>) -> Result<usize> {
        if let Some(window) = call
            .sliding_window
            .filter(|&window| window < opened.geometry.max_positions)
        {
            bail!(
                "a KV-cache policy cannot serve a layer with a sliding window of {window} tokens"
            );
        }
        match opened.layers.get(&call.cache) {
            Some(&layer) => Ok(layer),
            None => bail!("a layer's cache does not belong to this KV-cache pool"),
        }
    }

    /// New tokens of each sequence, with padding: `T`.
    ///
    /// # Errors
    ///
    /// A shape that does not fit the model.
    pub(super) fn check_shapes(&self) -> Result<usize> {
        let (call, geometry) = (self.call, &self.opened.geometry);
        let (sequences, heads, tokens, dim) = call.keys.dims4()?;
        let expected = (
            call.batch.seq_ids.len(),
            geometry.kv_heads,
            geometry.head_dim,
        );
        if (sequences, heads, dim) != expected || call.values.dims() != call.keys.dims() {
            bail!(
                "keys of shape {:?} and values of shape {:?} for {} sequences of {} KV heads of {} dimensions",
                call.keys.dims(),
                call.values.dims(),
                expected.0,
                expected.1,
                expected.2
            );
        }
        let query_heads = heads * geometry.group;
        if call.queries.dims() != [sequences, query_heads, tokens, dim] {
            bail!(
                "queries of shape {:?} for {sequences} sequences of {tokens} new tokens of {query_heads} heads of {dim} dimensions",
                call.queries.dims(),
            );
        }
        Ok(tokens)
    }

    /// Tells the ledger what kind of text the new tokens are, once for all layers, if a policy goes by it.
    fn classify(&mut self) -> Result<()> {
        if !self.opened.needs.reads.classes || self.layer != 0 {
            return Ok(());
        }
        let batch = self.call.batch;
        for (index, &length) in batch.new_lens.iter().enumerate() {
            let tokens = numbers(&batch.tokens.i(index)?.narrow(0, 0, length)?)?;
            let classes = self.opened.sources.classes_of(&tokens);
            let first = Position::new(batch.positions[index]);
            let noted = self.ledger.classify(self.seq(index), first, &classes);
            noted.map_err(cache_error)?;
        }
        Ok(())
    }

    /// Which new tokens of the batch's sequence `index` are compressed, and which are read through the compressed cache: all, where the
    /// sequence goes on from a cache.
    pub(super) fn span(&self, index: usize) -> Span {
        let batch = self.call.batch;
        let (first, length) = (batch.positions[index], batch.new_lens[index]);
        if self.goes_on(index) {
            return Span::of(first, length, first);
        }
        let prompt = first + length + batch.to_come;
        let tail = self.terms(index).tail(self.prompt_tail, prompt);
        Span::of(first, length, prompt - tail)
    }

    /// Whether the prompt of the batch's sequence `index` is behind a text that its cache holds.
    pub(super) fn goes_on(&self, index: usize) -> bool {
        let open = self.open.get(&self.seq(index));
        open.is_some_and(Open::goes_on)
    }

    /// Notes what a pass reads of the prompt of the batch's sequence `index`, once for all layers. Refuses one that does not begin where
    /// its cache ends.
    fn begin_prompt(&mut self, index: usize, span: Span) -> Result<()> {
        if self.layer > 0 {
            return Ok(());
        }
        let seq = self.seq(index);
        let seen = self.ledger.sequence(seq).map_err(cache_error)?.seen();
        if span.first != seen {
            bail!(
                "a prompt begins at token {}, its cache holds a text of {seen}",
                span.first
            ); // cannot be: the engine was told so
        }
        if let Some(open) = self.open.get_mut(&seq).filter(|open| !open.is_resumed) {
            self.counts.prompts += u64::from(self.call.batch.to_come == 0);
            open.tail += span.tail;
            if open.known > 0 && open.known == span.first {
                self.idle.note_hit(span.first);
            }
        }
        Ok(())
    }

    /// Whether some of the prompts are read through the compressed cache, as a whole or their ends.
    fn has_tails(&self) -> bool {
        (0..self.call.batch.seq_ids.len()).any(|index| self.span(index).tail > 0)
    }

    /// Notes which tokens all layers have read now.
    pub(super) fn note_tokens(&mut self) -> Result<()> {
        let batch = self.call.batch;
        for (index, &length) in batch.new_lens.iter().enumerate() {
            if let Some(open) = self.open.get_mut(&SeqId(batch.seq_ids[index])) {
                let new = batch.tokens.i(index)?.narrow(0, 0, length)?;
                open.tokens.extend(numbers(&new)?);
            }
        }
        Ok(())
    }

    /// The id of the batch's sequence `index`.
    pub(super) fn seq(&self, index: usize) -> SeqId {
        SeqId(self.call.batch.seq_ids[index])
    }

    /// Under what the batch's sequence `index` is kept.
    pub(super) fn terms(&self, index: usize) -> Arc<Terms> {
        let open = self.open.get(&self.seq(index));
        open.map_or(&self.opened.terms, |open| &open.terms).clone()
    }

    /// What the queries of the batch's sequence `index` see in each head of this layer, `[H]`.
    pub(super) fn sights(&self, index: usize) -> Vec<Sight> {
        let terms = self.terms(index);
        let heads = 0..self.opened.geometry.kv_heads;
        heads
            .map(|head| terms.policy.sight(self.layer, head))
            .collect()
    }

    /// Refuses heads that stream a prompt whose mask is not the plain causal one.
    pub(super) fn check_sights(&self) -> Result<()> {
        let streams = (0..self.call.batch.seq_ids.len()).any(|index| {
            self.sights(index)
                .iter()
                .any(|&sight| sight != Sight::Causal)
        });
        if streams {
            bail!(
                "the policy {} shows heads a part of the prompt only, and this model masks its prompt in a way of its own",
                self.config.policy
            );
        }
        Ok(())
    }

    /// A prompt of `length` tokens, of which nothing was observed.
    pub(super) fn blind_view(&self, terms: &Terms, length: usize) -> LayerView<'a> {
        let geometry = &self.opened.geometry;
        let budget = terms.tokens(geometry, length);
        LayerView::prefill(self.layer, geometry.kv_heads, length, budget)
    }
}

pub(super) fn cache_error(error: CacheError) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

/// Plans what stays of every prompt and writes it. Returns the attention of those that read a later chunk, by their place in the batch.
fn keep_prompts<B: Backend + ?Sized>(
    backend: &mut B,
    pass: &mut Pass<'_>,
    rows: &mut B::Rows,
) -> Result<Vec<(usize, Tensor)>> {
    let tokens = pass.check_shapes()?;
    let heads = pass.opened.geometry.kv_heads;
    let mut writes = Vec::new();
    let mut chunks = Vec::new();
    for index in 0..pass.call.batch.seq_ids.len() {
        let (seq, span) = (pass.seq(index), pass.span(index));
        pass.begin_prompt(index, span)?;
        if span.compressed == 0 {
            continue;
        }
        if !span.is_last() && !backend.attends_itself(pass) {
            bail!(
                "this model masks its prompt in a way of its own, and such a prompt cannot be read in chunks: set prefill-chunk to 0"
            );
        }
        if span.reads_on() {
            chunks.push((index, backend.read_on(pass, rows, index, span)?));
            end_prompt(backend, pass, index, span)?;
            continue;
        }
        let length = span.compressed;
        let terms = pass.terms(index);
        if span.is_last() && share_with_twin(backend, pass, rows, (index, length))? {
            continue;
        }
        let mut kept = if !span.is_last() && terms.needs.chunks() != Chunks::Each {
            let view = pass.blind_view(&terms, length);
            KeepPlan::all(heads).resolve(&view, &terms.pins)
        } else {
            backend.plan(pass, rows, index, length)?
        };
        if !span.is_last() {
            until_whole(&mut kept);
        }
        terms.check()?;
        // Before the layer's own tokens come, so that all layers together stay within what they were promised.
        cut_earlier(backend, pass, index, &terms)?;
        let addresses = pass
            .ledger
            .write_prompt(seq, pass.layer, length, &kept)
            .map_err(cache_error)?;
        for (head, (slots, addresses)) in kept.slots.iter().zip(addresses).enumerate() {
            let first = (index * heads + head) * tokens;
            writes.extend(slots.iter().zip(addresses).map(|(&slot, address)| Write {
                source: first + slot as usize,
                address,
                position: Position(slot),
                is_pinned: terms.pins.contains(Position(slot)),
            }));
        }
        end_prompt(backend, pass, index, span)?;
    }
    backend.write(pass, rows, &writes)?;
    Ok(chunks)
}

/// What follows when a layer has compressed a chunk of a prompt, or the whole.
fn end_prompt<B: Backend + ?Sized>(
    backend: &B,
    pass: &mut Pass<'_>,
    index: usize,
    span: Span,
) -> Result<()> {
    pass.check_gaps(pass.seq(index))?;
    if !span.is_last() {
        return Ok(());
    }
    if backend.moves_tokens() {
        pass.share_prefix(index, span.end())?;
    }
    if span.reads_on() && pass.layer + 1 == pass.opened.geometry.layers {
        let noted = pass.ledger.note_prompt(pass.seq(index), span.end(), true);
        noted.map_err(cache_error)?;
    }
    Ok(())
}

/// The attention over prompts, with that of later chunks in its place.
fn put_in(dense: Tensor, chunks: &[(usize, Tensor)]) -> Result<Tensor> {
    if chunks.is_empty() {
        return Ok(dense);
    }
    let (sequences, _, tokens, _) = dense.dims4()?;
    let row = |index| {
        let one = dense.narrow(0, index, 1)?;
        let Some((_, chunk)) = chunks.iter().find(|(of, _)| *of == index) else {
            return Ok(one);
        };
        let read = chunk.dim(2)?;
        let behind = one.narrow(2, read, tokens - read)?;
        Tensor::cat(&[&chunk.to_dtype(dense.dtype())?, &behind], 2)
    };
    let rows: Vec<Tensor> = (0..sequences).map(row).collect::<Result<_>>()?;
    Tensor::cat(&rows, 0)
}

/// Reads the last tokens of every prompt through its compressed cache, one after the other, as if they were decoded.
fn read_tails<B: Backend + ?Sized>(
    backend: &mut B,
    pass: &mut Pass<'_>,
    rows: &B::Rows,
    dense: &Tensor,
) -> Result<Tensor> {
    let mut batch = Vec::with_capacity(pass.call.batch.new_lens.len());
    for (index, &length) in pass.call.batch.new_lens.iter().enumerate() {
        let dense = dense.narrow(0, index, 1)?;
        let first = pass.span(index).compressed;
        let mut parts = Vec::with_capacity(length - first + 2);
        if first > 0 {
            parts.push(dense.narrow(2, 0, first)?);
        }
        for token in first..length {
            let one = Tokens {
                sequences: index..index + 1,
                token,
                positions: vec![pass.call.batch.positions[index] + token],
                is_new: true,
            };
            let row = backend.step(pass, rows, &one)?;
            parts.push(row.to_dtype(dense.dtype())?.unsqueeze(2)?);
        }
        let padding = dense.dim(2)? - length;
        if padding > 0 {
            parts.push(dense.narrow(2, length, padding)?);
        }
        batch.push(Tensor::cat(&parts, 2)?);
    }
    Tensor::cat(&batch, 0)
}
