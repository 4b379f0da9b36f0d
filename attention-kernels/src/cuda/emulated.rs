//! A machine that stands in for a GPU: it interprets the PTX that this crate ships, and checks every access.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ptx_emulator::{Address, Memory, Module, Options, Param, Stats, launch_with};

use super::{Arg, Device, DeviceError, Launch, PTX};

/// A device in the memory of this process. A kernel that does something undefined, a race above all, fails its launch.
#[derive(Clone)]
pub struct Emulated {
    module: Arc<Module>,
    state: Arc<Mutex<State>>,
    options: Options,
}

#[derive(Default)]
struct State {
    memory: Memory,
    launches: Vec<(String, Stats)>,
    /// Bytes that went up and came down.
    uploaded: usize,
    downloaded: usize,
}

/// Memory of an [`Emulated`] device.
pub struct EmulatedBuffer {
    state: Arc<Mutex<State>>,
    address: Address,
    bytes: usize,
}

impl Emulated {
    /// A device that runs the shipped kernels.
    ///
    /// # Panics
    ///
    /// Where the shipped text is not PTX.
    #[must_use]
    pub fn new() -> Self {
        Self::with_ptx(PTX, Options::default()).expect("the shipped PTX is PTX")
    }

    /// A device that runs this PTX instead, for example one with a planted fault.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] for text that is not PTX.
    pub fn with_ptx(ptx: &str, options: Options) -> Result<Self, DeviceError> {
        let module = Module::parse(ptx).map_err(|error| DeviceError::new("parsing PTX", error))?;
        Ok(Self {
            module: Arc::new(module),
            state: Arc::default(),
            options,
        })
    }

    /// The module that it runs.
    #[must_use]
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// A device of its own that runs the same kernels.
    #[must_use]
    pub fn fresh(&self) -> Self {
        Self {
            module: Arc::clone(&self.module),
            state: Arc::default(),
            options: self.options,
        }
    }

    /// Takes the record of what was launched since the last call: the entries, and what each did.
    #[must_use]
    pub fn take_launches(&self) -> Vec<(String, Stats)> {
        std::mem::take(&mut self.state().launches)
    }

    /// Takes the count of bytes that were uploaded and downloaded since the last call.
    #[must_use]
    pub fn take_traffic(&self) -> (usize, usize) {
        let mut state = self.state();
        (
            std::mem::take(&mut state.uploaded),
            std::mem::take(&mut state.downloaded),
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn buffer(&self, bytes: usize, make: impl FnOnce(&mut Memory) -> Address) -> EmulatedBuffer {
        let address = make(&mut self.state().memory);
        EmulatedBuffer {
            state: Arc::clone(&self.state),
            address,
            bytes,
        }
    }
}

/// Says what it runs, not all that it holds.
impl fmt::Debug for Emulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emulated")
            .field("entries", &self.module.entries().count())
            .finish_non_exhaustive()
    }
}

impl Default for Emulated {
    fn default() -> Self {
        Self::new()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for EmulatedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {}", self.bytes, self.address)
    }
}

impl Drop for EmulatedBuffer {
    fn drop(&mut self) {
        // It is live: nobody else frees it.
        let _ = lock(&self.state).memory.free(self.address);
    }
}

impl Device for Emulated {
    type Buffer = EmulatedBuffer;

    fn zeroed(&self, bytes: usize) -> Result<EmulatedBuffer, DeviceError> {
        Ok(self.buffer(bytes, |memory| memory.zeroed(bytes, "zeroed")))
    }

    fn uninit(&self, bytes: usize) -> Result<EmulatedBuffer, DeviceError> {
        Ok(self.buffer(bytes, |memory| memory.alloc(bytes, "uninit")))
    }

    fn upload(&self, bytes: &[u8]) -> Result<EmulatedBuffer, DeviceError> {
        self.state().uploaded += bytes.len();
        Ok(self.buffer(bytes.len(), |memory| memory.with(bytes, "uploaded")))
    }

    fn download(
        &self,
        buffer: &EmulatedBuffer,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), DeviceError> {
        let mut state = self.state();
        state.downloaded += bytes.len();
        let address = buffer.address.offset(offset as u64);
        let read = state.memory.read(address, bytes);
        read.map_err(|error| DeviceError::new("downloading", error))
    }

    fn size(&self, buffer: &EmulatedBuffer) -> usize {
        buffer.bytes
    }

    fn launch(&self, launch: &Launch<'_, EmulatedBuffer>) -> Result<(), DeviceError> {
        let params: Vec<Param<'_>> = launch
            .args
            .iter()
            .map(|arg| match arg {
                Arg::Memory(buffer, offset) => Param::Ptr(buffer.address.offset(*offset as u64)),
                Arg::Null => Param::U64(0),
                Arg::U32(number) => Param::U32(*number),
                Arg::F32(number) => Param::F32(*number),
            })
            .collect();
        let shape = ptx_emulator::Launch {
            grid: [launch.grid[0], launch.grid[1], 1],
            block: [launch.threads, 1, 1],
            dynamic_shared: 0,
            params: &params,
        };
        let mut state = self.state();
        let ran = launch_with(
            &self.module,
            &mut state.memory,
            launch.entry,
            &shape,
            &self.options,
        );
        let stats =
            ran.map_err(|error| DeviceError::new(format!("launching {}", launch.entry), error))?;
        state.launches.push((launch.entry.to_owned(), stats));
        Ok(())
    }
}
