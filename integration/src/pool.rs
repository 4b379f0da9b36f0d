//! How large the pool is, and its pages.
use mistralrs_core::{MemoryGpuConfig, PagedAttentionConfig, PagedCacheType};

use crate::StartError;

/// The engine's block sizes.
const BLOCK_SIZES: [usize; 3] = [8, 16, 32];
/// Tokens of a page unless the user says otherwise. Half of the engine's own default for CPUs: a head's last page is half full on average, and
/// under a policy there are many heads of a few hundred tokens each.
pub const DEFAULT_BLOCK_SIZE: usize = 16;
/// Tokens that the pool can hold in full unless the user says otherwise; memory is committed when it is touched.
const DEFAULT_CONTEXT: usize = 8192;

/// How large the pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolSize {
    /// Room for so many tokens in every head, as the engine counts them: in whole MiB, rounded down.
    ContextLen(usize),
    /// So many MiB.
    MemoryMb(usize),
}

/// What a user says about the pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolArgs {
    pub(crate) size: Option<PoolSize>,
    pub(crate) block_size: usize,
    /// How many tokens are stored in the bytes that the engine counts for one, which are those of its activations.
    pub(crate) tokens_per_counted: usize,
}

impl PoolArgs {
    /// Refuses sizes that the engine has not.
    pub(crate) fn check(&self) -> Result<(), StartError> {
        let refuse = |field, value: usize, allowed: &str| {
            Err(StartError::OutOfRange {
                field,
                value: value.to_string(),
                allowed: allowed.into(),
            })
        };
        if !BLOCK_SIZES.contains(&self.block_size) {
            return refuse("pa-block-size", self.block_size, "8, 16 or 32");
        }
        match self.size {
            Some(PoolSize::ContextLen(0)) => refuse("pa-context-len", 0, "at least 1 token"),
            Some(PoolSize::MemoryMb(0)) => refuse("pa-memory-mb", 0, "at least 1 MiB"),
            _ => Ok(()),
        }
    }

    /// As the engine takes it, for a model that was built for `context` positions.
    pub(crate) fn config(&self, context: usize) -> Result<PagedAttentionConfig, StartError> {
        self.check()?;
        let memory = match self.size {
            Some(PoolSize::ContextLen(tokens)) => MemoryGpuConfig::ContextSize(tokens),
            Some(PoolSize::MemoryMb(mb)) => {
                MemoryGpuConfig::MbAmount(mb.saturating_mul(self.tokens_per_counted))
            }
            None => MemoryGpuConfig::ContextSize(context.min(DEFAULT_CONTEXT)),
        };
        PagedAttentionConfig::new(Some(self.block_size), memory, PagedCacheType::Auto)
            .map_err(|e| StartError::Engine(e.to_string()))
    }
}
