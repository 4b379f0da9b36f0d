//! The functions of `src/cpp/api.cpp`.
//!
//! None of them may run while another one does: callers hold the lock of [`Shim`](crate::Shim).

use std::ffi::{c_char, c_void};

macro_rules! functions {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        #[cfg(shim_built)]
        unsafe extern "C" {
            $($(#[$doc])* pub(crate) fn $name($($argument: $type),*) $(-> $result)?;)*
        }

        // The same functions where there was nothing to build them with. `Shim::lock` refuses first.
        #[cfg(not(shim_built))]
        mod absent {
            use super::{c_char, c_void};

            $(pub(crate) unsafe fn $name($(_: $type),*) $(-> $result)? {
                unreachable!("the shim was not built")
            })*
        }
        #[cfg(not(shim_built))]
        pub(crate) use absent::*;
    };
}

functions! {
    /// Makes the linker keep the files of kernels.
    fn kv_shim_link_kernels();
    fn kv_shim_entry_count() -> usize;
    /// Lives as long as the process.
    fn kv_shim_entry_name(index: usize) -> *const c_char;
    fn kv_shim_entry_parameters(index: usize) -> usize;
    fn kv_shim_max_parameters() -> usize;
    fn kv_shim_max_dynamic_shared() -> usize;
    fn kv_shim_set_order(order: u32, seed: u64);
    fn kv_shim_register(memory: *const c_void, bytes: usize, name: *const c_char);
    fn kv_shim_unregister(memory: *const c_void);
    fn kv_shim_set_initialised(memory: *const c_void, bytes: usize);
    /// The number of findings.
    fn kv_shim_launch(
        entry: usize, grid: *const u32, block: *const u32, dynamic_shared: usize, arguments: *const u64
    ) -> usize;
    /// Lives until the next launch.
    fn kv_shim_finding(index: usize) -> *const c_char;
    /// An offset into the program's file, or 0.
    fn kv_shim_finding_code(index: usize) -> usize;
}
