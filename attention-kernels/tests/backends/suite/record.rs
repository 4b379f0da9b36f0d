//! What a store holds, or should hold, slot by slot.

use attention_kernels::cuda::SlotWrite;
use attention_kernels::cuda::entries::PINNED;
use attention_kernels::{CopyRow, KvDtype, PageLayout};

use super::NewTokens;
use crate::world::stored;

/// Keys, values, positions and scores of all slots of all pages.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) layout: PageLayout,
    /// `[P * B, D]`.
    pub(crate) keys: Vec<f32>,
    pub(crate) values: Vec<f32>,
    /// `[P * B]`, with the bit of pinned ones.
    pub(crate) positions: Vec<u32>,
    pub(crate) scores: Vec<f32>,
}

impl Record {
    /// A fresh store.
    pub(crate) fn zeros(layout: PageLayout, pages: usize) -> Self {
        let slots = pages * layout.block();
        Self {
            layout,
            keys: vec![0.0; slots * layout.head_dim()],
            values: vec![0.0; slots * layout.head_dim()],
            positions: vec![0; slots],
            scores: vec![0.0; slots],
        }
    }

    /// Place of a slot in the record.
    pub(crate) fn at(&self, page: u32, offset: u32) -> usize {
        page as usize * self.layout.block() + offset as usize
    }

    /// Place of slot `slot` of a table.
    pub(crate) fn in_table(&self, table: &[u32], slot: usize) -> usize {
        let block = self.layout.block();
        table[slot / block] as usize * block + slot % block
    }

    pub(crate) fn key(&self, at: usize) -> &[f32] {
        &self.keys[at * self.layout.head_dim()..][..self.layout.head_dim()]
    }

    pub(crate) fn value(&self, at: usize) -> &[f32] {
        &self.values[at * self.layout.head_dim()..][..self.layout.head_dim()]
    }

    /// Notes row `source` of `new` at a place, rounded as `dtype` rounds.
    pub(crate) fn put(&mut self, at: usize, new: NewTokens<'_>, source: usize, dtype: KvDtype) {
        let head_dim = self.layout.head_dim();
        for d in 0..head_dim {
            self.keys[at * head_dim + d] = stored(new.keys[source * head_dim + d], dtype);
            self.values[at * head_dim + d] = stored(new.values[source * head_dim + d], dtype);
        }
    }

    /// What a write should do.
    pub(crate) fn write(
        &mut self,
        new: NewTokens<'_>,
        scores: Option<&[f32]>,
        rows: &[SlotWrite],
        dtype: KvDtype,
    ) {
        for row in rows {
            let at = self.at(row.page, row.offset);
            self.put(at, new, row.source, dtype);
            self.positions[at] = row.position | if row.is_pinned { PINNED } else { 0 };
            self.scores[at] = scores.map_or(0.0, |scores| scores[row.source]);
        }
    }

    /// What a copy should do.
    pub(crate) fn copy(&mut self, row: &CopyRow) {
        let from = self.at(row.from_page, row.from_offset);
        let to = self.at(row.to_page, row.to_offset);
        let head_dim = self.layout.head_dim();
        let source = from * head_dim..(from + 1) * head_dim;
        self.keys.copy_within(source.clone(), to * head_dim);
        self.values.copy_within(source, to * head_dim);
        self.positions[to] = self.positions[from];
        self.scores[to] = self.scores[from];
    }

    /// Compares every bit.
    pub(crate) fn assert_is(&self, want: &Self, when: &str) {
        for at in 0..want.positions.len() {
            let place = (at / self.layout.block(), at % self.layout.block());
            for (name, got, want) in [
                ("key", self.key(at), want.key(at)),
                ("value", self.value(at), want.value(at)),
                ("score", &self.scores[at..=at], &want.scores[at..=at]),
            ] {
                let same = got
                    .iter()
                    .zip(want)
                    .all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{when}: {name} of {place:?} is {got:?}, not {want:?}");
            }
            let (got, want) = (self.positions[at], want.positions[at]);
            assert_eq!(got, want, "{when}: position of {place:?}");
        }
    }
}
