//! A GPU, through candle's device and cudarc.
#![allow(
    unsafe_code,
    reason = "memory that is written before it is read, launches, and tensors made from raw device memory"
)]

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, DevicePtr, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::{CudaDType, CudaStorage};
use candle_core::{CudaDevice, DType, Shape, Storage, Tensor};
use half::{bf16, f16};

use super::{Arg, Device, DeviceError, Launch, PTX};

/// The driver keeps one module for each name.
const MODULE: &str = concat!("headroom-attention-kernels-", env!("CARGO_PKG_VERSION"));

/// A GPU and the stream on which the engine works.
#[derive(Clone)]
pub struct Gpu {
    device: CudaDevice,
    functions: Arc<Mutex<HashMap<String, CudaFunction>>>,
}

/// Memory of a GPU: its own, or that of a tensor, which it keeps alive.
#[derive(Debug)]
pub struct GpuBuffer(Memory);

#[derive(Debug)]
enum Memory {
    Owned(CudaSlice<u8>),
    Tensor {
        pointer: u64,
        bytes: usize,
        /// Its storage lies at `pointer`.
        _keeps: Tensor,
    },
}

impl Gpu {
    /// The GPU of a candle device. Everything happens on that device's stream.
    #[must_use]
    pub fn new(device: CudaDevice) -> Self {
        Self {
            device,
            functions: Arc::default(),
        }
    }

    /// The memory of a contiguous tensor on this GPU, without a copy.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] for a tensor that is not contiguous, not on a GPU, or of another type than F32, F16, BF16 and U32.
    pub fn import(&self, tensor: &Tensor) -> Result<GpuBuffer, DeviceError> {
        let failed = |reason: String| DeviceError::new("reading a tensor's address", reason);
        let (storage, layout) = tensor.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            return Err(failed(format!("it is on {:?}", tensor.device().location())));
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            return Err(failed("it is not contiguous".into()));
        };
        let stream = self.device.cuda_stream();
        let pointer = match tensor.dtype() {
            DType::F32 => address::<f32>(storage, &stream),
            DType::F16 => address::<f16>(storage, &stream),
            DType::BF16 => address::<bf16>(storage, &stream),
            DType::U32 => address::<u32>(storage, &stream),
            other => return Err(failed(format!("its type is {other:?}"))),
        };
        let size = tensor.dtype().size_in_bytes();
        Ok(GpuBuffer(Memory::Tensor {
            pointer: pointer.map_err(|error| failed(error.to_string()))? + (start * size) as u64,
            bytes: (end - start) * size,
            _keeps: tensor.clone(),
        }))
    }

    /// A tensor that takes over a buffer of this device, without a copy.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] for a tensor's own buffer, another size than the shape's, or another type than F32, F16 and BF16.
    pub fn export(
        &self,
        buffer: GpuBuffer,
        shape: &[usize],
        dtype: DType,
    ) -> Result<Tensor, DeviceError> {
        let failed = |reason: String| DeviceError::new("making a tensor", reason);
        let Memory::Owned(slice) = buffer.0 else {
            return Err(failed("the memory belongs to another tensor".into()));
        };
        let shape = Shape::from(shape);
        let (held, needed) = (slice.len(), shape.elem_count() * dtype.size_in_bytes());
        if held != needed {
            return Err(failed(format!(
                "{held} bytes for {shape:?} of {dtype:?}, which need {needed}"
            )));
        }
        let storage = match dtype {
            DType::F32 => self.typed::<f32>(slice),
            DType::F16 => self.typed::<f16>(slice),
            DType::BF16 => self.typed::<bf16>(slice),
            other => return Err(failed(format!("its type would be {other:?}"))),
        };
        Ok(Tensor::from((Storage::Cuda(storage), shape)))
    }

    fn typed<T: CudaDType>(&self, slice: CudaSlice<u8>) -> CudaStorage {
        let elements = slice.len() / size_of::<T>();
        let stream = slice.stream().clone();
        // SAFETY: the memory comes from `leak`, so nobody else frees it; it holds `elements` elements of `T`, any bits of which
        // are a number; allocations of the driver are aligned to far more than `T`.
        let slice = unsafe { stream.upgrade_device_ptr::<T>(slice.leak(), elements) };
        CudaStorage::wrap_cuda_slice(slice, self.device.clone())
    }

    fn function(&self, entry: &str) -> Result<CudaFunction, DeviceError> {
        let mut functions = self
            .functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(entry) {
            return Ok(function.clone());
        }
        let function = self
            .device
            .get_or_load_custom_func(entry, MODULE, PTX)
            .map_err(|error| DeviceError::new(format!("loading kernel {entry}"), error))?
            .into_cuda_function();
        functions.insert(entry.to_owned(), function.clone());
        Ok(function)
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gpu").field(&self.device.id()).finish()
    }
}

