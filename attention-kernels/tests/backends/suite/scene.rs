//! A store with heads in shuffled pages; every slot that no head holds is poison.

use attention_kernels::cuda::{HeadStep, SlotWrite, StepTarget};
use attention_kernels::{KvDtype, PageLayout};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Backend, NewTokens};
use crate::world::{Head, Rows};

/// The heads of a store, with pages in reserve behind some tables.
pub(crate) struct Scene {
    pub(crate) layout: PageLayout,
    pub(crate) dtype: KvDtype,
    pub(crate) heads: Vec<Head>,
    /// Of each head, its slots' scores.
    pub(crate) scores: Vec<Vec<f32>>,
    pages: Vec<u32>,
}

impl Scene {
    /// Heads of these lengths, with rows between -1 and 1 and scores between -1 and 1.
    pub(crate) fn random(
        rng: &mut ChaCha8Rng,
        (block, head_dim): (usize, usize),
        dtype: KvDtype,
        lengths: &[usize],
    ) -> Self {
        let rows = lengths
            .iter()
            .map(|&len| Rows::random(rng, len, head_dim, dtype))
            .collect();
        Self::of(rng, (block, head_dim), dtype, rows)
    }

    /// Heads that hold these rows.
    pub(crate) fn of(
        rng: &mut ChaCha8Rng,
        (block, head_dim): (usize, usize),
        dtype: KvDtype,
        rows: Vec<Rows>,
    ) -> Self {
        let layout = PageLayout::new(block, head_dim).expect("a layout");
        let lengths: Vec<usize> = rows.iter().map(|rows| rows.keys.len() / head_dim).collect();
        let tables: Vec<usize> = lengths
            .iter()
            .map(|&len| layout.pages_for(len) + rng.random_range(0..2))
            .collect();
        let pages = tables.iter().sum::<usize>() + 2;
        let mut pages: Vec<u32> = (0..u32::try_from(pages).expect("few pages")).collect();
        pages.shuffle(rng);
        let mut left = &pages[..];
        let mut heads = Vec::new();
        for ((rows, &len), count) in rows.into_iter().zip(&lengths).zip(tables) {
            let table;
            (table, left) = left.split_at(count);
            heads.push(Head {
                pages: table.to_vec(),
                rows,
                len,
            });
        }
        let mut scores = |&len| (0..len).map(|_| rng.random_range(-1.0..1.0)).collect();
        Self {
            layout,
            dtype,
            heads,
            scores: lengths.iter().map(&mut scores).collect(),
            pages,
        }
    }

    /// A store with all of it. Slot `i` of a head has position `i`.
    pub(crate) fn build<B: Backend>(&self, backend: &B) -> B::Store {
        let head_dim = self.layout.head_dim();
        let mut store = backend.store(self.layout, self.dtype, self.pages.len());
        let poison = vec![f32::NAN; head_dim];
        let poison = NewTokens {
            keys: &poison,
            values: &poison,
        };
        let slots: Vec<SlotWrite> = self
            .pages
            .iter()
            .flat_map(|&page| (0..self.layout.block()).map(move |offset| (page, offset)))
            .map(|(page, offset)| slot_write(0, &[page], offset, self.layout.block(), 7))
            .collect();
        backend.write(&mut store, poison, Some(&[f32::NAN]), &slots);
        for (head, scores) in self.heads.iter().zip(&self.scores) {
            let slots: Vec<SlotWrite> = (0..head.len)
                .map(|slot| slot_write(slot, &head.pages, slot, self.layout.block(), slot))
                .collect();
            let new = NewTokens {
                keys: &head.rows.keys,
                values: &head.rows.values,
            };
            backend.write(&mut store, new, Some(scores), &slots);
        }
        store
    }

    /// A step over all heads that writes nothing.
    pub(crate) fn steps(&self) -> Vec<HeadStep<'_>> {
        let step = |head| step_of(head, StepTarget::Nothing);
        self.heads.iter().map(step).collect()
    }
}

pub(crate) fn step_of(head: &Head, target: StepTarget) -> HeadStep<'_> {
    HeadStep {
        pages: &head.pages,
        len: head.len,
        target,
    }
}

/// Row `source` into slot `slot` of a table.
pub(crate) fn slot_write(
    source: usize,
    table: &[u32],
    slot: usize,
    block: usize,
    position: usize,
) -> SlotWrite {
    let narrow = |number| u32::try_from(number).expect("small");
    SlotWrite {
        source,
        page: table[slot / block],
        offset: narrow(slot % block),
        position: narrow(position),
        is_pinned: false,
    }
}
