//! Pages in the host's memory.
use std::ops::Range;

use attention_kernels::{
    AttendArgs, CopyRow, HeadSlots, KernelError, Observed, PageStore, PromptArgs, RowWrite,
    WriteArgs, attend, attend_observed, copy_rows, observe, write,
};
use candle_core::{DType, Result, Tensor};
use kv_core::{Geometry, HeadTable, Kept, Ledger, Move, Position, SeqId};

use super::{
    KernelCalls,
    cascade::make_place,
    parts::Parts,
    pass::{Backend, Pass, Tokens, Write, cache_error},
};

/// The pages of a pool on the CPU.
#[derive(Debug)]
pub(super) struct HostBackend {
    store: PageStore,
}

/// What a layer's call brings, in rows of `D`.
pub(super) struct HostRows {
    /// Row `(s * H * G + q) * T + t`; empty unless they are read.
    queries: Vec<f32>,
    /// Row `(s * H + h) * T + t`.
    keys: Vec<f32>,
    /// As the keys.
    values: Vec<f32>,
    /// New tokens with padding, `T`.
    tokens: usize,
}

impl HostRows {
    /// Keys of one sequence of the batch, `[H, T, D]`.
    fn keys_of(&self, index: usize, geometry: &Geometry) -> &[f32] {
        let one = geometry.kv_heads * self.tokens * geometry.head_dim;
        &self.keys[index * one..(index + 1) * one]
    }

    /// Queries of one sequence of the batch, `[H * G, T, D]`; empty where they were not read.
    fn queries_of(&self, index: usize, geometry: &Geometry) -> &[f32] {
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

fn kernel_error(error: KernelError) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

impl HostBackend {
    pub(super) const fn new(store: PageStore) -> Self {
        Self { store }
    }

    fn write_rows(
        &mut self,
        calls: &mut KernelCalls,
        rows: &HostRows,
        writes: &[RowWrite],
    ) -> Result<()> {
        calls.write += 1;
        let args = WriteArgs {
            keys: &rows.keys,
            values: &rows.values,
            rows: writes,
        };
        write(&mut self.store, &args).map_err(kernel_error)
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
            tokens,
        })
    }

    fn plan(
        &mut self,
        pass: &mut Pass<'_>,
        rows: &mut HostRows,
        index: usize,
        length: usize,
    ) -> Result<Kept> {
        let (opened, geometry) = (pass.opened, &pass.opened.geometry);
        let (observation, reduction) = (opened.needs.observation, opened.needs.reduction);
        let prompt = PromptArgs {
            queries: rows.queries_of(index, geometry),
            keys: rows.keys_of(index, geometry),
            rows: rows.tokens,
            tokens: length,
            group: geometry.group,
            head_dim: geometry.head_dim,
            scale: pass.call.softmax_scale,
            softcap: pass.call.softcap,
        };
        pass.counts.kernels.note_observation(observation);
        let scores = observe(observation, reduction, &prompt).map_err(kernel_error)?;
        let terms = pass.terms(index);
        let parts = Parts::read(pass, index, length)?;
        let shown = parts.shown(pass, length);
        let mut blind = pass.blind_view(&terms, length);
        if let Some(shown) = &shown {
            blind = blind.with_rows(shown);
        }
        match &scores {
            None => pass.resolve(index, &terms, &blind),
            Some(scores) => {
                let by_head: Vec<&[f32]> = scores.chunks_exact(length).collect();
                pass.resolve(index, &terms, &blind.with_scores(observation, &by_head))
            }
        }
    }

    fn write(&mut self, pass: &mut Pass<'_>, rows: &HostRows, writes: &[Write]) -> Result<()> {
        let writes: Vec<RowWrite> = writes
            .iter()
            .map(|row| RowWrite::at(row.source, row.address))
            .collect();
        self.write_rows(&mut pass.counts.kernels, rows, &writes)
    }

    fn compact(&mut self, moves: &[Move]) -> Result<()> {
        let copied = |step: &Move| {
            let [from, to] = [step.from, step.to].map(|address| RowWrite::at(0, address));
            CopyRow {
                from_page: from.page,
                from_offset: from.offset,
                to_page: to.page,
                to_offset: to.offset,
            }
        };
        let rows: Vec<CopyRow> = moves.iter().map(copied).collect();
        copy_rows(&mut self.store, &rows).map_err(kernel_error)
    }

    fn step(&mut self, pass: &mut Pass<'_>, rows: &HostRows, tokens: &Tokens) -> Result<Tensor> {
        let geometry = pass.opened.geometry;
        if tokens.is_new {
            make_place(self, pass, tokens)?;
            let writes = append(pass, rows, tokens)?;
            self.write_rows(&mut pass.counts.kernels, rows, &writes)?;
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
fn append(pass: &mut Pass<'_>, rows: &HostRows, tokens: &Tokens) -> Result<Vec<RowWrite>> {
    let heads = pass.opened.geometry.kv_heads;
    let mut writes = Vec::with_capacity(tokens.sequences.len() * heads);
    for (index, &position) in tokens.sequences.clone().zip(&tokens.positions) {
        let addresses = pass
            .ledger
            .append(pass.seq(index), pass.layer, Position::new(position))
            .map_err(cache_error)?;
        let source = |head| (index * heads + head) * rows.tokens + tokens.token;
        let rows = addresses.into_iter().enumerate();
        writes.extend(rows.map(|(head, at)| RowWrite::at(source(head), at)));
    }
    Ok(writes)
}

impl HostBackend {
    /// Attends with `[S, H * G, D]` queries to what the heads hold.
    fn attend(&self, pass: &mut Pass<'_>, tokens: &Tokens, queries: &[f32]) -> Result<Vec<f32>> {
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
        if !(tokens.is_new && opened.needs.observation.watches_decode()) {
            pass.counts.kernels.attend += 1;
            return attend(&self.store, &args).map_err(kernel_error);
        }
        pass.counts.kernels.attend_observed += 1;
        let reduce = opened.needs.reduction.group;
        let Observed { out, rows } =
            attend_observed(&self.store, &args, reduce).map_err(kernel_error)?;
        let mut rows = rows.as_slice();
        for seq in sequences {
            let held = (0..opened.geometry.kv_heads).map(|head| {
                let table = pass.ledger.head(seq, pass.layer, head);
                table.map(HeadTable::len)
            });
            let held = held.sum::<std::result::Result<usize, _>>();
            let (one, rest) = rows.split_at(held.map_err(cache_error)?);
            let noted = pass.ledger.note_rows(seq, pass.layer, &opened.needs, one);
            noted.map_err(cache_error)?;
            rows = rest;
        }
        Ok(out)
    }
}

/// What the heads of one layer hold, sequence by sequence.
fn slots<'a>(
    ledger: &'a Ledger,
    sequences: &[SeqId],
    layer: usize,
    heads: Range<usize>,
) -> Result<Vec<HeadSlots<'a>>> {
    let all = sequences
        .iter()
        .flat_map(|&seq| heads.clone().map(move |head| (seq, head)));
    all.map(|(seq, head)| {
        let table = ledger.head(seq, layer, head).map_err(cache_error)?;
        Ok(HeadSlots {
            pages: table.page_ids(),
            len: table.len(),
        })
    })
    .collect()
}