fn address<T: CudaDType>(storage: &CudaStorage, stream: &CudaStream) -> candle_core::Result<u64> {
    let (pointer, _ordered) = storage.as_cuda_slice::<T>()?.device_ptr(stream);
    Ok(pointer)
}

/// A parameter, where the launch can point to it.
enum Value {
    Pointer(u64),
    U32(u32),
    F32(f32),
}

impl Device for Gpu {
    type Buffer = GpuBuffer;

    fn zeroed(&self, bytes: usize) -> Result<GpuBuffer, DeviceError> {
        let slice = self.device.alloc_zeros::<u8>(bytes);
        let slice =
            slice.map_err(|error| DeviceError::new(format!("allocating {bytes} bytes"), error))?;
        Ok(GpuBuffer(Memory::Owned(slice)))
    }

    fn uninit(&self, bytes: usize) -> Result<GpuBuffer, DeviceError> {
        // SAFETY: any byte is a `u8`, and it is written by a kernel before one reads it.
        let slice = unsafe { self.device.alloc::<u8>(bytes) };
        let slice =
            slice.map_err(|error| DeviceError::new(format!("allocating {bytes} bytes"), error))?;
        Ok(GpuBuffer(Memory::Owned(slice)))
    }

    fn upload(&self, bytes: &[u8]) -> Result<GpuBuffer, DeviceError> {
        let slice = self.device.clone_htod(bytes);
        let slice = slice
            .map_err(|error| DeviceError::new(format!("uploading {} bytes", bytes.len()), error))?;
        Ok(GpuBuffer(Memory::Owned(slice)))
    }

    fn download(
        &self,
        buffer: &GpuBuffer,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), DeviceError> {
        let failed =
            |reason: String| DeviceError::new(format!("downloading {} bytes", bytes.len()), reason);
        let Memory::Owned(slice) = &buffer.0 else {
            return Err(failed("the memory belongs to a tensor".into()));
        };
        let end = offset.saturating_add(bytes.len());
        let Some(part) = slice.try_slice(offset..end) else {
            return Err(failed(format!("the buffer ends at byte {}", slice.len())));
        };
        if bytes.is_empty() {
            return Ok(());
        }
        let stream = self.device.cuda_stream();
        let copied = stream.memcpy_dtoh(&part, bytes);
        copied.map_err(|error| DeviceError::new("downloading", error))?;
        let done = stream.synchronize();
        done.map_err(|error| DeviceError::new("waiting for the device", error))
    }

    fn size(&self, buffer: &GpuBuffer) -> usize {
        match &buffer.0 {
            Memory::Owned(slice) => slice.len(),
            Memory::Tensor { bytes, .. } => *bytes,
        }
    }

    fn launch(&self, launch: &Launch<'_, GpuBuffer>) -> Result<(), DeviceError> {
        let function = self.function(launch.entry)?;
        let stream = self.device.cuda_stream();
        let pointer = |buffer: &GpuBuffer| match &buffer.0 {
            Memory::Owned(slice) => slice.device_ptr(&stream).0,
            Memory::Tensor { pointer, .. } => *pointer,
        };
        let values: Vec<Value> = launch
            .args
            .iter()
            .map(|arg| match arg {
                Arg::Memory(buffer, offset) => Value::Pointer(pointer(buffer) + *offset as u64),
                Arg::Null => Value::Pointer(0),
                Arg::U32(number) => Value::U32(*number),
                Arg::F32(number) => Value::F32(*number),
            })
            .collect();
        let mut builder = stream.launch_builder(&function);
        for value in &values {
            match value {
                Value::Pointer(number) => builder.arg(number),
                Value::U32(number) => builder.arg(number),
                Value::F32(number) => builder.arg(number),
            };
        }
        let config = LaunchConfig {
            grid_dim: (launch.grid[0], launch.grid[1], 1),
            block_dim: (launch.threads, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the entry takes these parameters (a test compares `entries` with the module), and the ops have checked that
        // every buffer is as long as the kernel reads or writes. Buffers that are dropped while the kernel runs are freed on
        // the same stream, after it.
        let launched = unsafe { builder.launch(config) };
        launched
            .map(|_| ())
            .map_err(|error| DeviceError::new(format!("launching {}", launch.entry), error))
    }
}
