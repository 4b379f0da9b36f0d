//! Pages in the memory of a device.
use std::{
    cell::{OnceCell, RefCell},
    ops::Range,
};

use attention_kernels::cuda::{
    CudaError, DecodeArgs, Device, DeviceError, DevicePrompt, HeadStep, NewRows, PageStore,
    RowWanted, SelectArgs, SlotWrite, Step, StepTarget, View, append, attend, keep, observe, write,
};
use candle_core::{DType, Result, Tensor};
use kv_core::{
    Entered, Growth, KeepPlan, Kept, Observation, Position, ScoreSource, SeqId, Target, Verb,
};

use super::{
    parts::Parts,
    pass::{Backend, Pass, Tokens, Write, cache_error, stay},
};

/// A device whose memory candle's tensors can be brought to and from.
pub trait TensorDevice: Device {
    /// The memory of a contiguous tensor: its own where it lies on the device, or a copy.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] for a tensor that this device cannot read.
    fn import(&self, tensor: &Tensor) -> std::result::Result<Self::Buffer, DeviceError>;

    /// A tensor of this shape and type that takes a buffer over, on the same device as `like`.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] for a buffer of another size.
    fn export(
        &self,
        buffer: Self::Buffer,
        shape: &[usize],
        dtype: DType,
        like: &Tensor,
    ) -> std::result::Result<Tensor, DeviceError>;
}

#[cfg(feature = "cuda")]
impl TensorDevice for attention_kernels::cuda::Gpu {
    fn import(&self, tensor: &Tensor) -> std::result::Result<Self::Buffer, DeviceError> {
        Self::import(self, tensor)
    }

    fn export(
        &self,
        buffer: Self::Buffer,
        shape: &[usize],
        dtype: DType,
        _like: &Tensor,
    ) -> std::result::Result<Tensor, DeviceError> {
        Self::export(self, buffer, shape, dtype)
    }
}

/// The pages of a pool on a device.
#[derive(Debug)]
pub(super) struct DeviceBackend<D: TensorDevice> {
    store: PageStore<D>,
    /// The cache's type, as candle calls it.
    dtype: DType,
    pending: Option<Pending<D>>,
}

/// A decode step whose tables are on the device, until every layer has used them.
#[derive(Debug)]
struct Pending<D: Device> {
    /// The sequences and where their new tokens stand.
    tokens: Vec<(SeqId, usize)>,
    step: Step<D>,
    /// Layers that have not run yet, `[L]`.
    is_due: Vec<bool>,
}

/// What a layer's call brings, on the device and in the cache's type.
pub(super) struct DeviceRows<D: Device> {
    /// `[S, H * G, T, D]`, where they were asked for.
    queries: Option<Tensor>,
    /// `[S, H, T, D]`.
    keys: D::Buffer,
    /// As the keys.
    values: D::Buffer,
    /// What was observed, `[S, H, T]`.
    scores: Option<D::Buffer>,
    /// New tokens with padding, `T`.
    tokens: usize,
}

fn device_error(error: impl Into<CudaError>) -> candle_core::Error {
    candle_core::Error::wrap(error.into())
}

impl<D: TensorDevice> DeviceBackend<D> {
    pub(super) const fn new(store: PageStore<D>, dtype: DType) -> Self {
        Self {
            store,
            dtype,
            pending: None,
        }
    }

    /// A tensor in the cache's type, row by row.
    fn rows_of(&self, tensor: &Tensor) -> Result<Tensor> {
        tensor.to_dtype(self.dtype)?.contiguous()
    }

    fn import(&self, tensor: &Tensor) -> Result<D::Buffer> {
        self.store.device().import(tensor).map_err(device_error)
    }

