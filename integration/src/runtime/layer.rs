//! One layer of one forward pass.
use attention_kernels::{
    AttendArgs, HeadSlots, KernelError, Observed, RowWrite, WriteArgs, attend, attend_observed,
    write,
};
use candle_core::{DType, Result, Tensor, bail};
use kv_core::{
    Address, CacheError, Geometry, KeepPlan, Kept, LayerView, Observation, Position, SeqId,
};
use kv_hook::LayerCall;

use super::{
    Opened, State,
    observe::{PromptRows, observe, reads_queries},
};
use crate::CacheConfig;

/// What a layer's call brings, in rows of `D`.
struct NewRows {
    /// Row `(s * H * G + q) * T + t`; empty unless they are read.
    queries: Vec<f32>,
    /// Row `(s * H + h) * T + t`.
    keys: Vec<f32>,
    /// As the keys.
    values: Vec<f32>,
    /// New tokens with padding, `T`.
    tokens: usize,
}

impl NewRows {
    fn read(geometry: &Geometry, call: &LayerCall<'_>, with_queries: bool) -> Result<Self> {
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
        let queries = if with_queries {
            floats(call.queries)?
        } else {
            Vec::new()
        };
        Ok(Self {
            queries,
            keys: floats(call.keys)?,
            values: floats(call.values)?,
            tokens,
        })
    }

    fn args<'a>(&'a self, rows: &'a [RowWrite]) -> WriteArgs<'a> {
        WriteArgs {
            keys: &self.keys,
            values: &self.values,
            rows,
        }
    }

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

    /// The queries of one new token of one sequence, `[H * G, D]`.
    fn query_of(&self, index: usize, token: usize, geometry: &Geometry) -> Vec<f32> {
        let dim = geometry.head_dim;
        self.queries_of(index, geometry)
            .chunks_exact(self.tokens * dim)
            .flat_map(|head| &head[token * dim..(token + 1) * dim])
            .copied()
            .collect()
    }
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}

fn cache_error(error: CacheError) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

fn kernel_error(error: KernelError) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

fn row_write(source: usize, address: Address) -> RowWrite {
    RowWrite {
        source,
        page: address.page.0,
        offset: Position::new(address.offset).0,
    }
}

impl Opened {
    fn layer(&self, call: &LayerCall<'_>) -> Result<usize> {
        if let Some(window) = call
            .sliding_window
            .filter(|&window| window < self.geometry.max_positions)
        {
            bail!(
                "a KV-cache policy cannot serve a layer with a sliding window of {window} tokens"
            );
        }
        match self.layers.get(&call.cache) {
            Some(&layer) => Ok(layer),
            None => bail!("a layer's cache does not belong to this KV-cache pool"),
        }
    }
}

/// Plans what stays of every prompt and writes it; then reads the prompts' last tokens through what stayed, where the
/// configuration says so. Returns `dense`, with those tokens' rows in place of the dense ones.
pub(super) fn prompt(
    config: &CacheConfig,
    opened: &Opened,
    state: &mut State,
    call: &LayerCall<'_>,
    dense: Tensor,
) -> Result<Tensor> {
    let layer = opened.layer(call)?;
    let with_queries = reads_queries(opened.needs.observation) || config.prompt_tail > 0;
    let rows = NewRows::read(&opened.geometry, call, with_queries)?;
    let heads = opened.geometry.kv_heads;
    let mut writes = Vec::new();
    for (index, (&seq, &length)) in call
        .batch
        .seq_ids
        .iter()
        .zip(&call.batch.new_lens)
        .enumerate()
    {
        let tail = config.tail_of(length);
        let length = length - tail;
        let kept = plan(config, opened, state, call, &rows, index, length)?;
        let addresses = state
            .ledger
            .write_prompt(SeqId(seq), layer, length, &kept)
            .map_err(cache_error)?;
        for (head, (slots, addresses)) in kept.slots.iter().zip(addresses).enumerate() {
            let first = (index * heads + head) * rows.tokens;
            writes.extend(
                slots
                    .iter()
                    .zip(addresses)
                    .map(|(&slot, at)| row_write(first + slot as usize, at)),
            );
        }
        if tail > 0 {
            state.tails.insert(SeqId(seq), tail);
        }
        state.counts.prompts += u64::from(layer == 0);
    }
    write_rows(state, &rows, &writes)?;
    if config.prompt_tail == 0 {
        return Ok(dense);
    }
    read_tails(config, opened, state, call, &rows, &dense)
}

/// What stays of one sequence's prompt of `length` tokens.
fn plan(
    config: &CacheConfig,
    opened: &Opened,
    state: &mut State,
    call: &LayerCall<'_>,
    rows: &NewRows,
    index: usize,
    length: usize,
) -> Result<Kept> {
    let geometry = &opened.geometry;
    let prompt = PromptRows {
        queries: rows.queries_of(index, geometry),
        keys: rows.keys_of(index, geometry),
        rows: rows.tokens,
        tokens: length,
        scale: call.softmax_scale,
        softcap: call.softcap,
    };
    let calls = &mut state.counts.kernels;
    let scores = observe(geometry, &opened.needs, &prompt, calls).map_err(kernel_error)?;
    let (layer, heads) = (opened.layer(call)?, geometry.kv_heads);
    let blind = LayerView::prefill(layer, heads, length, opened.budget(config, length));
    let resolve = |view: &LayerView<'_>| {
        let mut plan = KeepPlan::all(heads);
        opened.policy.plan(view, &mut plan);
        plan.resolve(view, &config.pins)
    };
    Ok(match &scores {
        None => resolve(&blind),
        Some(scores) => {
            let by_head: Vec<&[f32]> = scores.chunks_exact(length).collect();
            resolve(&blind.with_scores(opened.needs.observation, &by_head))
        }
    })
}

