//! Decode attention: one new token per sequence, every KV head over a table and a length of its own.
//!
//! # How the work is cut
//!
//! A head's tokens are cut into chunks of [`CHUNK_TOKENS`]. A chunk is one unit of work for one thread: it scores its tokens for all
//! `G` queries of the group, takes the highest score, and sums weights and weighted values relative to that score. The chunks of a
//! head are then put together by log-sum-exp, first chunk to last, in one thread. So a long head is shared by the threads just as
//! many short heads are, and no score is ever too large for `exp`.
//!
//! # What the bits depend on
//!
//! The result of a head is a function of its queries, the rows in its slots in slot order, the scale and the soft cap, to the last bit.
//! It does not depend on the number of threads, on the other heads and sequences of the call, on the page numbers or on `B`:
//! chunks are counted in tokens from the front of the head, each is worked on by one thread, and the order of every addition inside
//! and between chunks is fixed. What a sequence generates can therefore not depend on the company it keeps. Other slot orders give
//! other roundings, within the bound of [`oracle`](crate::oracle::attend), and another build may round differently
//! (fused multiply-add).

mod chunk;
mod observed;

use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;

use crate::scoring::Scoring;
use crate::scratch::with_scratch;
use crate::simd::dispatch;
use crate::store::Memory;
use crate::{Element, KernelError, PageStore};
use chunk::{Chunk, MergeChunks, Partial, Total, attend_chunk};
use observed::{Wanted, merge_rows};

pub use observed::{Observed, attend_observed, attend_observed_into};

/// Tokens of a chunk, the unit of work and of rounding. Short enough that a few thousand tokens keep several threads busy and that
/// the scores of a group stay in the first-level cache, long enough that putting chunks together is nothing beside working on them.
pub const CHUNK_TOKENS: usize = 512;

/// Multiply-adds (`sum of T * G * D`, for keys alone) below which a call stays on its own thread, since waking others would take longer
/// than the work. The result is the same either way.
pub(crate) const SERIAL_WORK: usize = 1 << 18;

/// What [`attend()`] attends with, and to.
#[derive(Clone, Copy, Debug)]
pub struct AttendArgs<'a> {
    /// `[S * H, G, D]`, row-major, after `RoPE`. This is `[S, H * G, D]` as it stands, since the query heads of a KV head are
    /// neighbours.
    pub queries: &'a [f32],
    /// The tokens of every (sequence, KV head), `S * H` of them.
    pub heads: &'a [HeadSlots<'a>],
    /// `G`, query heads per KV head.
    pub group: usize,
    /// Factor on every score, usually `1 / sqrt(D)`.
    pub scale: f32,
    /// Where given, a score `s` becomes `cap * tanh(s / cap)` after scaling.
    pub softcap: Option<f32>,
}

/// The tokens of one KV head of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct HeadSlots<'a> {
    /// Pages in table order. Slot `t` is offset `t % B` of page `pages[t / B]`. Pages beyond the last token are ignored, so a table
    /// may hold pages in reserve.
    pub pages: &'a [u32],
    /// `T`, tokens held: slots `0..len`. Slots from `len` on are never read, whatever they hold. 0 gives zeros.
    pub len: usize,
}

/// Attends with every query to its head's tokens: `[S * H, G, D]`, the shape of the queries. What is computed is defined by
/// [`oracle::attend`](crate::oracle::attend), which also says how close the result is; [the module](mod@crate::attend) says what the
/// bits depend on. See [the crate](crate#from-a-row-to-attention) for an example.
///
/// A number in a head's queries or rows that is not finite makes that head's result unspecified and touches no other head.
///
/// # Errors
///
/// [`KernelError::GroupOutOfRange`], [`KernelError::QueriesLength`], [`KernelError::ScaleOutOfRange`],
/// [`KernelError::SoftcapOutOfRange`], [`KernelError::PagesTooFew`], [`KernelError::PageOutOfRange`].
pub fn attend(store: &PageStore, args: &AttendArgs<'_>) -> Result<Vec<f32>, KernelError> {
    let mut out = vec![0.0; args.queries.len()];
    attend_into(store, args, &mut Workspace::default(), &mut out)?;
    Ok(out)
}