    /// Observes one prompt; true if anything was asked for.
    fn observe(
        &self,
        pass: &mut Pass<'_>,
        rows: &mut DeviceRows<D>,
        index: usize,
        length: usize,
    ) -> Result<bool> {
        let (geometry, needs) = (pass.opened.geometry, pass.opened.needs);
        if needs.observation == Observation::None {
            return Ok(false);
        }
        let device = self.store.device();
        let first = index * geometry.kv_heads * rows.tokens;
        let queries = match &rows.queries {
            Some(queries) => Some(self.import(queries)?),
            None => None,
        };
        let scores = match rows.scores.take() {
            Some(scores) => scores,
            None => {
                let all = pass.call.batch.seq_ids.len() * geometry.kv_heads * rows.tokens;
                device.uninit(4 * all.max(1)).map_err(device_error)?
            }
        };
        let prompt = DevicePrompt {
            queries: queries.as_ref().map(|buffer| View {
                buffer,
                first: first * geometry.group * geometry.head_dim,
            }),
            keys: View {
                buffer: &rows.keys,
                first: first * geometry.head_dim,
            },
            dtype: self.store.dtype(),
            heads: geometry.kv_heads,
            rows: rows.tokens,
            tokens: length,
            group: geometry.group,
            head_dim: geometry.head_dim,
            scale: pass.call.softmax_scale,
            softcap: pass.call.softcap,
        };
        pass.counts.kernels.note_observation(needs.observation);
        let view = View {
            buffer: &scores,
            first,
        };
        let seen = observe(device, needs.observation, needs.reduction, &prompt, view);
        rows.scores = Some(scores);
        seen.map_err(device_error)
    }

    /// Enters new tokens into some layers and uploads the tables of those layers.
    fn enter(&self, pass: &mut Pass<'_>, layers: Range<usize>, tokens: &Tokens) -> Result<Step<D>> {
        let heads = pass.opened.geometry.kv_heads;
        let sequences: Vec<SeqId> = tokens
            .sequences
            .clone()
            .map(|index| pass.seq(index))
            .collect();
        let mut entered = Entered::default();
        let mut targets = Vec::with_capacity(layers.len() * sequences.len() * heads);
        for layer in layers.clone() {
            for (&seq, &position) in sequences.iter().zip(&tokens.positions) {
                if !tokens.is_new {
                    targets.extend((0..heads).map(|_| StepTarget::Nothing));
                    continue;
                }
                let position = Position::new(position);
                let has_scores = self.store.has_slot_state();
                entered.clear();
                pass.ledger
                    .append_on_device_into(seq, layer, position, has_scores, &mut entered)
                    .map_err(cache_error)?;
                stay(&entered.moves)?;
                targets.extend(entered.heads.iter().copied().map(step_target));
            }
        }
        let mut targets = targets.into_iter();
        let mut steps = Vec::with_capacity(targets.len());
        for layer in layers.clone() {
            for &seq in &sequences {
                for table in pass.ledger.heads(seq, layer).map_err(cache_error)? {
                    steps.push(HeadStep {
                        pages: table.page_ids(),
                        len: table.len(),
                        target: targets.next().unwrap_or(StepTarget::Nothing),
                    });
                }
            }
        }
        let positions: Vec<(u32, bool)> = tokens
            .sequences
            .clone()
            .zip(&tokens.positions)
            .map(|(index, &position)| (index, Position::new(position)))
            .map(|(index, position)| (position.0, pass.terms(index).pins.contains(position)))
            .collect();
        pass.counts.kernels.tables += 1;
        Step::upload(&self.store, layers.len(), &steps, &positions).map_err(device_error)
    }

    /// The tables of a batch's decode step, those of all layers at once; and whether this layer's are still to be used.
    fn pending(&mut self, pass: &mut Pass<'_>, tokens: &Tokens) -> Result<Pending<D>> {
        let new: Vec<(SeqId, usize)> = tokens
            .sequences
            .clone()
            .map(|index| pass.seq(index))
            .zip(tokens.positions.iter().copied())
            .collect();
        if let Some(pending) = self.pending.take()
            && pending.tokens == new
            && pending.is_due[pass.layer]
        {
            return Ok(pending);
        }
        let layers = pass.opened.geometry.layers;
        Ok(Pending {
            tokens: new,
            step: self.enter(pass, 0..layers, tokens)?,
            is_due: vec![true; layers],
        })
    }

