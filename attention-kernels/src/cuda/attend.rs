//! Decode attention.

use kv_core::Reduce;

use super::entries::{ATTEND_THREADS, CHUNK_TOKENS, MAX_GROUP, narrow};
use super::store::{memory, number};
use super::{Arg, CudaError, Device, Launch, PageStore, Step, View};
use crate::scoring::Scoring;

/// What [`attend()`] attends with.
#[derive(Debug)]
pub struct DecodeArgs<'a, B> {
    /// `[S * H, G, D]`, row-major, of the store's element type, after `RoPE`. This is `[S, H * G, D]` as it stands.
    pub queries: View<'a, B>,
    /// `G`, query heads per KV head.
    pub group: usize,
    /// Factor on every score, usually `1 / sqrt(D)`.
    pub scale: f32,
    /// Where given, a score `s` becomes `cap * tanh(s / cap)` after scaling.
    pub softcap: Option<f32>,
    /// The attention row, where it is wanted.
    pub row: Option<RowWanted>,
}

/// What becomes of the attention row of every head, reduced over its group.
#[derive(Clone, Copy, Debug)]
pub struct RowWanted {
    /// Over the `G` query heads.
    pub reduce: Reduce,
    /// Whether it is added to the slots' scores.
    pub add_to_scores: bool,
    /// Whether it is returned.
    pub returned: bool,
}

/// What [`attend()`] returns.
#[derive(Debug)]
pub struct Attended<B> {
    /// `[S * H, G, D]`, of the store's element type. This is `[S, H * G, D]` as it stands.
    pub out: B,
    /// `[S * H, longest]`, `f32`, in slot order, where it was wanted; what lies beyond a head's tokens means nothing.
    pub rows: Option<B>,
}

/// Attends with every query to the tokens of its head, over the tables of one layer of a step. What is computed is defined by
/// [`oracle::attend`](crate::oracle::attend) and [`oracle::attention_row`](crate::oracle::attention_row).
///
/// # Errors
///
/// [`CudaError::Group`], [`KernelError::ScaleOutOfRange`](crate::KernelError::ScaleOutOfRange),
/// [`KernelError::SoftcapOutOfRange`](crate::KernelError::SoftcapOutOfRange), [`CudaError::BufferTooSmall`],
/// [`CudaError::NoSlotState`], [`CudaError::TooMany`], [`CudaError::Device`].
///
/// # Panics
///
/// If the step has no such layer.
pub fn attend<D: Device>(
    store: &mut PageStore<D>,
    step: &Step<D>,
    layer: usize,
    args: &DecodeArgs<'_, D::Buffer>,
) -> Result<Attended<D::Buffer>, CudaError> {
    let work = Work::new(store, step, layer, args)?;
    let device = store.device();
    let Work {
        heads,
        group,
        head_dim,
        chunks,
        stride,
        ..
    } = work;
    let per_chunk = heads * chunks * group;
    let sums = device.uninit(4 * (per_chunk * head_dim).max(1))?;
    let stats = device.uninit(8 * per_chunk.max(1))?;
    let kept = match args.row {
        Some(_) => Some(device.uninit(4 * (heads * group * stride).max(1))?),
        None => None,
    };
    let out = device.uninit((heads * group * head_dim * store.dtype().size_in_bytes()).max(1))?;
    let rows = match args.row {
        Some(RowWanted { returned: true, .. }) => Some(device.uninit(4 * (heads * stride).max(1))?),
        _ => None,
    };
    if heads > 0 {
        let scratch = Scratch {
            sums: &sums,
            stats: &stats,
            kept: kept.as_ref(),
        };
        if chunks > 0 {
            work.attend_chunks(args, &scratch)?;
        }
        work.merge(args.row, &scratch, &out, rows.as_ref())?;
    }
    Ok(Attended { out, rows })
}

/// One layer of a step, checked.
struct Work<'a, D: Device> {
    store: &'a PageStore<D>,
    step: &'a Step<D>,
    layer: usize,
    /// `S * H`.
    heads: usize,
    group: usize,
    head_dim: usize,
    /// Chunks of the longest head.
    chunks: usize,
    /// Tokens of the longest head.
    stride: usize,
}

struct Scratch<'a, B> {
    sums: &'a B,
    stats: &'a B,
    kept: Option<&'a B>,
}

impl<'a, B> Scratch<'a, B> {
    fn kept_arg(&self) -> Arg<'a, B> {
        self.kept.map_or(Arg::Null, |buffer| Arg::Memory(buffer, 0))
    }
}

