//! One layer of one forward pass.
use attention_kernels::{AttendArgs, HeadSlots, KernelError, RowWrite, WriteArgs, attend, write};
use candle_core::{DType, Result, Tensor, bail};
use kv_core::{Address, CacheError, Geometry, KeepPlan, LayerView, Position, SeqId};
use kv_hook::LayerCall;

use super::{Opened, State};
use crate::CacheConfig;

/// The new keys and values of a layer in rows of `D`: row `(s * H + h) * T + t`.
struct NewRows {
    keys: Vec<f32>,
    values: Vec<f32>,
    /// New tokens with padding, `T`.
    tokens: usize,
}

impl NewRows {
    fn read(geometry: &Geometry, call: &LayerCall<'_>) -> Result<Self> {
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
        Ok(Self {
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

/// Plans what stays of every prompt and writes it.
pub(super) fn prompt(
    config: &CacheConfig,
    opened: &Opened,
    state: &mut State,
    call: &LayerCall<'_>,
) -> Result<()> {
    let layer = opened.layer(call)?;
    let rows = NewRows::read(&opened.geometry, call)?;
    let heads = opened.geometry.kv_heads;
    let mut writes = Vec::new();
    for (index, (&seq, &length)) in call
        .batch
        .seq_ids
        .iter()
        .zip(&call.batch.new_lens)
        .enumerate()
    {
        let budget = opened.budget(config, length);
        let view = LayerView::prefill(layer, heads, length, budget);
        let mut plan = KeepPlan::all(heads);
        opened.policy.plan(&view, &mut plan);
        let kept = plan.resolve(&view, &config.pins);
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
        state.counts.prompts += u64::from(layer == 0);
    }
    write(&mut state.store, &rows.args(&writes)).map_err(kernel_error)
}

/// Writes one new token per sequence and attends to what its heads hold.
pub(super) fn decode(
    config: &CacheConfig,
    opened: &Opened,
    state: &mut State,
    call: &LayerCall<'_>,
) -> Result<Tensor> {
    if call.batch.is_prompt {
        // A prompt of one token comes without a mask and so as a decode step: its plan is still due.
        prompt(config, opened, state, call)?;
    } else {
        append(opened, state, call)?;
    }
    attend_to_cache(opened, state, call)
}

fn append(opened: &Opened, state: &mut State, call: &LayerCall<'_>) -> Result<()> {
    let layer = opened.layer(call)?;
    let rows = NewRows::read(&opened.geometry, call)?;
    let heads = opened.geometry.kv_heads;
    let mut writes = Vec::with_capacity(call.batch.seq_ids.len() * heads);
    for (index, (&seq, &position)) in call
        .batch
        .seq_ids
        .iter()
        .zip(&call.batch.positions)
        .enumerate()
    {
        let addresses = state
            .ledger
            .append(SeqId(seq), layer, Position::new(position))
            .map_err(cache_error)?;
        writes.extend(
            addresses
                .into_iter()
                .enumerate()
                .map(|(head, at)| row_write((index * heads + head) * rows.tokens, at)),
        );
    }
    write(&mut state.store, &rows.args(&writes)).map_err(kernel_error)
}

fn attend_to_cache(opened: &Opened, state: &State, call: &LayerCall<'_>) -> Result<Tensor> {
    let Geometry {
        kv_heads,
        group,
        head_dim,
        ..
    } = opened.geometry;
    let (sequences, query_heads, tokens, dim) = call.queries.dims4()?;
    if (query_heads, tokens, dim) != (kv_heads * group, 1, head_dim) {
        bail!(
            "queries of shape {:?} for a decode step of {} heads of {head_dim}",
            call.queries.dims(),
            kv_heads * group
        );
    }
    let layer = opened.layer(call)?;
    let queries = floats(call.queries)?;
    let mut heads = Vec::with_capacity(sequences * kv_heads);
    for &seq in &call.batch.seq_ids {
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
        queries: &queries,
        heads: &heads,
        group,
        scale: call.softmax_scale,
        softcap: call.softcap,
    };
    let out = attend(&state.store, &args).map_err(kernel_error)?;
    Tensor::from_vec(
        out,
        (sequences, query_heads, head_dim),
        call.queries.device(),
    )?
    .to_dtype(call.queries.dtype())
}
