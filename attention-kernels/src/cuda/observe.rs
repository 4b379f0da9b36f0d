//! What a policy asked to see of a prompt.

use kv_core::{Observation, Pool, Reduction, ReductionOrder};

use super::attend::reduce_word;
use super::entries::{
    MAX_GROUP, REDUCE_THREADS, TILE_KEYS, TILE_QUERIES, TILE_THREADS, WARP, narrow,
};
use super::store::{check_head_dim, memory, number};
use super::{Arg, CudaError, Device, Launch, View};
use crate::scoring::Scoring;
use crate::{KernelError, KvDtype};

/// One sequence's queries and keys of a layer, as they stand in a padded batch.
#[derive(Debug)]
pub struct DevicePrompt<'a, B> {
    /// `[H * G, rows, D]`, row-major, after `RoPE`; key norms need none.
    pub queries: Option<View<'a, B>>,
    /// `[H, rows, D]`, row-major, after `RoPE`.
    pub keys: View<'a, B>,
    /// Element type of both.
    pub dtype: KvDtype,
    /// `H`, KV heads.
    pub heads: usize,
    /// Rows of a head, padding included.
    pub rows: usize,
    /// `n`, tokens of the prompt. Rows from `n` on are never read into a result.
    pub tokens: usize,
    /// `G`, query heads per KV head.
    pub group: usize,
    /// `D`, elements per row.
    pub head_dim: usize,
    /// Factor on every score, usually `1 / sqrt(D)`.
    pub scale: f32,
    /// Where given, a score `s` becomes `cap * tanh(s / cap)` after scaling.
    pub softcap: Option<f32>,
}

/// Writes what was asked for into `scores`, `f32`, `[H, rows]`: of each row the first `n` numbers. What is computed is defined by
/// [`oracle::observe_window`](crate::oracle::observe_window), [`oracle::observe_accumulated`](crate::oracle::observe_accumulated) and
/// [`oracle::key_norm`](crate::oracle::key_norm). Returns whether there was anything to observe.
///
/// # Errors
///
/// [`CudaError::HeadDim`], [`CudaError::Group`], [`KernelError::TokensOutOfRange`], [`KernelError::WindowOutOfRange`],
/// [`KernelError::PoolWidthOutOfRange`], [`KernelError::ScaleOutOfRange`], [`KernelError::SoftcapOutOfRange`],
/// [`KernelError::NotObserved`], [`CudaError::BufferTooSmall`], [`CudaError::TooMany`], [`CudaError::Device`].
pub fn observe<D: Device>(
    device: &D,
    observation: Observation,
    reduction: Reduction,
    prompt: &DevicePrompt<'_, D::Buffer>,
    scores: View<'_, D::Buffer>,
) -> Result<bool, CudaError> {
    let work = Work {
        device,
        prompt,
        reduction,
        out: memory(
            device,
            scores,
            prompt.heads.saturating_mul(prompt.rows),
            4,
            "scores",
        )?,
    };
    let n = prompt.tokens;
    match observation {
        Observation::None => return Ok(false),
        Observation::Window { queries: 0 } => {
            return Err(CudaError::Kernel(KernelError::WindowOutOfRange {
                window: 0,
            }));
        }
        Observation::Window { queries } => {
            let before = n - queries.min(n);
            work.attention(before, before)?;
        }
        Observation::Accumulated | Observation::Rows => work.attention(0, n)?,
        Observation::KeyNorms => work.key_norms()?,
        other => {
            return Err(CudaError::Kernel(KernelError::NotObserved {
                observation: other,
            }));
        }
    }
    Ok(true)
}

struct Work<'a, D: Device> {
    device: &'a D,
    prompt: &'a DevicePrompt<'a, D::Buffer>,
    reduction: Reduction,
    out: Arg<'a, D::Buffer>,
}