impl<'a, D: Device> Work<'a, D> {
    fn new(
        store: &'a PageStore<D>,
        step: &'a Step<D>,
        layer: usize,
        args: &DecodeArgs<'_, D::Buffer>,
    ) -> Result<Self, CudaError> {
        let group = args.group;
        if group == 0 || group > MAX_GROUP {
            return Err(CudaError::Group {
                group,
                most: MAX_GROUP,
            });
        }
        let scoring = Scoring {
            scale: args.scale,
            softcap: args.softcap,
        };
        scoring.check().map_err(CudaError::Kernel)?;
        if args.row.is_some_and(|row| row.add_to_scores) && !store.has_slot_state() {
            return Err(CudaError::NoSlotState {
                what: "an attention row that is added to scores",
            });
        }
        let stride = step.longest(layer);
        Ok(Self {
            store,
            step,
            layer,
            heads: step.heads(),
            group,
            head_dim: store.layout().head_dim(),
            chunks: stride.div_ceil(CHUNK_TOKENS),
            stride,
        })
    }

    fn attend_chunks(
        &self,
        args: &DecodeArgs<'_, D::Buffer>,
        scratch: &Scratch<'_, D::Buffer>,
    ) -> Result<(), CudaError> {
        let bytes = self.store.dtype().size_in_bytes();
        let elements = self.heads * self.group * self.head_dim;
        let queries = memory(
            self.store.device(),
            args.queries,
            elements,
            bytes,
            "queries",
        )?;
        let [head_dim, block] = self.store.shape_args();
        let arguments = [
            self.store.keys_arg(),
            self.store.values_arg(),
            queries,
            self.step.heads_arg(self.layer),
            self.step.pages_arg(),
            Arg::Memory(scratch.sums, 0),
            Arg::Memory(scratch.stats, 0),
            scratch.kept_arg(),
            Arg::U32(narrow(self.group)),
            head_dim,
            block,
            Arg::U32(number("chunks", self.chunks)?),
            Arg::U32(number("tokens", self.stride)?),
            Arg::F32(args.scale),
            // A cap of 0 is none.
            Arg::F32(args.softcap.unwrap_or(0.0)),
        ];
        let name = match self.group {
            1 => "kv_attend_g1",
            2..=4 => "kv_attend_g4",
            _ => "kv_attend_g8",
        };
        self.launch(name, self.chunks, &arguments)
    }

    fn merge(
        &self,
        row: Option<RowWanted>,
        scratch: &Scratch<'_, D::Buffer>,
        out: &D::Buffer,
        rows: Option<&D::Buffer>,
    ) -> Result<(), CudaError> {
        let scores = match row {
            Some(row) if row.add_to_scores => self.store.scores_arg(),
            _ => Arg::Null,
        };
        let reduce = row.map_or(0, |row| reduce_word(row.reduce));
        let [head_dim, block] = self.store.shape_args();
        let arguments = [
            Arg::Memory(out, 0),
            self.step.heads_arg(self.layer),
            self.step.pages_arg(),
            Arg::Memory(scratch.sums, 0),
            Arg::Memory(scratch.stats, 0),
            scratch.kept_arg(),
            rows.map_or(Arg::Null, |buffer| Arg::Memory(buffer, 0)),
            scores,
            Arg::U32(reduce),
            Arg::U32(narrow(self.group)),
            head_dim,
            block,
            Arg::U32(narrow(self.chunks)),
            Arg::U32(narrow(self.stride)),
        ];
        self.launch("kv_merge", 1, &arguments)
    }

    fn launch(
        &self,
        name: &str,
        blocks_per_head: usize,
        args: &[Arg<'_, D::Buffer>],
    ) -> Result<(), CudaError> {
        // A grid's second dimension has 16 bits.
        if blocks_per_head > usize::from(u16::MAX) {
            return Err(CudaError::TooMany {
                what: "chunks of a head",
                number: blocks_per_head,
                most: usize::from(u16::MAX),
            });
        }
        let launch = Launch {
            entry: &self.store.entry(name),
            grid: [number("heads", self.heads)?, narrow(blocks_per_head)],
            threads: ATTEND_THREADS,
            args,
        };
        Ok(self.store.device().launch(&launch)?)
    }
}

/// As the kernels write it.
pub(super) const fn reduce_word(reduce: Reduce) -> u32 {
    match reduce {
        Reduce::Mean => 0,
        Reduce::Sum => 1,
        Reduce::Max => 2,
    }
}
