//! A device whose kernels are the shipped CUDA source, compiled as C++ for the host.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::thread;

use attention_kernels::cuda::{Arg, Device, DeviceError, Launch};
use cuda_host_shim::{Address, Cell, Order, Shim};

/// What the thread that holds the shim does for others.
type Task = Box<dyn FnOnce(&mut Shim) + Send>;

/// The shim, which stays on the thread that locked it.
#[derive(Clone)]
pub(crate) struct HostShim {
    tasks: Arc<mpsc::Sender<Task>>,
}

/// Memory of a [`HostShim`].
#[derive(Debug)]
pub(crate) struct HostBuffer {
    device: HostShim,
    address: Address,
    bytes: usize,
}

/// The shim alone, or `None` where there was no C++ compiler.
pub(crate) fn connect(order: Order) -> Option<HostShim> {
    if !cuda_host_shim::is_available() {
        eprintln!("skipped: no C++ compiler");
        return None;
    }
    let (tasks, received) = mpsc::channel::<Task>();
    thread::spawn(move || {
        // Held until the last buffer and the device are gone.
        let mut shim = Shim::lock();
        shim.set_order(order);
        received.iter().for_each(|task| task(&mut shim));
    });
    Some(HostShim {
        tasks: Arc::new(tasks),
    })
}

impl HostShim {
    /// Runs `task` where the shim is, and waits for it.
    fn run<T: Send + 'static>(&self, task: impl FnOnce(&mut Shim) -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let task = move |shim: &mut Shim| {
            // Whoever asked waits for it.
            let _ = done.send(task(shim));
        };
        self.tasks
            .send(Box::new(task))
            .expect("the shim's thread lives");
        result.recv().expect("the shim's thread lives")
    }

    fn buffer(
        &self,
        bytes: usize,
        make: impl FnOnce(&mut Shim) -> Address + Send + 'static,
    ) -> HostBuffer {
        HostBuffer {
            device: self.clone(),
            address: self.run(make),
            bytes,
        }
    }
}

impl fmt::Debug for HostShim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostShim")
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        let address = self.address;
        let _ = self
            .device
            .tasks
            .send(Box::new(move |shim| shim.free(address)));
    }
}

impl Device for HostShim {
    type Buffer = HostBuffer;

    fn zeroed(&self, bytes: usize) -> Result<HostBuffer, DeviceError> {
        Ok(self.buffer(bytes, move |shim| shim.zeroed(bytes, "zeroed")))
    }

    fn uninit(&self, bytes: usize) -> Result<HostBuffer, DeviceError> {
        Ok(self.buffer(bytes, move |shim| shim.alloc(bytes, "uninit")))
    }

    fn upload(&self, bytes: &[u8]) -> Result<HostBuffer, DeviceError> {
        let bytes = bytes.to_vec();
        Ok(self.buffer(bytes.len(), move |shim| {
            let address = shim.alloc(bytes.len(), "uploaded");
            shim.write(address, 0, &bytes);
            address
        }))
    }

    fn download(
        &self,
        buffer: &HostBuffer,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), DeviceError> {
        let (address, len) = (buffer.address, bytes.len());
        let read = self.run(move |shim| {
            let mut read = vec![0; len];
            shim.read(address, offset, &mut read);
            read
        });
        bytes.copy_from_slice(&read);
        Ok(())
    }

    fn size(&self, buffer: &HostBuffer) -> usize {
        buffer.bytes
    }

    fn launch(&self, launch: &Launch<'_, HostBuffer>) -> Result<(), DeviceError> {
        let cell = |arg: &Arg<'_, HostBuffer>| match *arg {
            Arg::Memory(buffer, offset) => buffer.address.plus(offset as u64).cell(),
            Arg::Null => 0,
            Arg::U32(number) => number.cell(),
            Arg::F32(number) => number.cell(),
        };
        let cells: Vec<u64> = launch.args.iter().map(cell).collect();
        let (entry, [x, y], threads) = (launch.entry.to_owned(), launch.grid, launch.threads);
        let ran = self.run(move |shim| shim.launch(&entry, [x, y, 1], [threads, 1, 1], 0, &cells));
        ran.map_err(|error| DeviceError::new(format!("launching {}", launch.entry), error))
    }
}
