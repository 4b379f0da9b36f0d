//! Sequences and their ledgers: one that chooses victims itself, and one that leaves them to the device.

use std::collections::HashMap;

use attention_kernels::KvDtype;
use attention_kernels::cuda::entries::PINNED;
use attention_kernels::cuda::{HeadStep, SlotWrite, StepTarget};
use kv_core::{
    Demand, Geometry, Growth, KeepPlan, Kept, LayerView, Ledger, Observation, Pins, Position, Room,
    SeqId, Target,
};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::super::{Backend, Decode, NewTokens, Record, slot_write};
use crate::world::{random_queries, stored};

pub(super) const HEAD_DIM: usize = 16;
pub(super) const BLOCK: usize = 8;
const HEADS: usize = 4;
pub(super) const PAGES: usize = 160;
pub(super) const SEQS: [SeqId; 2] = [SeqId(3), SeqId(8)];

const GEOMETRY: Geometry = Geometry {
    layers: 1,
    kv_heads: HEADS,
    group: 2,
    head_dim: HEAD_DIM,
    block: BLOCK,
    element_bytes: 4,
    max_positions: 256,
};

/// Few distinct scores, so that equal ones meet, and the odd ones.
pub(super) const SCORES: [f32; 7] = [
    0.0,
    -0.0,
    1.0,
    2.0,
    f32::NAN,
    f32::INFINITY,
    f32::NEG_INFINITY,
];

/// A sequence, its ledger that chooses victims itself, and its text.
pub(super) struct Text {
    seq: SeqId,
    pub(super) tokens: usize,
    pins: Pins,
    /// Key and value of each head's tokens, by head and position, as the store holds them.
    rows: HashMap<(usize, u32), (Vec<f32>, Vec<f32>)>,
}

/// Two ledgers that take the same pages: one chooses victims, the other leaves them to the device.
pub(super) struct Ledgers {
    host: Ledger,
    device: Ledger,
}

fn plan(rng: &mut ChaCha8Rng) -> KeepPlan {
    let mut plan = KeepPlan::all(HEADS);
    for (head, limit) in [(0, 1), (1, rng.random_range(2..20)), (2, 37)] {
        plan.top(head, limit, 0);
        let recent = rng.random_range(0..limit);
        plan.grow(head, Growth::EvictLowest { limit, recent });
    }
    plan.window(3, 2, 9);
    plan.grow(
        3,
        Growth::Ring {
            sinks: 2,
            recent: 9,
        },
    );
    plan
}

impl Text {
    pub(super) fn random(rng: &mut ChaCha8Rng, seq: SeqId) -> Self {
        let start = rng.random_range(0..60);
        Self {
            seq,
            tokens: rng.random_range(1..50),
            pins: Pins::new(std::iter::once(start..start + rng.random_range(0..6))),
            rows: HashMap::new(),
        }
    }

    /// A prompt's scores, and what is kept of it.
    fn kept(&self, rng: &mut ChaCha8Rng, plan: &KeepPlan) -> Kept {
        let mut row = || {
            (0..self.tokens)
                .map(|_| *SCORES.choose(rng).expect("some"))
                .collect()
        };
        let rows: Vec<Vec<f32>> = (0..HEADS).map(|_| row()).collect();
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let view =
            LayerView::prefill(0, HEADS, self.tokens, 9).with_scores(Observation::Rows, &rows);
        plan.resolve(&view, &self.pins)
    }

    /// A new token of every head; notes its rows.
    fn speak(&mut self, rng: &mut ChaCha8Rng, position: usize, dtype: KvDtype) -> [Vec<f32>; 2] {
        let keys = random_queries(rng, HEADS * HEAD_DIM, 2.0);
        let values = random_queries(rng, HEADS * HEAD_DIM, 2.0);
        let position = u32::try_from(position).expect("small");
        for head in 0..HEADS {
            let row = |rows: &[f32]| {
                let row = &rows[head * HEAD_DIM..][..HEAD_DIM];
                row.iter().map(|&number| stored(number, dtype)).collect()
            };
            self.rows
                .insert((head, position), (row(&keys), row(&values)));
        }
        [keys, values]
    }
}

