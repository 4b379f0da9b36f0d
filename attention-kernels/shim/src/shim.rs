//! Launches.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::memory::{Address, Buffer};
use crate::{LaunchError, ffi, lines};

/// The C++ side has one state per process.
static LOCK: Mutex<()> = Mutex::new(());

const MAX_BLOCKS: u64 = 1 << 24;
const BLOCK_SHAPES: &str =
    "each at least 1, x and y at most 1024, z at most 64, all threads at most 1024";
const GRID_SHAPES: &str =
    "each at least 1, y and z at most 65535, and here at most 16777216 blocks in all";

/// In which order blocks and threads take their turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// From the first to the last.
    #[default]
    Ascending,
    /// From the last to the first.
    Descending,
    /// Shuffled anew for every turn, by this seed.
    Random(u64),
}

/// The one way to kernels. Whoever holds it has the shim alone; buffers live until it is dropped.
#[derive(Debug)]
pub struct Shim {
    buffers: BTreeMap<Address, Buffer>,
    // Last, so that buffers go first.
    _lock: MutexGuard<'static, ()>,
}

impl Shim {
    /// Waits until nobody else holds the shim. The order is [`Order::Ascending`].
    ///
    /// # Panics
    ///
    /// Where [`is_available`](crate::is_available) is false.
    #[must_use]
    pub fn lock() -> Self {
        assert!(
            crate::is_available(),
            "there was no C++ compiler when cuda-host-shim was built"
        );
        // Someone who panicked between two launches left nothing half done.
        let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: an empty function.
        unsafe { ffi::kv_shim_link_kernels() };
        let mut shim = Self {
            buffers: BTreeMap::new(),
            _lock: lock,
        };
        shim.set_order(Order::Ascending);
        shim
    }

    /// The names of all kernels, sorted.
    #[must_use]
    pub fn entries(&self) -> Vec<String> {
        let mut names: Vec<_> = (0..self.entry_count())
            .map(|i| self.entry_name(i))
            .collect();
        names.sort();
        names
    }

    fn entry_count(&self) -> usize {
        // SAFETY: reads a table that is complete before `main`.
        unsafe { ffi::kv_shim_entry_count() }
    }

    fn entry_name(&self, index: usize) -> String {
        assert!(index < self.entry_count(), "entry {index}");
        // SAFETY: `index` is in the table; the name is a literal of the kernel's source.
        let name = unsafe { CStr::from_ptr(ffi::kv_shim_entry_name(index)) };
        name.to_string_lossy().into_owned()
    }

    /// In which order blocks and threads of the next launches take their turns.
    pub fn set_order(&mut self, order: Order) {
        let (order, seed) = match order {
            Order::Ascending => (0, 0),
            Order::Descending => (1, 0),
            Order::Random(seed) => (2, seed),
        };
        // SAFETY: sets two numbers; 0, 1 and 2 are the orders of `machine.h`.
        unsafe { ffi::kv_shim_set_order(order, seed) };
    }

    /// A buffer of `bytes` bytes, each a finding until it is written. Findings call it `name`.
    ///
    /// # Panics
    ///
    /// Where `bytes` do not fit the address space, or `name` has a zero byte.
    pub fn alloc(&mut self, bytes: usize, name: &str) -> Address {
        let buffer = Buffer::new(bytes, name);
        let address = buffer.address();
        self.buffers.insert(address, buffer);
        address
    }

    /// A buffer of `bytes` zeros.
    ///
    /// # Panics
    ///
    /// As [`alloc`](Self::alloc).
    pub fn zeroed(&mut self, bytes: usize, name: &str) -> Address {
        let address = self.alloc(bytes, name);
        self.write(address, 0, &vec![0; bytes]);
        address
    }

    /// Gives a buffer back.
    ///
    /// # Panics
    ///
    /// Where no buffer begins at `address`.
    pub fn free(&mut self, address: Address) {
        let buffer = self.buffers.remove(&address);
        assert!(buffer.is_some(), "no buffer begins at {address:?}");
    }

    /// Puts `bytes` into the buffer that begins at `address`, from byte `offset` on.
    ///
    /// # Panics
    ///
    /// Where no buffer begins at `address`, or where it is too short.
    pub fn write(&mut self, address: Address, offset: usize, bytes: &[u8]) {
        let buffer = self.buffers.get_mut(&address);
        let buffer = buffer.unwrap_or_else(|| panic!("no buffer begins at {address:?}"));
        buffer.write(offset, bytes);
    }

