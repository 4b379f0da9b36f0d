//! What the backend needs of a device, so that the same host code drives a GPU and the machines that stand in for one in tests.

use std::fmt;

/// Memory, copies and kernel launches, all in one stream: what is called later happens later.
///
/// Whoever implements it executes the entries of the PTX module that this crate ships, or of its source.
pub trait Device: Clone + fmt::Debug + Send + Sync + 'static {
    /// Memory of the device. Dropping it gives it back once all that was launched before is done.
    type Buffer: fmt::Debug + Send + Sync;

    /// Memory of `bytes` bytes, all zero.
    ///
    /// # Errors
    ///
    /// [`DeviceError`], above all where there is not enough.
    fn zeroed(&self, bytes: usize) -> Result<Self::Buffer, DeviceError>;

    /// Memory of `bytes` bytes that hold anything. It is written before it is read.
    ///
    /// # Errors
    ///
    /// As [`Device::zeroed`].
    fn uninit(&self, bytes: usize) -> Result<Self::Buffer, DeviceError>;

    /// Memory that holds `bytes`.
    ///
    /// # Errors
    ///
    /// As [`Device::zeroed`].
    fn upload(&self, bytes: &[u8]) -> Result<Self::Buffer, DeviceError>;

    /// Waits for all that was launched, and reads `bytes.len()` bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// [`DeviceError`], also for what went wrong in a kernel before.
    fn download(
        &self,
        buffer: &Self::Buffer,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), DeviceError>;

    /// Bytes of a buffer.
    fn size(&self, buffer: &Self::Buffer) -> usize;

    /// Launches an entry.
    ///
    /// # Errors
    ///
    /// [`DeviceError`], where the entry does not exist or the launch is refused. What goes wrong in the kernel may be known
    /// only later.
    fn launch(&self, launch: &Launch<'_, Self::Buffer>) -> Result<(), DeviceError>;
}

/// One kernel launch. No kernel takes dynamic shared memory.
#[derive(Debug)]
pub struct Launch<'a, B> {
    /// Name of the entry.
    pub entry: &'a str,
    /// Blocks in x and y.
    pub grid: [u32; 2],
    /// Threads of a block.
    pub threads: u32,
    /// The entry's parameters, in order.
    pub args: &'a [Arg<'a, B>],
}

/// One parameter of an entry.
#[derive(Debug)]
pub enum Arg<'a, B> {
    /// Memory, from this byte on.
    Memory(&'a B, usize),
    /// A null pointer, for what is not wanted.
    Null,
    /// A 32-bit number.
    U32(u32),
    /// A float.
    F32(f32),
}

// Not derived: a copy needs no copy of the memory.
impl<B> Clone for Arg<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Arg<'_, B> {}

/// What a device could not do, in its own words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: {reason}")]
pub struct DeviceError {
    /// What was tried.
    pub doing: String,
    /// Why it failed.
    pub reason: String,
}

impl DeviceError {
    /// An error while `doing` something.
    #[must_use]
    pub fn new(doing: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self {
            doing: doing.into(),
            reason: reason.to_string(),
        }
    }
}