/// As [`attend()`], into a buffer of as many elements as there are in the queries.
///
/// # Errors
///
/// As [`attend()`], and [`KernelError::OutputLength`]. `out` is unchanged then.
pub fn attend_into(
    store: &PageStore,
    args: &AttendArgs<'_>,
    workspace: &mut Workspace,
    out: &mut [f32],
) -> Result<(), KernelError> {
    check(store, args, out)?;
    run(store, args, workspace, out, Extra::None);
    Ok(())
}

/// Queries of their own for the first tokens of every head.
///
/// A key is stored as `RoPE` turned it for its position, and a score depends on the distance of query and key alone. So a query that is turned
/// for another position sees the keys as if *they* had been moved, and not one of them is written: this is how attention sinks stay
/// next to a window that has gone on.
#[derive(Clone, Copy, Debug)]
pub struct Front<'a> {
    /// `[S * H, G, D]`, as [`AttendArgs::queries`].
    pub queries: &'a [f32],
    /// How many of each head's first slots they are for, `[S * H]`; more than the head holds means all.
    pub tokens: &'a [usize],
}

/// As [`attend_into`]: the first tokens of every head are scored by queries of their own, all under one softmax.
///
/// # Errors
///
/// As [`attend_into`], and [`KernelError::QueriesLength`] or [`KernelError::FrontLength`] for what `front` brings.
pub fn attend_with_front_into(
    store: &PageStore,
    args: &AttendArgs<'_>,
    front: &Front<'_>,
    workspace: &mut Workspace,
    out: &mut [f32],
) -> Result<(), KernelError> {
    check(store, args, out)?;
    let own = AttendArgs {
        queries: front.queries,
        ..*args
    };
    check(store, &own, out)?;
    if front.tokens.len() != args.heads.len() {
        return Err(KernelError::FrontLength {
            counts: front.tokens.len(),
            heads: args.heads.len(),
        });
    }
    run(store, args, workspace, out, Extra::Front(*front));
    Ok(())
}

fn check(store: &PageStore, args: &AttendArgs<'_>, out: &[f32]) -> Result<(), KernelError> {
    let layout = store.layout();
    let &AttendArgs {
        queries,
        heads,
        group,
        ..
    } = args;
    if group == 0 {
        return Err(KernelError::GroupOutOfRange { group });
    }
    // Saturating: a product that does not fit is the length of no slice.
    let expected = heads
        .len()
        .saturating_mul(group)
        .saturating_mul(layout.head_dim());
    if queries.len() != expected {
        return Err(KernelError::QueriesLength {
            elements: queries.len(),
            expected,
            heads: heads.len(),
            group,
            head_dim: layout.head_dim(),
        });
    }
    if out.len() != expected {
        return Err(KernelError::OutputLength {
            elements: out.len(),
            expected,
        });
    }
    scoring(args).check()?;
    for (index, head) in heads.iter().enumerate() {
        let expected = layout.pages_for(head.len);
        let Some(pages) = head.pages.get(..expected) else {
            return Err(KernelError::PagesTooFew {
                head: index,
                len: head.len,
                pages: head.pages.len(),
                expected,
                block: layout.block(),
            });
        };
        for &page in pages {
            store.check_page(index, page)?;
        }
    }
    Ok(())
}

fn scoring(args: &AttendArgs<'_>) -> Scoring {
    Scoring {
        scale: args.scale,
        softcap: args.softcap,
    }
}

/// One chunk of one head.
#[derive(Clone, Debug)]
struct Job {
    head: usize,
    tokens: Range<usize>,
}

/// Memory that calls of [`attend_into`] and [`attend_observed_into`] work in. It grows to what the largest call needed; with one that
/// has grown, a call allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    /// Every head's chunks, head by head.
    jobs: Vec<Job>,
    /// `[chunks, G, D]`.
    sums: Vec<f32>,
    /// `[chunks, G]`.
    totals: Vec<Total>,
    /// `[chunks, G, CHUNK_TOKENS]`, where attention rows are asked for.
    weights: Vec<f32>,
}

