//! The seed of the engine's sampler, which the engine itself does not let a user set.
use std::sync::{PoisonError, RwLock};

static SEED: RwLock<Option<u64>> = RwLock::new(None);

/// Lets engines started from now on sample from `seed`; `None` leaves them their own.
pub fn set_seed(seed: Option<u64>) {
    *SEED.write().unwrap_or_else(PoisonError::into_inner) = seed;
}

/// The seed set last. Called by the patched engine when it starts.
#[must_use]
pub fn seed() -> Option<u64> {
    *SEED.read().unwrap_or_else(PoisonError::into_inner)
}