impl Ledgers {
    pub(super) fn new() -> Self {
        Self {
            host: Ledger::new(GEOMETRY, PAGES),
            device: Ledger::new(GEOMETRY, PAGES),
        }
    }

    /// Brings a prompt into both ledgers and the store.
    pub(super) fn read<B: Backend>(
        &mut self,
        backend: &B,
        store: &mut B::Store,
        rng: &mut ChaCha8Rng,
        text: &mut Text,
        dtype: KvDtype,
    ) {
        let plan = plan(rng);
        let kept = text.kept(rng, &plan);
        for ledger in [&mut self.host, &mut self.device] {
            let demand = Demand {
                rooms: vec![Room::Each(usize::MAX)],
                together: None,
                appends: false,
                prompt: text.tokens,
            };
            ledger
                .open(text.seq, 128, demand, &text.pins)
                .expect("room");
            ledger
                .write_prompt(text.seq, 0, text.tokens, &kept)
                .expect("room");
        }
        let spoken: Vec<[Vec<f32>; 2]> = (0..text.tokens)
            .map(|position| text.speak(rng, position, dtype))
            .collect();
        for head in 0..HEADS {
            let table = self
                .device
                .head(text.seq, 0, head)
                .expect("open")
                .page_ids();
            let column = |which: usize| -> Vec<f32> {
                let row =
                    |token: &[Vec<f32>; 2]| token[which][head * HEAD_DIM..][..HEAD_DIM].to_vec();
                spoken.iter().flat_map(row).collect()
            };
            let mut scores = vec![0.0; text.tokens];
            let mut writes = Vec::new();
            let observed = &kept.scores.as_ref().expect("observed")[head];
            for (slot, (&position, &score)) in kept.slots[head].iter().zip(observed).enumerate() {
                scores[position as usize] = score;
                writes.push(SlotWrite {
                    is_pinned: text.pins.contains(Position(position)),
                    ..slot_write(position as usize, table, slot, BLOCK, position as usize)
                });
            }
            let new = NewTokens {
                keys: &column(0),
                values: &column(1),
            };
            backend.write(store, new, Some(&scores), &writes);
        }
    }

    /// Notes a token in both; where the device's ledger wants it.
    pub(super) fn targets(&mut self, text: &Text, position: usize) -> Vec<StepTarget> {
        let at = Position::new(position);
        self.host.append(text.seq, 0, at).expect("room");
        let entered = self
            .device
            .append_on_device(text.seq, 0, at, true)
            .expect("room");
        let target = |target| match target {
            Target::Slot(slot) => StepTarget::Slot(slot.0),
            Target::Lowest { recent } => StepTarget::Lowest {
                recent: u32::try_from(recent).expect("small"),
            },
        };
        entered.heads.into_iter().map(target).collect()
    }

