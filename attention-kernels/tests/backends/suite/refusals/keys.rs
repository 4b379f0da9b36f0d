//! Keys that cannot be turned.

use attention_kernels::cuda::{self, CudaError, Device};
use attention_kernels::{KernelError, RopeStyle, RowShift, ShiftArgs};

use super::super::Cuda;
use super::{BLOCK, HEAD_DIM, refused, store};

pub(crate) fn keys_moved<D: Device>(backend: &Cuda<D>) {
    let mut store = store(backend);
    let (pages, block, head_dim) = (store.pages(), BLOCK, HEAD_DIM);
    let by = |page, offset, by| RowShift { page, offset, by };
    let mut shift = |row, tables: usize, sines: usize, rotary_dim| {
        let args = ShiftArgs {
            rows: &[by(0, 0, 1), row],
            cos: &vec![0.5; tables],
            sin: &vec![0.5; sines],
            rotary_dim,
            style: RopeStyle::Halves,
        };
        refused(backend, &mut store, |store| cuda::shift(store, &args))
    };
    let cases = [
        (
            by(0, 1, 1),
            4,
            4,
            3,
            KernelError::RotaryDimOutOfRange {
                rotary_dim: 3,
                head_dim,
            },
        ),
        (
            by(0, 1, 1),
            4,
            2,
            4,
            KernelError::AngleTables {
                cos: 4,
                sin: 2,
                pairs: 2,
            },
        ),
        (
            by(9, 1, 1),
            4,
            4,
            4,
            KernelError::PageOutOfRange {
                index: 1,
                page: 9,
                pages,
            },
        ),
        (
            by(0, 8, 1),
            4,
            4,
            4,
            KernelError::OffsetOutOfRange {
                index: 1,
                offset: 8,
                block,
            },
        ),
        (
            by(0, 1, -2),
            4,
            4,
            4,
            KernelError::ShiftOutOfRange {
                index: 1,
                by: -2,
                positions: 2,
            },
        ),
        (
            by(0, 0, -1),
            4,
            4,
            4,
            KernelError::ShiftedTwice {
                index: 1,
                page: 0,
                offset: 0,
            },
        ),
    ];
    for (row, cosines, sines, rotary_dim, want) in cases {
        assert_eq!(
            shift(row, cosines, sines, rotary_dim),
            CudaError::Kernel(want)
        );
    }
}
