//! What a decode step moves through memory, counted by the emulator: decode attention is bound by that, so it is the part of its speed
//! that can be known without a GPU.

use attention_kernels::cuda::{
    DecodeArgs, Device, Emulated, HeadStep, PageStore, RowWanted, Step, StepTarget, View, attend,
};
use attention_kernels::{KvDtype, PageLayout};
use kv_core::Reduce;

const TOKENS: usize = 1000;
const BLOCK: usize = 32;
const HEAD_DIM: usize = 128;

/// Bytes that a launch read and wrote, entry by entry, for one head of `TOKENS` tokens in 16 bits.
fn moved(group: usize, is_observed: bool) -> Vec<(String, u64, u64)> {
    let device = Emulated::new();
    let layout = PageLayout::new(BLOCK, HEAD_DIM).expect("a layout");
    let pages = TOKENS.div_ceil(BLOCK);
    let mut store =
        PageStore::new(device.clone(), layout, KvDtype::F16, pages, true).expect("a store");
    let table: Vec<u32> = (0..u32::try_from(pages).expect("few")).collect();
    let head = HeadStep {
        pages: &table,
        len: TOKENS,
        target: StepTarget::Nothing,
    };
    let step = Step::upload(&store, 1, &[head], &[(0, false)]).expect("a step");
    let queries = device.zeroed(2 * group * HEAD_DIM).expect("queries");
    let _ = device.take_launches();
    let row = RowWanted {
        reduce: Reduce::Mean,
        add_to_scores: true,
        returned: false,
    };
    let args = DecodeArgs {
        queries: View::whole(&queries),
        group,
        scale: 1.0,
        softcap: None,
        row: is_observed.then_some(row),
    };
    attend(&mut store, &step, 0, &args).expect("attends");
    let launches = device.take_launches().into_iter();
    launches
        .map(|(entry, stats)| (entry, stats.global_bytes_read, stats.global_bytes_written))
        .collect()
}

/// Keys and values of the head.
fn cache_bytes() -> u64 {
    u64::try_from(2 * 2 * TOKENS * HEAD_DIM).expect("small")
}

/// Whatever the group, up to eight query heads: keys and values are read once. The rest is page numbers, which are counted for each
/// thread although a warp reads them together.
#[test]
fn keys_and_values_are_read_once_for_up_to_eight_query_heads() {
    for group in [1, 3, 4, 7, 8] {
        let [(attend, read, _), (merge, merged, _)] = &moved(group, false)[..] else {
            panic!("two launches");
        };
        let share = *read as f64 / cache_bytes() as f64;
        assert!(
            (1.0..1.2).contains(&share),
            "{attend} reads {share:.3} of the cache for {group} query heads"
        );
        let share = *merged as f64 / cache_bytes() as f64;
        assert!(share < 0.1, "{merge} reads {share:.3} of it for {group}");
    }
    let twice = moved(9, false)[0].1 as f64 / cache_bytes() as f64;
    assert!(
        (2.0..2.4).contains(&twice),
        "nine query heads take two rounds: {twice:.3}"
    );
}

/// The attention row costs its weights, written once and read once for each query head, and a score for each token.
#[test]
fn a_row_costs_some_bytes_for_each_token() {
    let total = |is_observed| -> u64 {
        moved(4, is_observed)
            .iter()
            .map(|(_, read, written)| read + written)
            .sum()
    };
    let (bare, observed) = (total(false), total(true));
    let more = (observed - bare) as f64 / bare as f64;
    assert!(
        (0.05..0.2).contains(&more),
        "{observed} bytes against {bare}: {more:.3} more"
    );
}
