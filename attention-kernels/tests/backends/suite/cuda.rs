//! The CUDA backend on any device: uploads, runs, downloads.

use attention_kernels::cuda::{
    self, Attended, DecodeArgs, Device, DevicePrompt, NewRows, PageStore, SelectArgs, SlotWrite,
    Step, View,
};
use attention_kernels::{CopyRow, KvDtype, PageLayout, PromptArgs, ShiftArgs};
use half::{bf16, f16};
use kv_core::{KeepPlan, Observation, Pins, Reduction};

use super::{Ask, Backend, Decode, NewTokens, Record, Seen};

const SOUND: &str = "a sound call";

/// Elements before the first of what is uploaded, all NaN: an op must begin where its view does.
const LEAD: usize = 3;

/// What lies between the scores of one head and those of the next. It would win everywhere.
const GAP: usize = 5;

#[derive(Clone, Debug)]
pub(crate) struct Cuda<D>(pub(crate) D);

/// Numbers as bytes of a type.
pub(crate) fn encode(numbers: &[f32], dtype: KvDtype) -> Vec<u8> {
    let bytes = |&number: &f32| match dtype {
        KvDtype::F32 => number.to_le_bytes().to_vec(),
        KvDtype::F16 => f16::from_f32(number).to_le_bytes().to_vec(),
        KvDtype::Bf16 => bf16::from_f32(number).to_le_bytes().to_vec(),
        other => panic!("nobody said how {other} lies in memory"),
    };
    numbers.iter().flat_map(bytes).collect()
}

fn decode(bytes: &[u8], dtype: KvDtype) -> Vec<f32> {
    let halves = || bytes.as_chunks().0.iter().copied();
    match dtype {
        KvDtype::F32 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
        KvDtype::F16 => halves().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        KvDtype::Bf16 => halves().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        other => panic!("nobody said how {other} lies in memory"),
    }
}

impl<D: Device> Cuda<D> {
    /// Uploads numbers, from element [`LEAD`] on.
    pub(crate) fn upload(&self, numbers: &[f32], dtype: KvDtype) -> D::Buffer {
        let mut bytes = encode(&[f32::NAN; LEAD], dtype);
        bytes.extend(encode(numbers, dtype));
        self.0.upload(&bytes).expect("memory")
    }

    fn bytes(&self, buffer: &D::Buffer, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        self.0.download(buffer, 0, &mut read).expect("a download");
        read
    }

    fn numbers(&self, buffer: &D::Buffer, elements: usize, dtype: KvDtype) -> Vec<f32> {
        decode(&self.bytes(buffer, elements * dtype.size_in_bytes()), dtype)
    }
}

/// What [`Cuda::upload`] uploaded.
pub(crate) fn view<B>(buffer: &B) -> View<'_, B> {
    View {
        buffer,
        first: LEAD,
    }
}

impl<D: Device> Backend for Cuda<D> {
    type Store = PageStore<D>;

    fn store(&self, layout: PageLayout, dtype: KvDtype, pages: usize) -> PageStore<D> {
        PageStore::new(self.0.clone(), layout, dtype, pages, true).expect(SOUND)
    }

    /// From keys `[P, 1, D/x, B, x]` and values `[P, 1, D, B]`.
    fn contents(&self, store: &PageStore<D>) -> Record {
        let (layout, dtype) = (store.layout(), store.dtype());
        let (block, head_dim) = (layout.block(), layout.head_dim());
        let slots = store.pages() * block;
        let mut record = Record::zeros(layout, store.pages());
        let keys = self.numbers(store.keys(), slots * head_dim, dtype);
        let values = self.numbers(store.values(), slots * head_dim, dtype);
        let x = 16 / dtype.size_in_bytes();
        for at in 0..slots {
            let (page, offset) = (at / block, at % block);
            for d in 0..head_dim {
                let key = ((page * (head_dim / x) + d / x) * block + offset) * x + d % x;
                record.keys[at * head_dim + d] = keys[key];
                record.values[at * head_dim + d] = values[(page * head_dim + d) * block + offset];
            }
        }
        let scores = store.scores().expect("kept");
        record.scores = self.numbers(scores, slots, KvDtype::F32);
        let positions = self.bytes(store.positions().expect("kept"), 4 * slots);
        let positions = positions.as_chunks().0.iter();
        record.positions = positions.map(|bytes| u32::from_le_bytes(*bytes)).collect();
        record
    }

