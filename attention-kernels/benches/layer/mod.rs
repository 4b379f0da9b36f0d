//! A layer of a small model: three KV heads, three query heads each, `D = 64`.

use std::fmt;

use attention_kernels::{KvDtype, PageLayout, PageStore, RowWrite, WriteArgs, write};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

const BLOCK: usize = 16;
pub(crate) const HEAD_DIM: usize = 64;
pub(crate) const GROUP: usize = 3;
pub(crate) const HEADS: usize = 3;

/// Where a head's pages lie.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "not every benchmark asks for both")]
pub(crate) enum Order {
    /// One after the other.
    Contiguous,
    /// Anywhere.
    Paged,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Contiguous => "contiguous",
            Self::Paged => "paged",
        })
    }
}

/// A store of random rows, and the page tables.
pub(crate) fn store(
    dtype: KvDtype,
    tokens: usize,
    order: Order,
    rng: &mut ChaCha8Rng,
) -> (PageStore, Vec<Vec<u32>>) {
    let layout = PageLayout::new(BLOCK, HEAD_DIM).expect("a layout");
    let per_head = layout.pages_for(tokens);
    let pages = u32::try_from(HEADS * per_head).expect("few pages");
    let mut store = PageStore::new(layout, dtype, HEADS * per_head).expect("a store");
    let mut numbers: Vec<u32> = (0..pages).collect();
    if matches!(order, Order::Paged) {
        numbers.shuffle(rng);
    }
    for &page in &numbers {
        let mut rows = || -> Vec<f32> {
            let row = |_| rng.random_range(-1.0..1.0);
            (0..BLOCK * HEAD_DIM).map(row).collect()
        };
        let (keys, values) = (rows(), rows());
        let rows: Vec<RowWrite> = (0..16)
            .map(|offset| RowWrite {
                source: offset as usize,
                page,
                offset,
            })
            .collect();
        let args = WriteArgs {
            keys: &keys,
            values: &values,
            rows: &rows,
        };
        write(&mut store, &args).expect("rows in range");
    }
    let tables = numbers.chunks(per_head).map(<[u32]>::to_vec).collect();
    (store, tables)
}

/// `elements` numbers between -1 and 1.
pub(crate) fn numbers(rng: &mut ChaCha8Rng, elements: usize) -> Vec<f32> {
    let number = |_| rng.random_range(-1.0..1.0);
    (0..elements).map(number).collect()
}
