//! Buffers that kernels read and write.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ffi::{CString, c_void};
use std::ptr::NonNull;

use crate::ffi;

/// Where a buffer begins, or a place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u64);

impl Address {
    /// The place `bytes` further on.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A value that can be an argument of a kernel.
pub trait Cell: sealed::Sealed {
    /// The value in the first bytes of a cell of 8, the rest zero.
    fn cell(self) -> u64;
}

macro_rules! cells {
    ($($number:ty),*) => {$(
        impl sealed::Sealed for $number {}
        impl Cell for $number {
            fn cell(self) -> u64 {
                let mut cell = [0; 8];
                cell[..size_of::<Self>()].copy_from_slice(&self.to_ne_bytes());
                u64::from_ne_bytes(cell)
            }
        }
    )*};
}
cells!(u8, u16, u32, u64, usize, i32, i64, f32, f64);

impl sealed::Sealed for Address {}
impl Cell for Address {
    fn cell(self) -> u64 {
        self.0
    }
}

/// What every byte of a fresh buffer holds: a NaN in every float type.
const POISON: u8 = 0xff;

/// As `cudaMalloc` aligns.
const ALIGN: usize = 256;

/// Bytes behind each buffer that belong to no buffer, so that a step past the end does not land in the next one.
const GAP: usize = 256;

/// A buffer, known to the detector while it lives.
#[derive(Debug)]
pub(crate) struct Buffer {
    memory: NonNull<u8>,
    layout: Layout,
    bytes: usize,
}

impl Buffer {
    /// `bytes` bytes that count as never written. The caller holds the shim's lock, here and when it drops the buffer.
    pub(crate) fn new(bytes: usize, name: &str) -> Self {
        let layout = bytes
            .checked_add(GAP)
            .and_then(|padded| Layout::from_size_align(padded, ALIGN).ok())
            .unwrap_or_else(|| panic!("a buffer of {bytes} bytes does not fit the address space"));
        let name = CString::new(name).expect("a name without zero bytes");
        // SAFETY: the layout is not empty, for `GAP` is not 0.
        let memory = unsafe { alloc(layout) };
        let memory = NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: the allocation is `layout.size()` bytes long.
        unsafe { memory.write_bytes(POISON, layout.size()) };
        // SAFETY: the allocation outlives its registration, which `drop` ends; the name is copied.
        unsafe { ffi::kv_shim_register(Self::raw(memory), bytes, name.as_ptr()) };
        Self {
            memory,
            layout,
            bytes,
        }
    }

    fn raw(memory: NonNull<u8>) -> *const c_void {
        memory.as_ptr().cast_const().cast()
    }

    pub(crate) fn address(&self) -> Address {
        // Kernels get the address as a number in a cell.
        let address = self.memory.as_ptr().expose_provenance();
        Address(u64::try_from(address).expect("an address of 64 bits at most"))
    }

    /// Panics where `len` bytes from `offset` on are not all in the buffer.
    fn check(&self, offset: usize, len: usize) {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.bytes);
        assert!(
            inside,
            "{len} bytes from byte {offset} on, the buffer has {}",
            self.bytes
        );
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        if bytes.is_empty() {
            return;
        }
        // SAFETY: `check` has shown that the range is inside the allocation; no reference into it exists, so `bytes` does not overlap.
        unsafe {
            let to = self.memory.add(offset);
            to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
            ffi::kv_shim_set_initialised(Self::raw(to), bytes.len());
        }
    }

    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) {
        self.check(offset, bytes.len());
        // SAFETY: as in `write`; every byte was written when the buffer was made.
        unsafe {
            let from = self.memory.add(offset);
            from.copy_to_nonoverlapping(NonNull::from(&mut *bytes).cast(), bytes.len());
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: registered and allocated in `new`, with this layout.
        unsafe {
            ffi::kv_shim_unregister(Self::raw(self.memory));
            dealloc(self.memory.as_ptr(), self.layout);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cell;

    #[test]
    fn cells_hold_the_value_first() {
        assert_eq!((-2_i32).cell().to_ne_bytes()[..4], (-2_i32).to_ne_bytes());
        assert_eq!(1.5_f32.cell().to_ne_bytes()[..4], 1.5_f32.to_ne_bytes());
        assert_eq!(1.5_f32.cell().to_ne_bytes()[4..], [0; 4]);
        assert_eq!(u64::MAX.cell(), u64::MAX);
    }
}
