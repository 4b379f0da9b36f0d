//! Where the pages are kept.
use std::{fmt, sync::Arc};

use attention_kernels::{KvDtype, PageLayout, PageStore, cuda};
use candle_core::{DType, Device};
use kv_hook::PoolSpec;

use super::{
    device::{DeviceBackend, TensorDevice},
    host::HostBackend,
    pass::Layers,
};
use crate::StartError;

/// Which machine keeps the pages of a runtime.
pub(super) enum Machine {
    /// The one that the model is on.
    OfTheModel,
    /// This device.
    Given(Arc<Place>),
}

/// A machine that can keep pages.
pub(super) struct Place {
    name: String,
    is_host: bool,
    open: Box<Open>,
}

type Open = dyn Fn(&Memory) -> Result<Box<dyn Layers>, StartError> + Send + Sync;

/// The pages of a pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// `B`.
    pub(super) block: usize,
    /// `D`.
    pub(super) head_dim: usize,
    pub(super) dtype: KvDtype,
    /// The same, as candle calls it.
    pub(super) tensor_dtype: DType,
    pub(super) pages: usize,
    /// Whether a device keeps the position and the score of every slot; on the host the ledger does.
    pub(super) slot_state: bool,
}

impl Machine {
    pub(super) fn given<D: TensorDevice>(device: D) -> Self {
        Self::Given(Arc::new(Place::device(
            device,
            "a device of the caller".into(),
        )))
    }

    /// Where the pages of this model go.
    pub(super) fn place(&self, spec: &PoolSpec) -> Result<Arc<Place>, StartError> {
        match self {
            Self::Given(place) => Ok(Arc::clone(place)),
            Self::OfTheModel => Place::of(spec).map(Arc::new),
        }
    }
}

impl Place {
    /// The device that all layers of a model are on.
    fn of(spec: &PoolSpec) -> Result<Self, StartError> {
        let refuse = |reason: String| Err(StartError::Model(reason));
        let Some(first) = spec.layers.first() else {
            return refuse("it has no attention layers".into());
        };
        let elsewhere = |device: &Device| !device.same_device(&first.device);
        if let Some(index) = spec
            .layers
            .iter()
            .position(|layer| elsewhere(&layer.device))
        {
            return refuse(format!(
                "layer 0 runs on {:?} and layer {index} on {:?}; a compressed cache is kept on one device",
                first.device.location(),
                spec.layers[index].device.location()
            ));
        }
        match &first.device {
            Device::Cpu => Ok(Self::host()),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => {
                let gpu = cuda::Gpu::new(device.clone());
                Ok(Self::device(gpu, format!("{:?}", first.device.location())))
            }
            other => refuse(format!(
                "it runs on {:?}; this build keeps compressed caches {}",
                other.location(),
                if cfg!(feature = "cuda") {
                    "on the CPU and on CUDA devices"
                } else {
                    "on the CPU (for NVIDIA GPUs, build with the feature `cuda`)"
                }
            )),
        }
    }

    fn host() -> Self {
        let open = |memory: &Memory| {
            let layout = PageLayout::new(memory.block, memory.head_dim);
            let store =
                layout.and_then(|layout| PageStore::new(layout, memory.dtype, memory.pages));
            let store = store.map_err(|e| StartError::Model(e.to_string()))?;
            Ok(Box::new(HostBackend::new(store)) as Box<dyn Layers>)
        };
        Self {
            name: "the CPU".into(),
            is_host: true,
            open: Box::new(open),
        }
    }

    fn device<D: TensorDevice>(device: D, name: String) -> Self {
        let open = move |memory: &Memory| {
            let layout = PageLayout::new(memory.block, memory.head_dim);
            let store = layout.map_err(cuda::CudaError::from).and_then(|layout| {
                let device = device.clone();
                cuda::PageStore::new(
                    device,
                    layout,
                    memory.dtype,
                    memory.pages,
                    memory.slot_state,
                )
            });
            let store = store.map_err(|e| StartError::Model(e.to_string()))?;
            Ok(Box::new(DeviceBackend::new(store, memory.tensor_dtype)) as Box<dyn Layers>)
        };
        Self {
            name,
            is_host: false,
            open: Box::new(open),
        }
    }

    /// Whether the pages are in the host's memory.
    pub(super) const fn is_host(&self) -> bool {
        self.is_host
    }

    /// Makes the pages.
    pub(super) fn open(&self, memory: &Memory) -> Result<Box<dyn Layers>, StartError> {
        (self.open)(memory)
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfTheModel => f.write_str("OfTheModel"),
            Self::Given(place) => f.debug_tuple("Given").field(&place.name).finish(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
