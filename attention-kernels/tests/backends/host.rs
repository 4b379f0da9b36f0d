//! The CPU's ops, and what its host does beside them: positions, scores and the choice of a slot are the ledger's there.

use attention_kernels::cuda::entries::PINNED;
use attention_kernels::cuda::{HeadStep, SlotWrite, StepTarget};
use attention_kernels::{
    AttendArgs, CopyRow, HeadSlots, KvDtype, PageLayout, PageStore, PromptArgs, RowWrite,
    ShiftArgs, WriteArgs, attend, attend_observed, copy_rows, observe, shift, write,
};
use kv_core::{KeepPlan, LayerView, Observation, Pins, Reduction, rank};

use crate::suite::{Ask, Backend, Decode, NewTokens, Record, Seen};

const SOUND: &str = "a sound call";

pub(crate) struct Cpu;

/// Pages, and beside them what a ledger knows.
pub(crate) struct Store {
    pages: PageStore,
    slots: Record,
}

impl Backend for Cpu {
    type Store = Store;

    fn store(&self, layout: PageLayout, dtype: KvDtype, pages: usize) -> Store {
        Store {
            pages: PageStore::new(layout, dtype, pages).expect(SOUND),
            slots: Record::zeros(layout, pages),
        }
    }

    fn contents(&self, store: &Store) -> Record {
        let mut record = store.slots.clone();
        let block = u32::try_from(record.layout.block()).expect("small");
        let pages = u32::try_from(store.pages.pages()).expect("few");
        let slots = (0..pages).flat_map(|page| (0..block).map(move |offset| (page, offset)));
        let rows = slots.map(|(page, offset)| {
            let (key, value) = (
                store.pages.read_key(page, offset),
                store.pages.read_value(page, offset),
            );
            key.into_iter().zip(value).collect::<Vec<_>>()
        });
        (record.keys, record.values) = rows.flatten().unzip();
        record
    }

    fn write(
        &self,
        store: &mut Store,
        new: NewTokens<'_>,
        scores: Option<&[f32]>,
        rows: &[SlotWrite],
    ) {
        let writes: Vec<RowWrite> = rows
            .iter()
            .map(|row| RowWrite {
                source: row.source,
                page: row.page,
                offset: row.offset,
            })
            .collect();
        let args = WriteArgs {
            keys: new.keys,
            values: new.values,
            rows: &writes,
        };
        write(&mut store.pages, &args).expect(SOUND);
        store.slots.write(new, scores, rows, KvDtype::F32);
    }

    fn copy_rows(&self, store: &mut Store, rows: &[CopyRow]) {
        copy_rows(&mut store.pages, rows).expect(SOUND);
        for row in rows {
            store.slots.copy(row);
        }
    }

    fn shift(&self, store: &mut Store, args: &ShiftArgs<'_>) {
        shift(&mut store.pages, args).expect(SOUND);
    }

    fn append(
        &self,
        store: &mut Store,
        step: &Decode<'_>,
        layer: usize,
        new: NewTokens<'_>,
        (token, tokens): (usize, usize),
    ) {
        let heads = step.layer(layer);
        let block = store.pages.layout().block();
        for (index, head) in heads.iter().enumerate() {
            let slot = match head.target {
                StepTarget::Nothing => continue,
                StepTarget::Slot(slot) => slot as usize,
                StepTarget::Lowest { recent } => lowest(&store.slots, head, recent as usize),
            };
            let (position, is_pinned) = step.positions[index * step.positions.len() / heads.len()];
            let row = SlotWrite {
                source: index * tokens + token,
                page: head.pages[slot / block],
                offset: u32::try_from(slot % block).expect("small"),
                position,
                is_pinned,
            };
            self.write(store, new, None, &[row]);
        }
    }

    fn attend(&self, store: &mut Store, step: &Decode<'_>, layer: usize, ask: &Ask<'_>) -> Seen {
        let steps = step.layer(layer);
        let heads: Vec<HeadSlots<'_>> = steps
            .iter()
            .map(|head| HeadSlots {
                pages: head.pages,
                len: head.len,
            })
            .collect();
        let args = AttendArgs {
            queries: ask.queries,
            heads: &heads,
            group: ask.group,
            scale: ask.scale,
            softcap: ask.softcap,
        };
        let Some(wanted) = ask.row else {
            let out = attend(&store.pages, &args).expect(SOUND);
            return Seen { out, rows: None };
        };
        let seen = attend_observed(&store.pages, &args, wanted.reduce).expect(SOUND);
        let mut left = &seen.rows[..];
        let mut rows = Vec::new();
        for head in steps {
            let row;
            (row, left) = left.split_at(head.len);
            for (slot, seen) in row.iter().enumerate().filter(|_| wanted.add_to_scores) {
                let at = store.slots.in_table(head.pages, slot);
                store.slots.scores[at] += seen;
            }
            rows.push(row.to_vec());
        }
        Seen {
            out: seen.out,
            rows: wanted.returned.then_some(rows),
        }
    }

    fn observe(
        &self,
        observation: Observation,
        reduction: Reduction,
        prompt: &PromptArgs<'_>,
        _dtype: KvDtype,
    ) -> Option<Vec<f32>> {
        observe(observation, reduction, prompt).expect(SOUND)
    }

    fn keep(
        &self,
        plan: &KeepPlan,
        pins: &Pins,
        tokens: usize,
        scores: Option<&[f32]>,
    ) -> Vec<Vec<u32>> {
        let view = LayerView::prefill(0, plan.heads(), tokens, tokens);
        let rows: Vec<&[f32]> = (0..plan.heads())
            .map(|head| scores.map_or(&[][..], |scores| &scores[head * tokens..][..tokens]))
            .collect();
        let view = match scores {
            Some(_) => view.with_scores(Observation::Accumulated, &rows),
            None => view,
        };
        plan.resolve(&view, pins).slots
    }
}

/// As a ledger chooses.
fn lowest(slots: &Record, head: &HeadStep<'_>, recent: usize) -> usize {
    let at = |slot| slots.in_table(head.pages, slot);
    let position = |slot| slots.positions[at(slot)];
    let mut newest: Vec<u32> = (0..head.len).map(|slot| position(slot) & !PINNED).collect();
    newest.sort_unstable();
    let protected = newest.split_off(newest.len().saturating_sub(recent));
    let free = (0..head.len)
        .filter(|&slot| position(slot) & PINNED == 0 && !protected.contains(&position(slot)));
    let key = |slot: usize| (slots.scores[at(slot)], position(slot) as usize);
    free.max_by(|&a, &b| rank(key(a), key(b)))
        .expect("a token that may go")
}