    /// Writes the tokens and attends, by the tables of layer `layer` of a step.
    fn run(
        &mut self,
        pass: &mut Pass<'_>,
        rows: &DeviceRows<D>,
        tokens: &Tokens,
        (step, layer): (&Step<D>, usize),
    ) -> Result<Tensor> {
        let geometry = pass.opened.geometry;
        if tokens.is_new {
            pass.counts.kernels.write += 1;
            let per_sequence = geometry.kv_heads * rows.tokens;
            let first = tokens.sequences.start * per_sequence * geometry.head_dim;
            let new = NewRows {
                keys: View {
                    buffer: &rows.keys,
                    first,
                },
                values: View {
                    buffer: &rows.values,
                    first,
                },
                rows: tokens.sequences.len() * per_sequence,
            };
            append(
                &mut self.store,
                step,
                layer,
                &new,
                (tokens.token, rows.tokens),
            )
            .map_err(device_error)?;
        }
        let Some(queries) = &rows.queries else {
            candle_core::bail!("a step without queries");
        };
        let queries = queries
            .narrow(0, tokens.sequences.start, tokens.sequences.len())?
            .narrow(2, tokens.token, 1)?
            .contiguous()?;
        let queries = self.import(&queries)?;
        let is_observed = tokens.is_new && pass.opened.needs.observation == Observation::Rows;
        let args = DecodeArgs {
            queries: View::whole(&queries),
            group: geometry.group,
            scale: pass.call.softmax_scale,
            softcap: pass.call.softcap,
            row: is_observed.then_some(RowWanted {
                reduce: pass.opened.needs.reduction.group,
                add_to_scores: true,
                returned: false,
            }),
        };
        let calls = &mut pass.counts.kernels;
        *(if is_observed {
            &mut calls.attend_observed
        } else {
            &mut calls.attend
        }) += 1;
        let out = attend(&mut self.store, step, layer, &args)
            .map_err(device_error)?
            .out;
        let shape = [
            tokens.sequences.len(),
            geometry.kv_heads * geometry.group,
            geometry.head_dim,
        ];
        self.store
            .device()
            .export(out, &shape, self.dtype, pass.call.queries)
            .map_err(device_error)
    }
}

fn step_target(target: Target) -> StepTarget {
    match target {
        Target::Slot(slot) => StepTarget::Slot(slot.0),
        Target::Lowest { recent } => StepTarget::Lowest {
            // A head holds no more tokens than 32 bits count.
            recent: u32::try_from(recent).unwrap_or(u32::MAX),
        },
    }
}

impl<D: TensorDevice> Backend for DeviceBackend<D> {
    type Rows = DeviceRows<D>;

    fn rows(&self, pass: &Pass<'_>, with_queries: bool) -> Result<DeviceRows<D>> {
        let tokens = pass.check_shapes()?;
        let call = pass.call;
        let queries = if with_queries {
            Some(self.rows_of(call.queries)?)
        } else {
            None
        };
        Ok(DeviceRows {
            queries,
            keys: self.import(&self.rows_of(call.keys)?)?,
            values: self.import(&self.rows_of(call.values)?)?,
            scores: None,
            tokens,
        })
    }

    fn plan(
        &mut self,
        pass: &mut Pass<'_>,
        rows: &mut DeviceRows<D>,
        index: usize,
        length: usize,
    ) -> Result<Kept> {
        let opened = pass.opened;
        let terms = pass.terms(index);
        let (heads, pins) = (opened.geometry.kv_heads, &terms.pins);
        let is_observed = self.observe(pass, rows, index, length)?;
        let parts = Parts::read(pass, index, length)?;
        let shown = parts.shown(pass, length);
        let mut blind = pass.blind_view(&terms, length);
        if let Some(shown) = &shown {
            blind = blind.with_rows(shown);
        }
        let mut plan = KeepPlan::all(heads);
        let (device, first) = (self.store.device(), index * heads * rows.tokens);
        let scores = match &rows.scores {
            Some(buffer) if is_observed => Some(View { buffer, first }),
            _ => None,
        };
        match scores {
            None => terms.policy.plan(&blind, &mut plan),
            Some(view) => {
                let source = Fetched::new(device, view, (heads, length, rows.tokens));
                let seeing = blind.with_score_source(opened.needs.observation, &source);
                terms.policy.plan(&seeing, &mut plan);
                source.finish()?;
            }
        }
        let evicts = |growth: &Growth| matches!(growth, Growth::EvictLowest { .. });
        if plan.verbs().iter().any(Verb::brings_scores) && plan.growth().iter().any(evicts) {
            candle_core::bail!(
                "the policy {} ranks by scores of its own and evicts by them while decoding, which a device does not serve",
                pass.config.policy
            );
        }
        let slots = if plan.verbs().iter().any(Verb::reads_scores) {
            pass.counts.kernels.select += 1;
            let args = SelectArgs {
                plan: &plan,
                pins,
                tokens: length,
                scores,
                stride: rows.tokens,
            };
            keep(device, &args).map_err(device_error)?
        } else {
            plan.resolve(&blind, pins).slots
        };
        Ok(Kept {
            slots,
            growth: plan.growth().to_vec(),
            // They stay on the device, beside the slots.
            scores: None,
        })
    }