impl<D: Device> Work<'_, D> {
    /// Attention of the queries from `first_query` on to the tokens before `before`.
    fn attention(&self, first_query: usize, before: usize) -> Result<(), CudaError> {
        self.check()?;
        let &DevicePrompt {
            heads,
            group,
            tokens,
            ..
        } = self.prompt;
        let query_heads = heads * group;
        if query_heads == 0 || tokens == 0 {
            return Ok(());
        }
        let columns = self.device.uninit(4 * (query_heads * before).max(1))?;
        if before > 0 {
            let seen = tokens - first_query;
            let stats = self.device.uninit(8 * query_heads * seen)?;
            self.weigh_queries(first_query, &stats)?;
            self.fold_queries(first_query, before, &stats, &columns)?;
        }
        self.reduce_heads(before, &columns)
    }

    fn check(&self) -> Result<(), CudaError> {
        let prompt = self.prompt;
        check_head_dim(prompt.head_dim, prompt.dtype)?;
        let group = prompt.group;
        if group == 0 || group > MAX_GROUP {
            return Err(CudaError::Group {
                group,
                most: MAX_GROUP,
            });
        }
        self.check_tokens()?;
        let scoring = Scoring {
            scale: prompt.scale,
            softcap: prompt.softcap,
        };
        scoring.check().map_err(CudaError::Kernel)?;
        crate::observe::check_pool(self.reduction.pool).map_err(CudaError::Kernel)
    }

    fn check_tokens(&self) -> Result<(), CudaError> {
        let (tokens, rows) = (self.prompt.tokens, self.prompt.rows);
        if tokens > rows {
            return Err(CudaError::Kernel(KernelError::TokensOutOfRange {
                tokens,
                rows,
            }));
        }
        Ok(())
    }

    /// Elements of all keys; a product that does not fit is the length of no buffer.
    const fn key_elements(&self) -> usize {
        let rows = self.prompt.heads.saturating_mul(self.prompt.rows);
        rows.saturating_mul(self.prompt.head_dim)
    }

    fn matrices(&self) -> Result<[Arg<'_, D::Buffer>; 2], CudaError> {
        let prompt = self.prompt;
        let bytes = prompt.dtype.size_in_bytes();
        let keys = self.key_elements();
        let Some(queries) = prompt.queries else {
            return Err(CudaError::BufferTooSmall {
                what: "queries",
                bytes: 0,
                expected: keys.saturating_mul(prompt.group).saturating_mul(bytes),
            });
        };
        Ok([
            memory(
                self.device,
                queries,
                keys.saturating_mul(prompt.group),
                bytes,
                "queries",
            )?,
            memory(self.device, prompt.keys, keys, bytes, "keys")?,
        ])
    }

    fn weigh_queries(&self, first_query: usize, stats: &D::Buffer) -> Result<(), CudaError> {
        let prompt = self.prompt;
        let [queries, keys] = self.matrices()?;
        let args = [
            queries,
            keys,
            Arg::Memory(stats, 0),
            Arg::U32(number("rows", prompt.rows)?),
            Arg::U32(narrow(prompt.tokens)),
            Arg::U32(narrow(first_query)),
            Arg::U32(narrow(prompt.group)),
            Arg::U32(narrow(prompt.head_dim)),
            Arg::F32(prompt.scale),
            Arg::F32(prompt.softcap.unwrap_or(0.0)),
        ];
        let tiles = (prompt.tokens - first_query).div_ceil(TILE_QUERIES);
        self.launch("kv_weigh_queries", tiles, &args)
    }

    fn fold_queries(
        &self,
        first_query: usize,
        before: usize,
        stats: &D::Buffer,
        columns: &D::Buffer,
    ) -> Result<(), CudaError> {
        let prompt = self.prompt;
        let [queries, keys] = self.matrices()?;
        let args = [
            queries,
            keys,
            Arg::Memory(stats, 0),
            Arg::Memory(columns, 0),
            Arg::U32(narrow(prompt.rows)),
            Arg::U32(narrow(prompt.tokens)),
            Arg::U32(narrow(first_query)),
            Arg::U32(narrow(before)),
            Arg::U32(reduce_word(self.reduction.queries)),
            Arg::U32(narrow(prompt.group)),
            Arg::U32(narrow(prompt.head_dim)),
            Arg::F32(prompt.scale),
            Arg::F32(prompt.softcap.unwrap_or(0.0)),
        ];
        self.launch("kv_fold_queries", before.div_ceil(TILE_KEYS), &args)
    }

    /// Group and pool, into the result.
    fn reduce_heads(&self, before: usize, columns: &D::Buffer) -> Result<(), CudaError> {
        let prompt = self.prompt;
        let (pool, width) = match self.reduction.pool {
            Pool::None => (0, 1),
            Pool::Average(width) => (1, width),
            Pool::Max(width) => (2, width),
        };
        let pool_first = self.reduction.order == ReductionOrder::PoolThenGroup;
        let args = [
            Arg::Memory(columns, 0),
            self.out,
            Arg::U32(narrow(prompt.tokens)),
            Arg::U32(narrow(prompt.rows)),
            Arg::U32(narrow(before)),
            Arg::U32(narrow(prompt.group)),
            Arg::U32(reduce_word(self.reduction.group)),
            Arg::U32(pool),
            // No neighbour is farther away than the row is long.
            Arg::U32(narrow((width / 2).min(before))),
            Arg::F32(width as f32),
            Arg::U32(u32::from(pool_first)),
        ];
        let launch = Launch {
            entry: "kv_reduce_heads",
            grid: [
                narrow(prompt.tokens.div_ceil(REDUCE_THREADS as usize)),
                second(prompt.heads)?,
            ],
            threads: REDUCE_THREADS,
            args: &args,
        };
        Ok(self.device.launch(&launch)?)
    }

    fn key_norms(&self) -> Result<(), CudaError> {
        let prompt = self.prompt;
        let (tokens, rows) = (prompt.tokens, prompt.rows);
        check_head_dim(prompt.head_dim, prompt.dtype)?;
        self.check_tokens()?;
        if prompt.heads == 0 || tokens == 0 {
            return Ok(());
        }
        let elements = self.key_elements();
        let bytes = prompt.dtype.size_in_bytes();
        let args = [
            memory(self.device, prompt.keys, elements, bytes, "keys")?,
            self.out,
            Arg::U32(number("rows", rows)?),
            Arg::U32(narrow(tokens)),
            Arg::U32(narrow(prompt.head_dim)),
            Arg::U32(narrow(rows)),
        ];
        let warps = (REDUCE_THREADS / WARP) as usize;
        let launch = Launch {
            entry: &format!("kv_key_norms_{}", prompt.dtype),
            grid: [narrow(tokens.div_ceil(warps)), second(prompt.heads)?],
            threads: REDUCE_THREADS,
            args: &args,
        };
        Ok(self.device.launch(&launch)?)
    }

    /// One block for each tile of each query head.
    fn launch(
        &self,
        name: &str,
        tiles: usize,
        args: &[Arg<'_, D::Buffer>],
    ) -> Result<(), CudaError> {
        let prompt = self.prompt;
        let launch = Launch {
            entry: &format!("{name}_{}", prompt.dtype),
            grid: [narrow(tiles), second(prompt.heads * prompt.group)?],
            threads: TILE_THREADS,
            args,
        };
        Ok(self.device.launch(&launch)?)
    }
}

/// A grid's second dimension has 16 bits.
fn second(heads: usize) -> Result<u32, CudaError> {
    u16::try_from(heads)
        .map(u32::from)
        .map_err(|_| CudaError::TooMany {
            what: "query heads",
            number: heads,
            most: usize::from(u16::MAX),
        })
}
