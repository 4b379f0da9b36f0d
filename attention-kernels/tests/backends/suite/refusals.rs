//! Calls that are refused, and change nothing.

use attention_kernels::cuda::{
    self, CudaError, DecodeArgs, Device, HeadStep, NewRows, PageStore, RowWanted, SelectArgs,
    SlotWrite, Step, StepTarget,
};
use attention_kernels::{CopyRow, KernelError, KvDtype, PageLayout};
use kv_core::{KeepPlan, Pins, Reduce};

use super::cuda::view;
use super::{Backend, Cuda, Scene};
use crate::world::rng;

mod broken;
mod keys;
mod prompts;

pub(crate) use broken::what_the_device_says;
pub(crate) use keys::keys_moved;

const TYPE: KvDtype = KvDtype::F16;
const HEAD_DIM: usize = 16;
const BLOCK: usize = 8;

/// A store of three pages with something in every slot of one, and a record of it.
fn store<D: Device>(backend: &Cuda<D>) -> PageStore<D> {
    let scene = Scene::random(&mut rng(0x181), (BLOCK, HEAD_DIM), TYPE, &[BLOCK]);
    scene.build(backend)
}

fn layout(block: usize, head_dim: usize) -> PageLayout {
    PageLayout::new(block, head_dim).expect("a layout")
}

/// Runs what must be refused, and looks at the store before and after.
fn refused<D: Device, T>(
    backend: &Cuda<D>,
    store: &mut PageStore<D>,
    run: impl FnOnce(&mut PageStore<D>) -> Result<T, CudaError>,
) -> CudaError {
    let before = backend.contents(store);
    let Err(error) = run(store) else {
        panic!("nothing was refused");
    };
    backend
        .contents(store)
        .assert_is(&before, &error.to_string());
    error
}

pub(crate) fn stores<D: Device>(backend: &Cuda<D>) {
    let store = |block, head_dim, dtype, pages| {
        let made = PageStore::new(
            backend.0.clone(),
            layout(block, head_dim),
            dtype,
            pages,
            true,
        );
        made.map(|_| ()).expect_err("no such store")
    };
    for (dtype, unit, head_dims) in [(KvDtype::F32, 4, [6, 260]), (TYPE, 8, [12, 264])] {
        for head_dim in head_dims {
            let want = CudaError::HeadDim {
                head_dim,
                dtype,
                unit,
                most: 256,
            };
            assert_eq!(store(16, head_dim, dtype, 1), want);
        }
    }
    let dtype = KvDtype::Bf16;
    let want = CudaError::Block {
        block: 12,
        dtype,
        unit: 8,
    };
    assert_eq!(store(12, 64, dtype, 1), want);
    let pages = usize::MAX;
    let want = KernelError::StoreTooLarge {
        pages,
        bytes_per_page: 2 * 16 * 64 * 2,
    };
    assert_eq!(store(16, 64, dtype, pages), CudaError::Kernel(want));
}

fn slot(source: usize, page: u32, offset: u32) -> SlotWrite {
    SlotWrite {
        source,
        page,
        offset,
        position: 0,
        is_pinned: false,
    }
}

