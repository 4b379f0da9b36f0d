//! Pages in the host's memory.
use std::{mem, ops::Range, time::Instant};

use attention_kernels::{
    AttendArgs, AttendPromptArgs, CopyRow, Front, HeadSlots, KernelError, PageStore, PromptArgs,
    RopeStyle, RowShift, RowWrite, ShiftArgs, Workspace, WriteArgs, attend_into,
    attend_observed_into, attend_prompt, attend_with_front_into, copy_rows, observe, shift, write,
};
use candle_core::{DType, Result, Tensor, bail};
use kv_core::{
    Address, Entered, Geometry, HeadTable, Kept, Ledger, Move, Needs, Observation, Position,
    Rebased, Rotation, SeqId,
};

use super::{
    cascade::make_place,
    chunks::Span,
    parts::Parts,
    pass::{Backend, Pass, Tokens, Write, cache_error},
    relative::{Asking, Fronts},
};

/// The pages of a pool on the CPU.
#[derive(Debug)]
pub(super) struct HostBackend {
    pub(super) store: PageStore,
    pub(super) buffers: Buffers,
}

/// What decode steps work in, from one to the next.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) workspace: Workspace,
    /// Attention rows.
    rows: Vec<f32>,
    pub(super) entered: Entered<Address>,
    /// Fronts behind a gap, and their queries.
    fronts: Fronts,
    writes: Vec<RowWrite>,
}

/// What a layer's call brings, in rows of `D`.
pub(super) struct HostRows {
    /// Row `(s * H * G + q) * T + t`; empty unless they are read.
    queries: Vec<f32>,
    /// Row `(s * H + h) * T + t`.
    keys: Vec<f32>,
    /// As the keys.
    values: Vec<f32>,
    /// What attention over the prompts saw on its way, `[S]`; empty where it was not asked to.
    seen: Vec<Option<Vec<f32>>>,
    /// New tokens with padding, `T`.
    pub(super) tokens: usize,
}

impl HostRows {
    /// Keys of one sequence of the batch, `[H, T, D]`.
    fn keys_of(&self, index: usize, geometry: &Geometry) -> &[f32] {
        let one = geometry.kv_heads * self.tokens * geometry.head_dim;
        &self.keys[index * one..(index + 1) * one]
    }

    /// Values of one sequence of the batch, `[H, T, D]`.
    fn values_of(&self, index: usize, geometry: &Geometry) -> &[f32] {
        let one = geometry.kv_heads * self.tokens * geometry.head_dim;
        &self.values[index * one..(index + 1) * one]
    }

    /// Some of the rows, to be written.
    pub(super) fn write<'a>(&'a self, rows: &'a [RowWrite]) -> WriteArgs<'a> {
        WriteArgs {
            keys: &self.keys,
            values: &self.values,
            rows,
        }
    }