fn write_rows(state: &mut State, rows: &NewRows, writes: &[RowWrite]) -> Result<()> {
    state.counts.kernels.write += 1;
    write(&mut state.store, &rows.args(writes)).map_err(kernel_error)
}

/// Reads the last tokens of every prompt through its compressed cache, one after the other, as if they were decoded.
fn read_tails(
    config: &CacheConfig,
    opened: &Opened,
    state: &mut State,
    call: &LayerCall<'_>,
    rows: &NewRows,
    dense: &Tensor,
) -> Result<Tensor> {
    let geometry = &opened.geometry;
    let (dim, query_heads) = (geometry.head_dim, geometry.kv_heads * geometry.group);
    let mut out = floats(dense)?;
    for (index, (&seq, &length)) in call
        .batch
        .seq_ids
        .iter()
        .zip(&call.batch.new_lens)
        .enumerate()
    {
        for token in length - config.tail_of(length)..length {
            let position = call.batch.positions[index] + token;
            let writes = append(opened, state, call, rows, (index, seq), (token, position))?;
            write_rows(state, rows, &writes)?;
            let queries = rows.query_of(index, token, geometry);
            let read = attend_to_cache(opened, state, call, &[seq], &queries, true)?;
            for (head, row) in read.chunks_exact(dim).enumerate() {
                let first = ((index * query_heads + head) * rows.tokens + token) * dim;
                out[first..first + dim].copy_from_slice(row);
            }
        }
    }
    Tensor::from_vec(out, dense.dims(), dense.device())?.to_dtype(dense.dtype())
}

/// Writes one new token per sequence and attends to what its heads hold.
pub(super) fn decode(
    config: &CacheConfig,
    opened: &Opened,
    state: &mut State,
    call: &LayerCall<'_>,
) -> Result<Tensor> {
    let geometry = &opened.geometry;
    let (sequences, query_heads, tokens, dim) = call.queries.dims4()?;
    if tokens != 1 {
        bail!("a decode step of {tokens} new tokens");
    }
    let is_new = !call.batch.is_prompt;
    if is_new {
        let rows = NewRows::read(geometry, call, false)?;
        let mut writes = Vec::with_capacity(sequences * geometry.kv_heads);
        for (index, (&seq, &position)) in call
            .batch
            .seq_ids
            .iter()
            .zip(&call.batch.positions)
            .enumerate()
        {
            writes.extend(append(
                opened,
                state,
                call,
                &rows,
                (index, seq),
                (0, position),
            )?);
        }
        write_rows(state, &rows, &writes)?;
    } else {
        // A prompt of one token comes without a mask and so as a decode step: its plan is still due. What it was seen to
        // attend to is its whole row, so the step below adds nothing.
        prompt(config, opened, state, call, call.queries.clone())?;
    }
    let queries = floats(call.queries)?;
    let out = attend_to_cache(opened, state, call, &call.batch.seq_ids, &queries, is_new)?;
    Tensor::from_vec(out, (sequences, query_heads, dim), call.queries.device())?
        .to_dtype(call.queries.dtype())
}

/// Enters one new token of a sequence, and says where its rows are written.
fn append(
    opened: &Opened,
    state: &mut State,
    call: &LayerCall<'_>,
    rows: &NewRows,
    (index, seq): (usize, usize),
    (token, position): (usize, usize),
) -> Result<Vec<RowWrite>> {
    let heads = opened.geometry.kv_heads;
    let addresses = state
        .ledger
        .append(SeqId(seq), opened.layer(call)?, Position::new(position))
        .map_err(cache_error)?;
    let source = |head| (index * heads + head) * rows.tokens + token;
    Ok(addresses
        .into_iter()
        .enumerate()
        .map(|(head, at)| row_write(source(head), at))
        .collect())
}

/// Attends with one query per sequence and query head, `[S, H * G, D]`, to what the heads hold. Where the policy asked
/// for it and the token is new, the attention row is added to the slots' scores.
fn attend_to_cache(
    opened: &Opened,
    state: &mut State,
    call: &LayerCall<'_>,
    sequences: &[usize],
    queries: &[f32],
    is_new: bool,
) -> Result<Vec<f32>> {
    let Geometry {
        kv_heads, group, ..
    } = opened.geometry;
    let layer = opened.layer(call)?;
    let mut heads = Vec::with_capacity(sequences.len() * kv_heads);
    for &seq in sequences {
        for head in 0..kv_heads {
            let table = state
                .ledger
                .head(SeqId(seq), layer, head)
                .map_err(cache_error)?;
            heads.push(HeadSlots {
                pages: table.page_ids(),
                len: table.len(),
            });
        }
    }
    let args = AttendArgs {
        queries,
        heads: &heads,
        group,
        scale: call.softmax_scale,
        softcap: call.softcap,
    };
    if !(is_new && opened.needs.observation == Observation::Rows) {
        state.counts.kernels.attend += 1;
        return attend(&state.store, &args).map_err(kernel_error);
    }
    state.counts.kernels.attend_observed += 1;
    let reduce = opened.needs.reduction.group;
    let Observed { out, rows } =
        attend_observed(&state.store, &args, reduce).map_err(kernel_error)?;
    let mut rows = rows.as_slice();
    for &seq in sequences {
        for head in 0..kv_heads {
            let scores = state.ledger.scores_mut(SeqId(seq), layer, head);
            let scores = scores.map_err(cache_error)?;
            let (row, rest) = rows.split_at(scores.len());
            for (score, seen) in scores.iter_mut().zip(row) {
                *score += seen;
            }
            rows = rest;
        }
    }
    Ok(out)
}
