//! Device memory.

use std::collections::HashMap;
use std::fmt;

use crate::error::MemoryError;
use crate::module::Module;
use crate::types::Space;

/// First address given out.
const FIRST: u64 = 0x7F00_0000_0000;

/// Every allocation starts at a multiple of this.
const ALIGNMENT: u64 = 256;

/// Bytes between two allocations that belong to none.
const GUARD: u64 = 1 << 16;

/// What memory holds that was never written: a NaN in every float format.
const POISON: u8 = 0xFF;

/// A place in device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u64);

impl Address {
    /// No place.
    pub const NULL: Self = Self(0);

    /// The place `bytes` further on.
    #[must_use]
    pub const fn offset(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }

    /// What a kernel sees.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) name: String,
    base: u64,
    bytes: Vec<u8>,
    live: bool,
    pub(crate) read_only: bool,
    /// A bit per byte that was written. `None` once all are.
    written: Option<Vec<u64>>,
}

impl Allocation {
    /// Whether all of `bytes` bytes from `offset` on were written.
    pub(crate) fn is_written(&self, offset: usize, bytes: usize) -> bool {
        match &self.written {
            None => true,
            Some(bits) => (offset..offset + bytes).all(|at| bits[at / 64] >> (at % 64) & 1 == 1),
        }
    }

    pub(crate) fn note_written(&mut self, offset: usize, bytes: usize) {
        let Some(bits) = &mut self.written else {
            return;
        };
        if bytes == self.bytes.len() {
            self.written = None;
            return;
        }
        for at in offset..offset + bytes {
            bits[at / 64] |= 1 << (at % 64);
        }
    }

    pub(crate) fn read(&self, offset: usize, bytes: usize) -> &[u8] {
        &self.bytes[offset..offset + bytes]
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.note_written(offset, bytes.len());
    }
}

/// Where an address that cannot be accessed lies.
pub(crate) enum Nowhere {
    Freed { name: String, offset: u64 },
    Outside { near: String },
}

/// Device memory: allocations with gaps between them. Addresses are not used twice.
#[derive(Debug, Default)]
pub struct Memory {
    allocations: Vec<Allocation>,
    next: u64,
    /// Places of the variables of modules that were launched or asked for.
    modules: HashMap<u64, Vec<Address>>,
    /// Allocation found last.
    last: usize,
}

impl Memory {
    /// Memory without allocations.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Memory that holds nothing: a kernel that reads it before it is written is at fault. `name` is for messages.
    pub fn alloc(&mut self, bytes: usize, name: &str) -> Address {
        let written = Some(vec![0; bytes.div_ceil(64)]);
        self.add(vec![POISON; bytes], written, name)
    }

    fn add(&mut self, bytes: Vec<u8>, written: Option<Vec<u64>>, name: &str) -> Address {
        let base = FIRST + self.next;
        let end = self.next + bytes.len() as u64 + GUARD;
        self.next = end.next_multiple_of(ALIGNMENT);
        self.allocations.push(Allocation {
            name: name.to_owned(),
            base,
            bytes,
            live: true,
            read_only: false,
            written,
        });
        Address(base)
    }

    /// Memory of zeros.
    pub fn zeroed(&mut self, bytes: usize, name: &str) -> Address {
        self.add(vec![0; bytes], None, name)
    }

    /// Memory with contents.
    pub fn with(&mut self, contents: &[u8], name: &str) -> Address {
        self.add(contents.to_vec(), None, name)
    }

    /// Gives an allocation up. What uses it afterwards is at fault.
    ///
    /// # Errors
    ///
    /// [`MemoryError::NotLive`] where `address` is not the start of a live allocation.
    pub fn free(&mut self, address: Address) -> Result<(), MemoryError> {
        let mut allocations = self.allocations.iter_mut();
        let found = allocations.find(|a| a.live && a.base == address.0);
        let allocation = found.ok_or(MemoryError::NotLive { address: address.0 })?;
        allocation.live = false;
        allocation.bytes = Vec::new();
        Ok(())
    }

    fn place(&mut self, address: Address, bytes: usize) -> Result<(usize, usize), MemoryError> {
        let address = address.0;
        self.locate(address, bytes)
            .map_err(|nowhere| match nowhere {
                Nowhere::Freed { .. } => MemoryError::NotLive { address },
                Nowhere::Outside { .. } => MemoryError::OutOfBounds { address, bytes },
            })
    }