    /// Gets `bytes` from the buffer that begins at `address`, from byte `offset` on. Bytes that nobody has written are 255.
    ///
    /// # Panics
    ///
    /// Where no buffer begins at `address`, or where it is too short.
    pub fn read(&self, address: Address, offset: usize, bytes: &mut [u8]) {
        let buffer = self.buffers.get(&address);
        let buffer = buffer.unwrap_or_else(|| panic!("no buffer begins at {address:?}"));
        buffer.read(offset, bytes);
    }

    /// Runs the kernel `entry`. Each argument is a cell of 8 bytes, see [`Cell`](crate::Cell).
    ///
    /// The types of arguments are not known and not checked: a pointer to the wrong buffer is found when the kernel uses it.
    ///
    /// # Errors
    ///
    /// [`LaunchError::Findings`] where the kernel did something wrong; the others before anything ran.
    pub fn launch(
        &mut self,
        entry: &str,
        grid: [u32; 3],
        block: [u32; 3],
        dynamic_shared: usize,
        args: &[u64],
    ) -> Result<(), LaunchError> {
        let index = self.find(entry, args.len())?;
        check_shapes(grid, block)?;
        // SAFETY: a constant.
        let limit = unsafe { ffi::kv_shim_max_dynamic_shared() };
        if dynamic_shared > limit {
            return Err(LaunchError::SharedMemory {
                bytes: dynamic_shared,
                limit,
            });
        }
        // SAFETY: the entry exists and reads as many cells as it has parameters, which is `args.len()`; shapes hold three numbers
        // within the limits of a launch. Every access of the kernel to memory is checked against the buffers that live.
        let count = unsafe {
            ffi::kv_shim_launch(
                index,
                grid.as_ptr(),
                block.as_ptr(),
                dynamic_shared,
                args.as_ptr(),
            )
        };
        match count {
            0 => Ok(()),
            count => Err(LaunchError::Findings(self.findings(count))),
        }
    }

    /// The place of `entry` in the table, where it takes `got` arguments.
    fn find(&self, entry: &str, got: usize) -> Result<usize, LaunchError> {
        let mut indices = 0..self.entry_count();
        let Some(index) = indices.find(|&index| self.entry_name(index) == entry) else {
            return Err(LaunchError::UnknownEntry {
                entry: entry.to_owned(),
                known: self.entries(),
            });
        };
        // SAFETY: `index` is in the table; the limit is a constant.
        let (expected, limit) = unsafe {
            (
                ffi::kv_shim_entry_parameters(index),
                ffi::kv_shim_max_parameters(),
            )
        };
        if expected > limit {
            return Err(LaunchError::ParametersTooMany {
                entry: entry.to_owned(),
                parameters: expected,
                limit,
            });
        }
        if expected != got {
            return Err(LaunchError::ArgumentCount {
                entry: entry.to_owned(),
                expected,
                got,
            });
        }
        Ok(index)
    }

    /// The `count` findings of the last launch, with source lines where they are known.
    fn findings(&self, count: usize) -> Vec<String> {
        let text = |index| {
            // SAFETY: the last launch had `count` findings, and there was none since.
            let text = unsafe { CStr::from_ptr(ffi::kv_shim_finding(index)) };
            text.to_string_lossy().into_owned()
        };
        // SAFETY: as above.
        let code = |index| unsafe { ffi::kv_shim_finding_code(index) };
        let places = lines::of(&(0..count).map(code).collect::<Vec<_>>());
        let findings = (0..count).map(text).zip(places);
        findings
            .map(|(text, place)| match place {
                Some(place) => format!("{text} ({place})"),
                None => text,
            })
            .collect()
    }
}

fn check_shapes(grid: [u32; 3], block: [u32; 3]) -> Result<(), LaunchError> {
    let count = |shape: [u32; 3]| {
        shape
            .iter()
            .try_fold(1_u64, |product, &n| product.checked_mul(u64::from(n)))
    };
    let within = |shape: [u32; 3], limits: [u32; 3], all: u64| {
        shape
            .iter()
            .zip(limits)
            .all(|(&n, limit)| (1..=limit).contains(&n))
            && count(shape).is_some_and(|count| count <= all)
    };
    for (what, shape, allowed, good) in [
        (
            "grid",
            grid,
            GRID_SHAPES,
            within(grid, [u32::MAX, 65535, 65535], MAX_BLOCKS),
        ),
        (
            "block",
            block,
            BLOCK_SHAPES,
            within(block, [1024, 1024, 64], 1024),
        ),
    ] {
        if !good {
            return Err(LaunchError::ShapeOutOfRange {
                what,
                shape,
                allowed,
            });
        }
    }
    Ok(())
}
