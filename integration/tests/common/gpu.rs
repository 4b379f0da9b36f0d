//! A GPU that is none: it runs the shipped CUDA kernels in an interpreter, and tensors of the CPU are copied to it and back.
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use attention_kernels::cuda::{Device, DeviceError, Emulated, EmulatedBuffer, Launch};
use candle_core::{DType, Tensor};
use half::{bf16, f16};
use mistralrs_kv::TensorDevice;

/// Counts what the runtime downloads, apart from the results that it hands to the engine as tensors.
#[derive(Debug, Clone)]
pub(crate) struct EmulatedGpu {
    inner: Emulated,
    downloaded: Arc<AtomicUsize>,
}

impl EmulatedGpu {
    pub(crate) fn new() -> Self {
        Self {
            inner: Emulated::new(),
            downloaded: Arc::default(),
        }
    }

    /// Bytes downloaded since the last call.
    pub(crate) fn take_downloaded(&self) -> usize {
        self.downloaded.swap(0, Ordering::Relaxed)
    }

    /// Entries launched since the last call.
    pub(crate) fn take_launches(&self) -> Vec<String> {
        let launches = self.inner.take_launches().into_iter();
        launches.map(|(entry, _)| entry).collect()
    }
}

impl Device for EmulatedGpu {
    type Buffer = EmulatedBuffer;

    fn zeroed(&self, bytes: usize) -> Result<EmulatedBuffer, DeviceError> {
        self.inner.zeroed(bytes)
    }

    fn uninit(&self, bytes: usize) -> Result<EmulatedBuffer, DeviceError> {
        self.inner.uninit(bytes)
    }

    fn upload(&self, bytes: &[u8]) -> Result<EmulatedBuffer, DeviceError> {
        self.inner.upload(bytes)
    }

    fn download(
        &self,
        buffer: &EmulatedBuffer,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), DeviceError> {
        self.downloaded.fetch_add(bytes.len(), Ordering::Relaxed);
        self.inner.download(buffer, offset, bytes)
    }

    fn size(&self, buffer: &EmulatedBuffer) -> usize {
        self.inner.size(buffer)
    }

    fn launch(&self, launch: &Launch<'_, EmulatedBuffer>) -> Result<(), DeviceError> {
        self.inner.launch(launch)
    }
}

fn failed(error: impl std::fmt::Display) -> DeviceError {
    DeviceError::new("copying a tensor", error)
}

impl TensorDevice for EmulatedGpu {
    fn import(&self, tensor: &Tensor) -> Result<EmulatedBuffer, DeviceError> {
        assert!(tensor.is_contiguous(), "a device reads contiguous tensors");
        let flat = tensor.flatten_all().map_err(failed)?;
        let bytes: Vec<u8> = match tensor.dtype() {
            DType::F32 => {
                let numbers = flat.to_vec1::<f32>().map_err(failed)?;
                numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
            }
            DType::F16 => {
                let numbers = flat.to_vec1::<f16>().map_err(failed)?;
                numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
            }
            DType::BF16 => {
                let numbers = flat.to_vec1::<bf16>().map_err(failed)?;
                numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
            }
            other => return Err(failed(format!("its type is {other:?}"))),
        };
        self.inner.upload(&bytes)
    }

    fn export(
        &self,
        buffer: EmulatedBuffer,
        shape: &[usize],
        dtype: DType,
        like: &Tensor,
    ) -> Result<Tensor, DeviceError> {
        let mut bytes = vec![0; self.inner.size(&buffer)];
        self.inner.download(&buffer, 0, &mut bytes)?;
        Tensor::from_raw_buffer(&bytes, dtype, shape, like.device()).map_err(failed)
    }
}