    /// Writes `bytes` from `address` on.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] where they do not lie in one live allocation.
    pub fn write(&mut self, address: Address, bytes: &[u8]) -> Result<(), MemoryError> {
        let (index, offset) = self.place(address, bytes.len())?;
        self.allocations[index].write(offset, bytes);
        Ok(())
    }

    /// Reads `bytes` from `address` on. What was never written reads as bytes of all ones.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] where they do not lie in one live allocation.
    pub fn read(&mut self, address: Address, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let (index, offset) = self.place(address, bytes.len())?;
        bytes.copy_from_slice(self.allocations[index].read(offset, bytes.len()));
        Ok(())
    }

    /// Address of a variable of `module` in global or constant memory.
    pub fn variable(&mut self, module: &Module, name: &str) -> Option<Address> {
        let addresses = self.variables(module);
        let index = module.variables.iter().position(|v| v.name == name)?;
        addresses
            .get(index)
            .copied()
            .filter(|address| *address != Address::NULL)
    }

    /// Addresses of the variables of `module`, in its order, which get their places the first time. Shared variables have none.
    pub(crate) fn variables(&mut self, module: &Module) -> Vec<Address> {
        if let Some(addresses) = self.modules.get(&module.id) {
            return addresses.clone();
        }
        let mut addresses = Vec::new();
        for (index, variable) in module.variables.iter().enumerate() {
            let address = match variable.space {
                Space::Global | Space::Const => {
                    let address = self.with(module.contents(index), &variable.name);
                    let read_only = variable.space == Space::Const;
                    self.allocations.last_mut().expect("just made").read_only = read_only;
                    address
                }
                _ => Address::NULL,
            };
            addresses.push(address);
        }
        for (index, variable) in module.variables.iter().enumerate() {
            for (at, name, offset) in &variable.pointers {
                let target = module.variables.iter().position(|v| v.name == *name);
                let target = target.map_or(0, |target| addresses[target].0);
                let bytes = target.wrapping_add_signed(*offset).to_le_bytes();
                let place = self.place(addresses[index], 0).expect("just made").0;
                self.allocations[place].write(*at, &bytes);
            }
        }
        self.modules.insert(module.id, addresses.clone());
        addresses
    }

    /// The allocation that holds all of `bytes` bytes from `address` on, and where in it they start.
    #[inline]
    pub(crate) fn locate(&mut self, address: u64, bytes: usize) -> Result<(usize, usize), Nowhere> {
        let last = self.allocations.get(self.last);
        if let Some(offset) = last.and_then(|a| inside(a, address, bytes)) {
            return Ok((self.last, offset));
        }
        let after = self.allocations.partition_point(|a| a.base <= address);
        let index = after.wrapping_sub(1);
        match self
            .allocations
            .get(index)
            .and_then(|a| inside(a, address, bytes))
        {
            Some(offset) => {
                self.last = index;
                Ok((index, offset))
            }
            None => Err(self.explain(address, index)),
        }
    }

    fn explain(&self, address: u64, index: usize) -> Nowhere {
        let Some(before) = self.allocations.get(index) else {
            let near = "the address lies before every allocation".to_owned();
            return Nowhere::Outside { near };
        };
        let offset = address - before.base;
        if !before.live {
            let name = before.name.clone();
            return Nowhere::Freed { name, offset };
        }
        let (name, size) = (&before.name, before.bytes.len());
        let mut near = format!("byte {offset} of `{name}`, which has {size}");
        if let Some(next) = self.allocations.get(index + 1) {
            let short = next.base - address;
            if short < GUARD / 2 {
                near = format!("{short} bytes before `{}`", next.name);
            }
        }
        Nowhere::Outside { near }
    }

    pub(crate) fn allocation(&mut self, index: usize) -> &mut Allocation {
        &mut self.allocations[index]
    }
}

#[inline]
fn inside(allocation: &Allocation, address: u64, bytes: usize) -> Option<usize> {
    let offset = usize::try_from(address.checked_sub(allocation.base)?).ok()?;
    let room = allocation.bytes.len().checked_sub(offset)?;
    (room >= bytes && allocation.live).then_some(offset)
}
