//! What goes wrong in the device.

use attention_kernels::cuda::{self, Arg, CudaError, Device, DeviceError, Launch, NewRows};

use super::super::cuda::view;
use super::super::{Backend, Cuda};
use super::{BLOCK, HEAD_DIM, TYPE, layout, refused, slot};

/// A device that launches nothing.
#[derive(Clone, Debug)]
struct Broken<D>(D);

impl<D: Device> Device for Broken<D> {
    type Buffer = D::Buffer;

    fn zeroed(&self, bytes: usize) -> Result<D::Buffer, DeviceError> {
        self.0.zeroed(bytes)
    }

    fn uninit(&self, bytes: usize) -> Result<D::Buffer, DeviceError> {
        self.0.uninit(bytes)
    }

    fn upload(&self, bytes: &[u8]) -> Result<D::Buffer, DeviceError> {
        self.0.upload(bytes)
    }

    fn download(
        &self,
        buffer: &D::Buffer,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), DeviceError> {
        self.0.download(buffer, offset, bytes)
    }

    fn size(&self, buffer: &D::Buffer) -> usize {
        self.0.size(buffer)
    }

    fn launch(&self, launch: &Launch<'_, D::Buffer>) -> Result<(), DeviceError> {
        Err(DeviceError::new(launch.entry, "out of order"))
    }
}

/// An entry that does not exist, and a failure on its way through an op.
pub(crate) fn what_the_device_says<D: Device>(backend: &Cuda<D>) {
    let buffer = backend.0.zeroed(4).expect("memory");
    let launch = Launch {
        entry: "kv_nothing",
        grid: [1, 1],
        threads: 32,
        args: &[Arg::Memory(&buffer, 0)],
    };
    let error = backend.0.launch(&launch).expect_err("no such entry");
    assert!(error.to_string().contains("kv_nothing"), "{error}");

    let broken = Cuda(Broken(backend.0.clone()));
    let mut store = broken.store(layout(BLOCK, HEAD_DIM), TYPE, 1);
    let rows = broken.upload(&[1.0; HEAD_DIM], TYPE);
    let new = NewRows {
        keys: view(&rows),
        values: view(&rows),
        rows: 1,
    };
    let error = refused(&broken, &mut store, |store| {
        cuda::write(store, &new, None, &[slot(0, 0, 0)])
    });
    let want = DeviceError::new("kv_write_f16", "out of order");
    assert_eq!(error, CudaError::Device(want));
}
