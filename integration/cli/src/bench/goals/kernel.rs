//! Decode attention over more memory than any cache holds, against the speed of that memory.
use std::time::Instant;

use anyhow::{Context, Result};
use attention_kernels::{
    AttendArgs, HeadSlots, KvDtype, PageLayout, PageStore, RowWrite, Workspace, WriteArgs,
    attend_into, simd_level, write,
};
use rayon::ThreadPoolBuilder;

use super::{Goal, Suite, mib, percent};
use crate::bench::{
    measure::{Probe, float, median},
    random::Numbers,
};

/// The shape of a layer of a small model.
pub(super) const HEADS: usize = 3;
pub(super) const GROUP: usize = 3;
pub(super) const HEAD_DIM: usize = 64;
/// Tokens of a page of the kernels' own benchmark.
const BLOCK: usize = 16;

pub(super) fn measure(suite: &Suite) -> Result<Vec<Goal>> {
    let tokens = suite.sizes.kernel_tokens;
    let layout = PageLayout::new(BLOCK, HEAD_DIM)?;
    let per_head = layout.pages_for(tokens);
    let store = filled(layout, HEADS * per_head)?;
    let numbers = (0..HEADS * per_head).map(u32::try_from);
    let pages: Vec<u32> = numbers.collect::<Result<_, _>>()?;
    let tables: Vec<&[u32]> = pages.chunks(per_head).collect();
    let mut layer = Layer::new(&store);
    let probe = Probe::new(suite.sizes.probe_bytes);
    let mut goals = Vec::new();
    for threads in [1, 2] {
        suite.say(&format!("threads: {threads}"));
        let pool = ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.context("cannot start threads")?;
        let (mut speeds, mut memory) = (Vec::new(), Vec::new());
        let bytes = float(store.bytes());
        for _ in 0..suite.sizes.calls {
            // The first call after other work does not count.
            pool.install(|| layer.attend(&tables, tokens))?;
            let seconds = pool.install(|| layer.attend(&tables, tokens))?;
            speeds.push(bytes / seconds / 1e9);
            memory.push(probe.with_threads(threads) / 1e9);
        }
        let [fastest, limit] =
            [&speeds, &memory].map(|all| all.iter().copied().fold(0.0, f64::max));
        let (speed, speed_of_memory) = (median(speeds), median(memory));
        let plural = if threads == 1 { "" } else { "s" };
        let name = format!("kernel-share-of-bandwidth-{threads}-thread{plural}");
        let share = speed / speed_of_memory;
        goals.push(
            Goal::at_least(name, share, 0.8, "of the read bandwidth").possible(1.05).note(format!(
                "{speed:.1} of {speed_of_memory:.1} GB/s over {:.0} MiB of f16, medians of {} calls, {}; \
                 the best calls: {fastest:.1} of {limit:.1} GB/s ({:.0} %)",
                mib(store.bytes()),
                suite.sizes.calls,
                simd_level(),
                percent(fastest, limit)
            )),
        );
    }
    Ok(goals)
}

/// A store of half precision whose pages all hold something.
pub(super) fn filled(layout: PageLayout, pages: usize) -> Result<PageStore> {
    let mut store = PageStore::new(layout, KvDtype::F16, pages)?;
    let mut numbers = Numbers::new(7);
    let block = layout.block();
    let row = block * layout.head_dim();
    // Pages alike are read as fast as others.
    let many: Vec<f32> = (0..4 * row).map(|_| numbers.unit()).collect();
    let at = |page: usize, turn: usize| &many[(page + turn) % 4 * row..][..row];
    for page in 0..pages {
        let rows = (0..block).map(|offset| {
            Ok(RowWrite {
                source: offset,
                page: u32::try_from(page)?,
                offset: u32::try_from(offset)?,
            })
        });
        let args = WriteArgs {
            keys: at(page, 0),
            values: at(page, 1),
            rows: &rows.collect::<Result<Vec<_>>>()?,
        };
        write(&mut store, &args)?;
    }
    Ok(store)
}

/// One layer's decode attention, with what it works in.
pub(super) struct Layer<'a> {
    store: &'a PageStore,
    queries: Vec<f32>,
    workspace: Workspace,
    out: Vec<f32>,
}

impl<'a> Layer<'a> {
    pub(super) fn new(store: &'a PageStore) -> Self {
        let elements = HEADS * GROUP * HEAD_DIM;
        let mut numbers = Numbers::new(11);
        Self {
            store,
            queries: (0..elements).map(|_| numbers.unit()).collect(),
            workspace: Workspace::default(),
            out: vec![0.0; elements],
        }
    }

    /// Attends over `tokens` tokens of each head, and returns the seconds that it took.
    pub(super) fn attend(&mut self, tables: &[&[u32]], tokens: usize) -> Result<f64> {
        let heads = tables.iter().map(|pages| HeadSlots { pages, len: tokens });
        let heads: Vec<HeadSlots<'_>> = heads.collect();
        let args = AttendArgs {
            queries: &self.queries,
            heads: &heads,
            group: GROUP,
            scale: 0.125,
            softcap: None,
        };
        let start = Instant::now();
        attend_into(self.store, &args, &mut self.workspace, &mut self.out)?;
        Ok(start.elapsed().as_secs_f64())
    }
}