    /// The heads of all sequences, as the device's ledger has them.
    pub(super) fn steps(&self, texts: &[Text], targets: &[StepTarget]) -> Vec<HeadStep<'_>> {
        let step = |(index, &target): (usize, &StepTarget)| {
            let seq = texts[index / HEADS].seq;
            let head = self.device.head(seq, 0, index % HEADS).expect("open");
            HeadStep {
                pages: head.page_ids(),
                len: head.len(),
                target,
            }
        };
        targets.iter().enumerate().map(step).collect()
    }

    /// Every slot of a sequence holds what the host's ledger says, with the rows of its token.
    pub(super) fn assert_hold(&self, record: &Record, text: &Text, position: usize) {
        for head in 0..HEADS {
            let ledger = self.host.head(text.seq, 0, head).expect("open");
            let table = self
                .device
                .head(text.seq, 0, head)
                .expect("open")
                .page_ids();
            let when = format!("sequence {}, head {head}, step to {position}", text.seq.0);
            for (slot, (&want, score)) in ledger.positions().iter().zip(ledger.scores()).enumerate()
            {
                let at = record.in_table(table, slot);
                let pin = if text.pins.contains(want) { PINNED } else { 0 };
                assert_eq!(record.positions[at], want.0 | pin, "{when}, slot {slot}");
                assert_eq!(
                    record.scores[at].to_bits(),
                    score.to_bits(),
                    "{when}, slot {slot}"
                );
                let (key, value) = &text.rows[&(head, want.0)];
                assert_eq!(
                    (record.key(at), record.value(at)),
                    (&key[..], &value[..]),
                    "{when}, slot {slot}"
                );
            }
        }
    }

    /// What a step might have observed: other scores for some slots. They are written with the rows that the slots hold already.
    pub(super) fn observe<B: Backend>(
        &mut self,
        backend: &B,
        store: &mut B::Store,
        rng: &mut ChaCha8Rng,
        text: &Text,
    ) {
        for head in 0..HEADS {
            let table = self
                .device
                .head(text.seq, 0, head)
                .expect("open")
                .page_ids();
            let positions = self
                .host
                .head(text.seq, 0, head)
                .expect("open")
                .positions()
                .to_vec();
            let scores = self.host.scores_mut(text.seq, 0, head).expect("open");
            let (mut keys, mut values, mut new) = (Vec::new(), Vec::new(), Vec::new());
            let mut writes = Vec::new();
            for (slot, &position) in positions.iter().enumerate() {
                if rng.random_bool(0.7) {
                    continue;
                }
                scores[slot] = *SCORES.choose(rng).expect("some");
                let (key, value) = &text.rows[&(head, position.0)];
                writes.push(SlotWrite {
                    is_pinned: text.pins.contains(position),
                    ..slot_write(new.len(), table, slot, BLOCK, position.index())
                });
                keys.extend_from_slice(key);
                values.extend_from_slice(value);
                new.push(scores[slot]);
            }
            let rows = NewTokens {
                keys: &keys,
                values: &values,
            };
            backend.write(store, rows, Some(&new), &writes);
        }
    }
}

/// The new tokens of a step.
pub(super) struct Spoken {
    keys: Vec<f32>,
    values: Vec<f32>,
    positions: Vec<(u32, bool)>,
    /// Which of how many tokens of each head is meant; the others are poison.
    which: (usize, usize),
}

impl Spoken {
    pub(super) fn new(
        rng: &mut ChaCha8Rng,
        texts: &mut [Text],
        step: usize,
        dtype: KvDtype,
    ) -> Self {
        let which = [(0, 1), (1, 3)][step % 2];
        let mut spoken = Self {
            keys: Vec::new(),
            values: Vec::new(),
            positions: Vec::new(),
            which,
        };
        for text in texts {
            let position = text.tokens + step;
            let at = u32::try_from(position).expect("small");
            spoken
                .positions
                .push((at, text.pins.contains(Position(at))));
            let [keys, values] = text.speak(rng, position, dtype);
            spoken.keys.extend(among_others(&keys, which));
            spoken.values.extend(among_others(&values, which));
        }
        spoken
    }

    pub(super) fn append<B: Backend>(
        &self,
        backend: &B,
        store: &mut B::Store,
        heads: &[HeadStep<'_>],
    ) {
        let decode = Decode {
            layers: 1,
            heads,
            positions: &self.positions,
        };
        let new = NewTokens {
            keys: &self.keys,
            values: &self.values,
        };
        backend.append(store, &decode, 0, new, self.which);
    }
}

/// Each head's row as token `token` of `tokens`.
fn among_others(rows: &[f32], (token, tokens): (usize, usize)) -> Vec<f32> {
    let mut all = vec![f32::NAN; rows.len() * tokens];
    let heads = all.chunks_exact_mut(tokens * HEAD_DIM);
    for (head, row) in heads.zip(rows.chunks_exact(HEAD_DIM)) {
        head[token * HEAD_DIM..][..HEAD_DIM].copy_from_slice(row);
    }
    all
}