impl Workspace {
    /// Cuts every head into chunks, and makes room for what they leave. The cut of a head depends on its length alone.
    fn prepare(&mut self, args: &AttendArgs<'_>, head_dim: usize, keeps_weights: bool) {
        self.jobs.clear();
        for (head, slots) in args.heads.iter().enumerate() {
            let starts = (0..slots.len).step_by(CHUNK_TOKENS);
            self.jobs.extend(starts.map(|start| Job {
                head,
                tokens: start..slots.len.min(start + CHUNK_TOKENS),
            }));
        }
        let rows = self.jobs.len() * args.group;
        self.sums.resize(rows * head_dim, 0.0);
        self.totals.resize(rows, Total::default());
        let kept = if keeps_weights {
            rows * CHUNK_TOKENS
        } else {
            0
        };
        self.weights.resize(kept, 0.0);
    }
}

/// What a call does beside attention itself.
enum Extra<'a> {
    None,
    /// Says the attention rows.
    Rows(Wanted<'a>),
    /// Scores the first tokens by queries of their own.
    Front(Front<'a>),
}

fn run(
    store: &PageStore,
    args: &AttendArgs<'_>,
    workspace: &mut Workspace,
    out: &mut [f32],
    extra: Extra<'_>,
) {
    match store.memory() {
        Memory::F32(memory) => run_in::<f32>(store, memory, args, workspace, out, extra),
        Memory::F16(memory) => run_in::<f16>(store, memory, args, workspace, out, extra),
        Memory::Bf16(memory) => run_in::<bf16>(store, memory, args, workspace, out, extra),
    }
}

fn run_in<E: Element>(
    store: &PageStore,
    memory: &[E],
    args: &AttendArgs<'_>,
    workspace: &mut Workspace,
    out: &mut [f32],
    extra: Extra<'_>,
) {
    let (wanted, front) = match extra {
        Extra::None => (None, None),
        Extra::Rows(wanted) => (Some(wanted), None),
        Extra::Front(front) => (None, Some(front)),
    };
    let layout = store.layout();
    let (group, per_head) = (args.group, args.group * layout.head_dim());
    workspace.prepare(args, layout.head_dim(), wanted.is_some());
    let Workspace {
        jobs,
        sums,
        totals,
        weights,
    } = workspace;

    let attend_job = |job: &Job, sums: &mut [f32], totals: &mut [Total], scores: &mut [f32]| {
        let HeadSlots { pages, len } = args.heads[job.head];
        let chunk = Chunk {
            memory,
            layout,
            // Those beyond the last token have not been checked.
            pages: &pages[..layout.pages_for(len)],
            tokens: job.tokens.clone(),
            queries: &args.queries[job.head * per_head..][..per_head],
            front: front.map(|front| {
                let queries = &front.queries[job.head * per_head..][..per_head];
                (front.tokens[job.head], queries)
            }),
            scoring: scoring(args),
        };
        attend_chunk(&chunk, scores, Partial { sums, totals });
    };
    let tokens: usize = jobs.iter().map(|job| job.tokens.len()).sum();
    let is_small = tokens.saturating_mul(per_head) < SERIAL_WORK;
    let per_job = group * CHUNK_TOKENS;
    let tasks = jobs
        .par_iter()
        .with_min_len(if is_small { jobs.len() } else { 1 })
        .zip(sums.par_chunks_exact_mut(per_head))
        .zip(totals.par_chunks_exact_mut(group));
    if wanted.is_some() {
        let tasks = tasks.zip(weights.par_chunks_exact_mut(per_job));
        tasks.for_each(|(((job, sums), totals), scores)| attend_job(job, sums, totals, scores));
    } else {
        tasks.for_each(|((job, sums), totals)| {
            with_scratch(per_job, |scores| attend_job(job, sums, totals, scores));
        });
    }

    if let Some(wanted) = wanted {
        merge_rows(args, weights, totals, wanted);
    }
    let (mut sums, mut totals) = (&sums[..], &totals[..]);
    for (out, head) in out.chunks_exact_mut(per_head).zip(args.heads) {
        let chunks = head.len.div_ceil(CHUNK_TOKENS);
        let (head_sums, head_totals);
        (head_sums, sums) = sums.split_at(chunks * per_head);
        (head_totals, totals) = totals.split_at(chunks * group);
        dispatch(MergeChunks {
            sums: head_sums,
            totals: head_totals,
            group,
            out,
        });
    }
}