    fn write(&mut self, pass: &mut Pass<'_>, rows: &DeviceRows<D>, writes: &[Write]) -> Result<()> {
        pass.counts.kernels.write += 1;
        let new = NewRows {
            keys: View::whole(&rows.keys),
            values: View::whole(&rows.values),
            rows: pass.call.batch.seq_ids.len() * pass.opened.geometry.kv_heads * rows.tokens,
        };
        let slots: Vec<SlotWrite> = writes
            .iter()
            .map(|row| SlotWrite {
                source: row.source,
                page: row.address.page().0,
                offset: row.address.offset(),
                position: row.position.0,
                is_pinned: row.is_pinned,
            })
            .collect();
        let scores = rows.scores.as_ref().map(View::whole);
        write(&mut self.store, &new, scores, &slots).map_err(device_error)
    }

    fn step(
        &mut self,
        pass: &mut Pass<'_>,
        rows: &DeviceRows<D>,
        tokens: &Tokens,
    ) -> Result<Tensor> {
        if pass.watch.is_on() {
            candle_core::bail!("attention rows are told in the host's memory only");
        }
        let layer = pass.layer;
        if !tokens.is_new || pass.call.batch.is_prompt {
            // Part of a prompt: the other layers are not there yet.
            let step = self.enter(pass, layer..layer + 1, tokens)?;
            return self.run(pass, rows, tokens, (&step, 0));
        }
        let mut pending = self.pending(pass, tokens)?;
        let out = self.run(pass, rows, tokens, (&pending.step, layer))?;
        pending.is_due[layer] = false;
        self.pending = Some(pending);
        Ok(out)
    }

    fn reset(&mut self) {
        self.pending = None;
    }
}

/// Scores of one prompt that come to the host only if a policy reads them.
#[derive(Debug)]
struct Fetched<'a, D: Device> {
    device: &'a D,
    scores: View<'a, D::Buffer>,
    heads: usize,
    tokens: usize,
    stride: usize,
    rows: OnceCell<Vec<Vec<f32>>>,
    failed: RefCell<Option<DeviceError>>,
}

impl<'a, D: Device> Fetched<'a, D> {
    fn new(
        device: &'a D,
        scores: View<'a, D::Buffer>,
        (heads, tokens, stride): (usize, usize, usize),
    ) -> Self {
        Self {
            device,
            scores,
            heads,
            tokens,
            stride,
            rows: OnceCell::new(),
            failed: RefCell::new(None),
        }
    }

    fn fetch(&self, head: usize) -> Vec<f32> {
        let mut bytes = vec![0; 4 * self.tokens];
        let at = 4 * (self.scores.first + head * self.stride);
        if let Err(error) = self.device.download(self.scores.buffer, at, &mut bytes) {
            *self.failed.borrow_mut() = Some(error);
        }
        let (numbers, _) = bytes.as_chunks::<4>();
        numbers
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect()
    }

    /// A plan that was made of what could not be read is none.
    fn finish(&self) -> Result<()> {
        self.failed
            .take()
            .map_or(Ok(()), |error| Err(device_error(error)))
    }
}

impl<D: Device> ScoreSource for Fetched<'_, D> {
    fn rows(&self) -> &[Vec<f32>] {
        self.rows
            .get_or_init(|| (0..self.heads).map(|head| self.fetch(head)).collect())
    }
}