pub(crate) fn writes<D: Device>(backend: &Cuda<D>) {
    let mut store = store(backend);
    let (pages, block) = (store.pages(), BLOCK);
    let two = backend.upload(&[1.0; 2 * HEAD_DIM], TYPE);
    let short = backend.upload(&[1.0; 2 * HEAD_DIM - 1], TYPE);
    let score = backend.upload(&[1.0], KvDtype::F32);
    let mut write = |keys, values, scores: Option<_>, row| {
        let new = NewRows {
            keys: view(keys),
            values: view(values),
            rows: 2,
        };
        let rows = [slot(0, 0, 0), row];
        refused(backend, &mut store, |store| {
            cuda::write(store, &new, scores.map(view), &rows)
        })
    };
    let cases = [
        (
            slot(2, 0, 1),
            KernelError::RowOutOfRange {
                index: 1,
                row: 2,
                rows: 2,
            },
        ),
        (
            slot(1, 9, 1),
            KernelError::PageOutOfRange {
                index: 1,
                page: 9,
                pages,
            },
        ),
        (
            slot(1, 1, 8),
            KernelError::OffsetOutOfRange {
                index: 1,
                offset: 8,
                block,
            },
        ),
    ];
    for (row, want) in cases {
        assert_eq!(write(&two, &two, None, row), CudaError::Kernel(want));
    }
    let good = slot(1, 0, 1);
    let (bytes, expected) = (2 * (3 + 2 * HEAD_DIM - 1), 2 * (3 + 2 * HEAD_DIM));
    for (what, keys, values) in [("keys", &short, &two), ("values", &two, &short)] {
        let want = CudaError::BufferTooSmall {
            what,
            bytes,
            expected,
        };
        assert_eq!(write(keys, values, None, good), want);
    }
    let want = CudaError::BufferTooSmall {
        what: "scores",
        bytes: 16,
        expected: 20,
    };
    assert_eq!(write(&two, &two, Some(&score), good), want);
    copies(backend);
}

fn copies<D: Device>(backend: &Cuda<D>) {
    let mut store = store(backend);
    let (pages, block) = (store.pages(), BLOCK);
    let copy = |from_page, from_offset, to_page, to_offset| CopyRow {
        from_page,
        from_offset,
        to_page,
        to_offset,
    };
    let cases = [
        (
            copy(9, 0, 0, 0),
            KernelError::PageOutOfRange {
                index: 1,
                page: 9,
                pages,
            },
        ),
        (
            copy(0, 0, 0, 8),
            KernelError::OffsetOutOfRange {
                index: 1,
                offset: 8,
                block,
            },
        ),
    ];
    for (row, want) in cases {
        let rows = [copy(0, 0, 1, 1), row];
        let error = refused(backend, &mut store, |store| cuda::copy_rows(store, &rows));
        assert_eq!(error, CudaError::Kernel(want));
    }
}

pub(crate) fn steps<D: Device>(backend: &Cuda<D>) {
    let mut store = store(backend);
    let pages = store.pages();
    let head = |pages, len, target| HeadStep { pages, len, target };
    let mut upload = |head: HeadStep<'_>, position| {
        refused(backend, &mut store, |store| {
            Step::upload(store, 1, &[head], &[(position, false)])
        })
    };
    let nothing = StepTarget::Nothing;
    let cases = [
        (
            head(&[0], 9, nothing),
            KernelError::PagesTooFew {
                head: 0,
                len: 9,
                pages: 1,
                expected: 2,
                block: BLOCK,
            },
        ),
        (
            head(&[0, 9], 9, nothing),
            KernelError::PageOutOfRange {
                index: 0,
                page: 9,
                pages,
            },
        ),
    ];
    for (head, want) in cases {
        assert_eq!(upload(head, 0), CudaError::Kernel(want));
    }
    let want = CudaError::SlotOutOfRange {
        head: 0,
        slot: 4,
        len: 4,
    };
    assert_eq!(upload(head(&[0], 4, StepTarget::Slot(4)), 0), want);
    let want = CudaError::TooMany {
        what: "positions",
        number: 1 << 31,
        most: (1 << 31) - 1,
    };
    assert_eq!(upload(head(&[0], 4, nothing), 1 << 31), want);
    let bare = PageStore::new(backend.0.clone(), layout(BLOCK, HEAD_DIM), TYPE, 1, false);
    let bare = bare.expect("a store");
    let lowest = head(&[0], 4, StepTarget::Lowest { recent: 1 });
    let error = Step::upload(&bare, 1, &[lowest], &[(0, false)]).expect_err("no scores");
    assert!(matches!(error, CudaError::NoSlotState { .. }), "{error}");
    append(backend);
}