    fn write(
        &self,
        store: &mut PageStore<D>,
        new: NewTokens<'_>,
        scores: Option<&[f32]>,
        rows: &[SlotWrite],
    ) {
        let keys = self.upload(new.keys, store.dtype());
        let values = self.upload(new.values, store.dtype());
        let new = NewRows {
            keys: view(&keys),
            values: view(&values),
            rows: new.keys.len() / store.layout().head_dim(),
        };
        let scores = scores.map(|scores| self.upload(scores, KvDtype::F32));
        cuda::write(store, &new, scores.as_ref().map(view), rows).expect(SOUND);
    }

    fn copy_rows(&self, store: &mut PageStore<D>, rows: &[CopyRow]) {
        cuda::copy_rows(store, rows).expect(SOUND);
    }

    fn shift(&self, store: &mut PageStore<D>, args: &ShiftArgs<'_>) {
        cuda::shift(store, args).expect(SOUND);
    }

    fn append(
        &self,
        store: &mut PageStore<D>,
        step: &Decode<'_>,
        layer: usize,
        new: NewTokens<'_>,
        which: (usize, usize),
    ) {
        let step = Step::upload(store, step.layers, step.heads, step.positions).expect(SOUND);
        let keys = self.upload(new.keys, store.dtype());
        let values = self.upload(new.values, store.dtype());
        let new = NewRows {
            keys: view(&keys),
            values: view(&values),
            rows: new.keys.len() / store.layout().head_dim(),
        };
        cuda::append(store, &step, layer, &new, which).expect(SOUND);
    }

    fn attend(
        &self,
        store: &mut PageStore<D>,
        step: &Decode<'_>,
        layer: usize,
        ask: &Ask<'_>,
    ) -> Seen {
        let lens: Vec<usize> = step.layer(layer).iter().map(|head| head.len).collect();
        let step = Step::upload(store, step.layers, step.heads, step.positions).expect(SOUND);
        let queries = self.upload(ask.queries, store.dtype());
        let args = DecodeArgs {
            queries: view(&queries),
            group: ask.group,
            scale: ask.scale,
            softcap: ask.softcap,
            row: ask.row,
        };
        let Attended { out, rows } = cuda::attend(store, &step, layer, &args).expect(SOUND);
        let stride = step.longest(layer);
        let rows = rows.map(|rows| {
            let rows = self.numbers(&rows, lens.len() * stride, KvDtype::F32);
            let row = |(head, &len): (usize, &usize)| rows[head * stride..][..len].to_vec();
            lens.iter().enumerate().map(row).collect()
        });
        Seen {
            out: self.numbers(&out, ask.queries.len(), store.dtype()),
            rows,
        }
    }

    fn observe(
        &self,
        observation: Observation,
        reduction: Reduction,
        prompt: &PromptArgs<'_>,
        dtype: KvDtype,
    ) -> Option<Vec<f32>> {
        let heads = prompt.keys.len() / (prompt.rows * prompt.head_dim);
        let queries = self.upload(prompt.queries, dtype);
        let keys = self.upload(prompt.keys, dtype);
        // Never read back where it was not written.
        let scores = self.upload(&vec![f32::NAN; heads * prompt.rows], KvDtype::F32);
        let asked = DevicePrompt {
            queries: Some(view(&queries)),
            keys: view(&keys),
            dtype,
            heads,
            rows: prompt.rows,
            tokens: prompt.tokens,
            group: prompt.group,
            head_dim: prompt.head_dim,
            scale: prompt.scale,
            softcap: prompt.softcap,
        };
        let seen = cuda::observe(&self.0, observation, reduction, &asked, view(&scores));
        let elements = LEAD + heads * prompt.rows;
        let rows = self.numbers(&scores, elements, KvDtype::F32);
        let rows = rows[LEAD..].chunks_exact(prompt.rows.max(1));
        let seen = seen
            .expect(SOUND)
            .then(|| rows.flat_map(|row| row[..prompt.tokens].to_vec()));
        seen.map(Iterator::collect)
    }

    fn keep(
        &self,
        plan: &KeepPlan,
        pins: &Pins,
        tokens: usize,
        scores: Option<&[f32]>,
    ) -> Vec<Vec<u32>> {
        let spread = scores.map(|scores| {
            let rows = scores.chunks_exact(tokens);
            let row = |row: &[f32]| [row, &[f32::INFINITY; GAP]].concat();
            self.upload(&rows.flat_map(row).collect::<Vec<f32>>(), KvDtype::F32)
        });
        let args = SelectArgs {
            plan,
            pins,
            tokens,
            scores: spread.as_ref().map(view),
            stride: tokens + GAP,
        };
        cuda::keep(&self.0, &args).expect(SOUND)
    }
}
