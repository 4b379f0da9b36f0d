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
use crate::store::Memory;
use crate::{Element, KernelError, PageStore};
use chunk::{Chunk, Partial, Scratch, Total, attend_chunk, merge_chunks};
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
    attend_into(store, args, &mut out)?;
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
    out: &mut [f32],
) -> Result<(), KernelError> {
    check(store, args, out)?;
    run(store, args, out, None);
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
struct Job {
    head: usize,
    tokens: Range<usize>,
}

/// Cuts every head into chunks. The cut of a head depends on its length alone.
fn cut(heads: &[HeadSlots<'_>]) -> Vec<Job> {
    let jobs = heads.iter().enumerate().flat_map(|(head, slots)| {
        let starts = (0..slots.len).step_by(CHUNK_TOKENS);
        starts.map(move |start| Job {
            head,
            tokens: start..slots.len.min(start + CHUNK_TOKENS),
        })
    });
    jobs.collect()
}

fn run(store: &PageStore, args: &AttendArgs<'_>, out: &mut [f32], wanted: Option<Wanted<'_>>) {
    match store.memory() {
        Memory::F32(memory) => run_in::<f32>(store, memory, args, out, wanted),
        Memory::F16(memory) => run_in::<f16>(store, memory, args, out, wanted),
        Memory::Bf16(memory) => run_in::<bf16>(store, memory, args, out, wanted),
    }
}

fn run_in<E: Element>(
    store: &PageStore,
    memory: &[E],
    args: &AttendArgs<'_>,
    out: &mut [f32],
    wanted: Option<Wanted<'_>>,
) {
    let head_dim = store.layout().head_dim();
    let group = args.group;
    let per_head = group * head_dim;
    let jobs = cut(args.heads);
    let tokens: usize = jobs.iter().map(|job| job.tokens.len()).sum();
    let mut sums = vec![0.0; jobs.len() * per_head];
    let mut totals = vec![Total::default(); jobs.len() * group];
    let kept_per_token = if wanted.is_some() { group } else { 0 };
    let mut weights = vec![0.0; tokens * kept_per_token];

    let new_scratch = || Scratch::new(group, head_dim);
    let attend_job = |scratch: &mut Scratch, (job, partial): (&Job, Partial<'_>)| {
        let chunk = Chunk {
            layout: store.layout(),
            pages: args.heads[job.head].pages,
            tokens: job.tokens.clone(),
            queries: &args.queries[job.head * per_head..][..per_head],
            scoring: scoring(args),
        };
        attend_chunk(memory, &chunk, scratch, partial);
    };
    let mut weights_left = &mut weights[..];
    let partials = jobs
        .iter()
        .zip(sums.chunks_exact_mut(per_head))
        .zip(totals.chunks_exact_mut(group))
        .map(|((job, sums), totals)| Partial {
            sums,
            totals,
            weights: weights_left
                .split_off_mut(..job.tokens.len() * kept_per_token)
                .unwrap_or_default(),
        });
    let partials: Vec<Partial<'_>> = partials.collect();
    if tokens.saturating_mul(per_head) < SERIAL_WORK {
        let mut scratch = new_scratch();
        let tasks = jobs.iter().zip(partials);
        tasks.for_each(|task| attend_job(&mut scratch, task));
    } else {
        let tasks = jobs.par_iter().zip(partials);
        tasks.for_each_init(new_scratch, attend_job);
    }

    if let Some(wanted) = wanted {
        merge_rows(args, &weights, &totals, wanted);
    }
    let (mut sums, mut totals) = (&sums[..], &totals[..]);
    for (out, head) in out.chunks_exact_mut(per_head).zip(args.heads) {
        let chunks = head.len.div_ceil(CHUNK_TOKENS);
        let (head_sums, head_totals);
        (head_sums, sums) = sums.split_at(chunks * per_head);
        (head_totals, totals) = totals.split_at(chunks * group);
        merge_chunks(head_sums, head_totals, group, out);
    }
}