/// Rows that end too early.
fn append<D: Device>(backend: &Cuda<D>) {
    let mut store = store(backend);
    let short = backend.upload(&[1.0; HEAD_DIM - 1], TYPE);
    let new = NewRows {
        keys: view(&short),
        values: view(&short),
        rows: 1,
    };
    let error = refused(backend, &mut store, |store| {
        let head = HeadStep {
            pages: &[0],
            len: 4,
            target: StepTarget::Slot(3),
        };
        let step = Step::upload(store, 1, &[head], &[(0, false)])?;
        cuda::append(store, &step, 0, &new, (0, 1))
    });
    assert!(
        matches!(error, CudaError::BufferTooSmall { what: "keys", .. }),
        "{error}"
    );
}

pub(crate) fn attention<D: Device>(backend: &Cuda<D>) {
    let mut store = store(backend);
    let queries = backend.upload(&[1.0; HEAD_DIM], TYPE);
    let args = |group, scale, softcap| DecodeArgs {
        queries: view(&queries),
        group,
        scale,
        softcap,
        row: None,
    };
    let one = |store: &mut PageStore<D>, args: &DecodeArgs<'_, D::Buffer>| {
        let head = HeadStep {
            pages: &[0],
            len: 4,
            target: StepTarget::Nothing,
        };
        let step = Step::upload(store, 1, &[head], &[(0, false)])?;
        cuda::attend(store, &step, 0, args)
    };
    let mut error = |args| refused(backend, &mut store, |store| one(store, &args));
    for group in [0, 129] {
        assert_eq!(
            error(args(group, 1.0, None)),
            CudaError::Group { group, most: 128 }
        );
    }
    let want = KernelError::ScaleOutOfRange {
        scale: f32::INFINITY,
    };
    assert_eq!(error(args(1, f32::INFINITY, None)), CudaError::Kernel(want));
    let want = KernelError::SoftcapOutOfRange { softcap: 0.0 };
    assert_eq!(error(args(1, 1.0, Some(0.0))), CudaError::Kernel(want));
    let want = CudaError::BufferTooSmall {
        what: "queries",
        bytes: 2 * (3 + HEAD_DIM),
        expected: 2 * (3 + 2 * HEAD_DIM),
    };
    assert_eq!(error(args(2, 1.0, None)), want);
    let bare = PageStore::new(backend.0.clone(), layout(BLOCK, HEAD_DIM), TYPE, 1, false);
    let row = RowWanted {
        reduce: Reduce::Sum,
        add_to_scores: true,
        returned: false,
    };
    let args = DecodeArgs {
        row: Some(row),
        ..args(1, 1.0, None)
    };
    let error = one(&mut bare.expect("a store"), &args).expect_err("no scores");
    assert!(matches!(error, CudaError::NoSlotState { .. }), "{error}");
}

pub(crate) fn observations<D: Device>(backend: &Cuda<D>) {
    prompts::refused(backend);
    prompts::too_many_heads(backend);
}

pub(crate) fn plans<D: Device>(backend: &Cuda<D>) {
    let mut plan = KeepPlan::all(2);
    plan.top(1, 1, 1);
    let pins = Pins::default();
    let args = |scores, tokens| SelectArgs {
        plan: &plan,
        pins: &pins,
        tokens,
        scores,
        stride: 0,
    };
    assert_eq!(
        cuda::keep(&backend.0, &args(None, 3)),
        Err(CudaError::NoScores)
    );
    let scores = backend.upload(&[1.0; 5], KvDtype::F32);
    let want = CudaError::BufferTooSmall {
        what: "scores",
        bytes: 32,
        expected: 36,
    };
    assert_eq!(
        cuda::keep(&backend.0, &args(Some(view(&scores)), 3)),
        Err(want)
    );
    let want = CudaError::TooMany {
        what: "tokens",
        number: 1 << 33,
        most: u32::MAX as usize,
    };
    assert_eq!(cuda::keep(&backend.0, &args(None, 1 << 32)), Err(want));
}