    /// The first `length` tokens of one sequence's prompt.
    fn prompt(&self, pass: &Pass<'_>, index: usize, length: usize) -> PromptArgs<'_> {
        let geometry = &pass.opened.geometry;
        PromptArgs {
            queries: self.queries_of(index, geometry),
            keys: self.keys_of(index, geometry),
            rows: self.tokens,
            tokens: length,
            group: geometry.group,
            head_dim: geometry.head_dim,
            scale: pass.call.softmax_scale,
            softcap: pass.call.softcap,
        }
    }

    /// Queries of one sequence of the batch, `[H * G, T, D]`; empty where they were not read.
    pub(super) fn queries_of(&self, index: usize, geometry: &Geometry) -> &[f32] {
        let one = geometry.kv_heads * geometry.group * self.tokens * geometry.head_dim;
        self.queries
            .get(index * one..(index + 1) * one)
            .unwrap_or_default()
    }

    /// The queries of one new token of some sequences, `[S, H * G, D]`.
    fn queries_at(&self, tokens: &Tokens, geometry: &Geometry) -> Vec<f32> {
        let dim = geometry.head_dim;
        let sequences = tokens.sequences.clone();
        let heads = sequences.flat_map(|index| {
            let queries = self.queries_of(index, geometry);
            queries.chunks_exact(self.tokens * dim)
        });
        heads
            .flat_map(|head| &head[tokens.token * dim..(tokens.token + 1) * dim])
            .copied()
            .collect()
    }
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

pub(super) fn kernel_error(error: KernelError) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

impl HostBackend {
    pub(super) fn new(store: PageStore) -> Self {
        Self {
            store,
            buffers: Buffers::default(),
        }
    }
}

impl Backend for HostBackend {
    type Rows = HostRows;

    fn rows(&self, pass: &Pass<'_>, with_queries: bool) -> Result<HostRows> {
        let tokens = pass.check_shapes()?;
        let call = pass.call;
        let queries = if with_queries {
            floats(call.queries)?
        } else {
            Vec::new()
        };
        Ok(HostRows {
            queries,
            keys: floats(call.keys)?,
            values: floats(call.values)?,
            seen: Vec::new(),
            tokens,
        })
    }

    fn attends_itself(&self, pass: &Pass<'_>) -> bool {
        pass.call.is_causal
    }

    fn attend_prompt(
        &mut self,
        pass: &mut Pass<'_>,
        rows: &mut HostRows,
        dense: &dyn Fn() -> Result<Tensor>,
    ) -> Result<Tensor> {
        let geometry = pass.opened.geometry;
        if !self.attends_itself(pass) {
            pass.check_sights()?;
            return dense();
        }
        let Needs {
            observation,
            reduction,
            ..
        } = pass.opened.needs;
        let mut out = vec![0.0; rows.queries.len()];
        let one = geometry.kv_heads * geometry.group * rows.tokens * geometry.head_dim;
        for (index, out) in out.chunks_exact_mut(one).enumerate() {
            let length = pass.call.batch.new_lens[index];
            let span = pass.span(index);
            if span.compressed == 0 || span.reads_on() {
                rows.seen.push(None);
                continue;
            }
            // A prompt whose last tokens are read afterwards is observed without them.
            let sees = span.tail == 0 && span.is_last();
            let observation = if sees { observation } else { Observation::None };
            let args = AttendPromptArgs {
                prompt: rows.prompt(pass, index, length),
                values: rows.values_of(index, &geometry),
                sights: &pass.sights(index),
            };
            pass.counts.kernels.attend_prompt += 1;
            let start = Instant::now();
            let seen = attend_prompt(&args, observation, reduction, out).map_err(kernel_error)?;
            pass.counts.time.attend_prompt += start.elapsed();
            if sees {
                pass.counts.kernels.note_observation(observation);
            }
            rows.seen.push(seen);
        }
        let shape = pass.call.queries.shape();
        Tensor::from_vec(out, shape, pass.call.queries.device())?
            .to_dtype(pass.call.queries.dtype())
    }

    fn plan(
        &mut self,
        pass: &mut Pass<'_>,
        rows: &mut HostRows,
        index: usize,
        length: usize,
    ) -> Result<Kept> {
        let (observation, reduction) = {
            let needs = &pass.opened.needs;
            (needs.observation, needs.reduction)
        };
        let seen = rows.seen.get_mut(index).and_then(Option::take);
        let scores = if seen.is_some() {
            seen
        } else {
            pass.counts.kernels.note_observation(observation);
            let prompt = rows.prompt(pass, index, length);
            let start = Instant::now();
            let seen = observe(observation, reduction, &prompt).map_err(kernel_error)?;
            pass.counts.time.observe += start.elapsed();
            seen
        };
        let start = Instant::now();
        let terms = pass.terms(index);
        let parts = Parts::read(pass, index, length)?;
        let shown = parts.shown(pass, length);
        let mut blind = pass.blind_view(&terms, length);
        if let Some(shown) = &shown {
            blind = blind.with_rows(shown);
        }
        let kept = match &scores {
            None => pass.resolve(index, &terms, &blind),
            Some(scores) => {
                let by_head: Vec<&[f32]> = scores.chunks_exact(length).collect();
                pass.resolve(index, &terms, &blind.with_scores(observation, &by_head))
            }
        };
        let mut kept = kept?;
        kept.forget_idle_scores(&pass.opened.needs);
        pass.counts.time.plan += start.elapsed();
        Ok(kept)
    }

    fn read_on(
        &mut self,
        pass: &mut Pass<'_>,
        rows: &HostRows,
        index: usize,
        span: Span,
    ) -> Result<Tensor> {
        self.read_chunk(pass, rows, (index, span))
    }

    fn write(&mut self, pass: &mut Pass<'_>, rows: &HostRows, writes: &[Write]) -> Result<()> {
        let writes: Vec<RowWrite> = writes
            .iter()
            .map(|row| RowWrite::at(row.source, row.address))
            .collect();
        pass.counts.kernels.write += 1;
        write(&mut self.store, &rows.write(&writes)).map_err(kernel_error)
    }

    fn moves_tokens(&self) -> bool {
        true
    }

    fn has_same_rows(
        &self,
        pass: &Pass<'_>,
        rows: &HostRows,
        sequences: [usize; 2],
        length: usize,
    ) -> bool {
        let geometry = &pass.opened.geometry;
        let bits = |one: &f32, other: &f32| one.to_bits() == other.to_bits();
        let same = |[one, other]: [&[f32]; 2]| {
            let head = rows.tokens * geometry.head_dim;
            let heads = one.chunks_exact(head).zip(other.chunks_exact(head));
            let mut begun = heads.map(|(one, other)| {
                let read = length * geometry.head_dim;
                (&one[..read], &other[..read])
            });
            begun.all(|(one, other)| one.iter().zip(other).all(|(a, b)| bits(a, b)))
        };
        same(sequences.map(|index| rows.keys_of(index, geometry)))
            && same(sequences.map(|index| rows.values_of(index, geometry)))
    }

    fn rebase(&mut self, rebased: &Rebased, by: usize, rotation: &Rotation) -> Result<()> {
        self.compact(&rebased.moves)?;
        let Ok(by) = i32::try_from(by) else {
            bail!("keys to be turned back by {by} positions at once");
        };
        let turn = |key: &Address| RowShift {
            page: key.page().0,
            offset: key.offset(),
            by: -by,
        };
        let rows: Vec<RowShift> = rebased.keys.iter().map(turn).collect();
        let (cos, sin) = rotation.tables();
        let args = ShiftArgs {
            rows: &rows,
            cos,
            sin,
            rotary_dim: 2 * rotation.pairs(),
            style: if rotation.is_adjacent() {
                RopeStyle::Interleaved
            } else {
                RopeStyle::Halves
            },
        };
        shift(&mut self.store, &args).map_err(kernel_error)
    }

    fn save(&self, pages: &[u32]) -> Option<Vec<u8>> {
        let contents = pages.iter().flat_map(|&page| self.store.page(page));
        Some(contents.copied().collect())
    }

    fn restore(&mut self, pages: &[u32], bytes: &[u8]) {
        if pages.is_empty() {
            return;
        }
        let contents = bytes.chunks_exact(bytes.len() / pages.len());
        for (&page, bytes) in pages.iter().zip(contents) {
            self.store.put_page(page, bytes);
        }
    }

    fn compact(&mut self, moves: &[Move]) -> Result<()> {
        if moves.is_empty() {
            return Ok(());
        }
        let rows: Vec<CopyRow> = moves.iter().map(CopyRow::of).collect();
        copy_rows(&mut self.store, &rows).map_err(kernel_error)
    }

    fn step(&mut self, pass: &mut Pass<'_>, rows: &HostRows, tokens: &Tokens) -> Result<Tensor> {
        let geometry = pass.opened.geometry;
        if tokens.is_new {
            let start = Instant::now();
            make_place(self, pass, tokens)?;
            append(&mut self.buffers, pass, rows, tokens)?;
            let moves = mem::take(&mut self.buffers.entered.moves);
            self.compact(&moves)?;
            let writes = rows.write(&self.buffers.writes);
            write(&mut self.store, &writes).map_err(kernel_error)?;
            pass.counts.kernels.write += 1;
            pass.counts.time.write += start.elapsed();
        }
        let queries = rows.queries_at(tokens, &geometry);
        let out = self.attend(pass, tokens, &queries)?;
        let shape = (
            tokens.sequences.len(),
            geometry.kv_heads * geometry.group,
            geometry.head_dim,
        );
        Tensor::from_vec(out, shape, pass.call.queries.device())
    }
}

/// Enters one new token of some sequences, and says where its rows are written.
fn append(
    buffers: &mut Buffers,
    pass: &mut Pass<'_>,
    rows: &HostRows,
    tokens: &Tokens,
) -> Result<()> {
    let heads = pass.opened.geometry.kv_heads;
    buffers.entered.clear();
    buffers.writes.clear();
    for (index, &position) in tokens.sequences.clone().zip(&tokens.positions) {
        let first = buffers.entered.heads.len();
        let position = Position::new(position);
        pass.ledger
            .append_into(pass.seq(index), pass.layer, position, &mut buffers.entered)
            .map_err(cache_error)?;
        let source = |head| (index * heads + head) * rows.tokens + tokens.token;
        let added = buffers.entered.heads[first..].iter().enumerate();
        let writes = added.map(|(head, &at)| RowWrite::at(source(head), at));
        buffers.writes.extend(writes);
    }
    Ok(())
}

impl HostBackend {
    /// Attends with `[S, H * G, D]` queries to what the heads hold.
    fn attend(
        &mut self,
        pass: &mut Pass<'_>,
        tokens: &Tokens,
        queries: &[f32],
    ) -> Result<Vec<f32>> {
        let opened = pass.opened;
        let sequences: Vec<SeqId> = tokens
            .sequences
            .clone()
            .map(|index| pass.seq(index))
            .collect();
        let heads = slots(
            pass.ledger,
            &sequences,
            pass.layer,
            0..opened.geometry.kv_heads,
        )?;
        let args = AttendArgs {
            queries,
            heads: &heads,
            group: opened.geometry.group,
            scale: pass.call.softmax_scale,
            softcap: pass.call.softcap,
        };
        let mut out = vec![0.0; queries.len()];
        let start = Instant::now();
        if let Some(rotation) = pass.relative() {
            if pass.watch.is_on() {
                bail!("attention rows are told of positions in the text only");
            }
            let asking = asking(pass, &sequences, &tokens.positions)?;
            self.buffers
                .attend_relative(&self.store, (&args, &rotation), &asking, &mut out)?;
            pass.counts.kernels.attend += 1;
            pass.counts.time.attend += start.elapsed();
            return Ok(out);
        }
        pass.watch
            .tell(&self.store, &args, pass.layer, &tokens.positions)?;
        if !(tokens.is_new && opened.needs.observation.watches_decode()) {
            pass.counts.kernels.attend += 1;
            attend_into(&self.store, &args, &mut self.buffers.workspace, &mut out)
                .map_err(kernel_error)?;
            pass.counts.time.attend += start.elapsed();
            return Ok(out);
        }
        pass.counts.kernels.attend_observed += 1;
        let reduce = opened.needs.reduction.group;
        let Buffers {
            workspace, rows, ..
        } = &mut self.buffers;
        rows.resize(heads.iter().map(|head| head.len).sum(), 0.0);
        attend_observed_into(&self.store, &args, reduce, workspace, &mut out, rows)
            .map_err(kernel_error)?;
        pass.counts.time.attend += start.elapsed();
        let start = Instant::now();
        let mut rows = self.buffers.rows.as_slice();
        for seq in sequences {
            let heads = pass.ledger.heads(seq, pass.layer).map_err(cache_error)?;
            let (one, rest) = rows.split_at(heads.iter().map(HeadTable::len).sum());
            let noted = pass.ledger.note_rows(seq, pass.layer, &opened.needs, one);
            noted.map_err(cache_error)?;
            rows = rest;
        }
        pass.counts.time.note += start.elapsed();
        Ok(out)
    }
}

impl Buffers {
    /// Attends where positions are those of the cache: to each head's front by queries of their own.
    pub(super) fn attend_relative(
        &mut self,
        store: &PageStore,
        (args, rotation): (&AttendArgs<'_>, &Rotation),
        asking: &[Asking<'_>],
        out: &mut [f32],
    ) -> Result<()> {
        let head_dim = store.layout().head_dim();
        self.fronts.see(rotation, asking, (args.queries, head_dim));
        let front = Front {
            queries: &self.fronts.queries,
            tokens: &self.fronts.tokens,
        };
        let workspace = &mut self.workspace;
        attend_with_front_into(store, args, &front, workspace, out).map_err(kernel_error)
    }
}

/// Who asks in a decode step, `[S * H]`.
fn asking<'a>(
    pass: &'a Pass<'_>,
    sequences: &[SeqId],
    positions: &[usize],
) -> Result<Vec<Asking<'a>>> {
    let mut asking = Vec::with_capacity(sequences.len() * pass.opened.geometry.kv_heads);
    for (&seq, &position) in sequences.iter().zip(positions) {
        let base = pass.ledger.sequence(seq).map_err(cache_error)?.base();
        let tables = pass.ledger.heads(seq, pass.layer).map_err(cache_error)?;
        asking.extend(tables.iter().map(|table| Asking {
            table,
            len: table.len(),
            position,
            base,
        }));
    }
    Ok(asking)
}

/// What the heads of one layer hold, sequence by sequence.
fn slots<'a>(
    ledger: &'a Ledger,
    sequences: &[SeqId],
    layer: usize,
    heads: Range<usize>,
) -> Result<Vec<HeadSlots<'a>>> {
    let mut slots = Vec::with_capacity(sequences.len() * heads.len());
    for &seq in sequences {
        let tables = ledger.heads(seq, layer).map_err(cache_error)?;
        slots.extend(tables[heads.clone()].iter().map(|table| HeadSlots {
            pages: table.page_ids(),
            len: table.len(),
        }));
    }
    Ok(slots)
}
