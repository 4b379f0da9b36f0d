//! Where the engine gets its runtime from.
//!
//! The engine's loaders have no parameter for a runtime, so the runtime is found by the thread that loads: first what
//! [`scoped`] set for this thread, then what [`install`] set for the process. A model that the engine reloads by
//! itself, on a thread of its own, finds the process-wide one.
use std::{
    cell::RefCell,
    sync::{Arc, PoisonError, RwLock},
};

use crate::Handle;

/// Makes a fresh runtime. Called once or more per model that is loaded; must be cheap and must not load anything.
pub type Factory = Arc<dyn Fn() -> Handle + Send + Sync>;

static PROCESS: RwLock<Option<Factory>> = RwLock::new(None);

thread_local! {
    static THREAD: RefCell<Option<Factory>> = const { RefCell::new(None) };
}

/// Lets every model that is loaded from now on use runtimes of `factory`. Models already loaded keep theirs.
pub fn install(factory: Factory) {
    *PROCESS.write().unwrap_or_else(PoisonError::into_inner) = Some(factory);
}

/// Takes back [`install`]: models loaded from now on run as in the stock engine.
pub fn uninstall() {
    *PROCESS.write().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Runs `load` with `factory` in force on this thread only, whatever is installed for the process.
///
/// ```
/// # use std::sync::Arc;
/// let before = kv_hook::installed();
/// kv_hook::scoped(Arc::new(|| unreachable!("nothing is loaded here")), || assert!(kv_hook::installed()));
/// assert_eq!(kv_hook::installed(), before);
/// ```
pub fn scoped<R>(factory: Factory, load: impl FnOnce() -> R) -> R {
    /// Puts the former factory back, also when `load` panics.
    struct Restore(Option<Factory>);
    impl Drop for Restore {
        fn drop(&mut self) {
            THREAD.set(self.0.take());
        }
    }
    let _restore = Restore(THREAD.replace(Some(factory)));
    load()
}

/// Whether a model loaded now, on this thread, would get a runtime.
#[must_use]
pub fn installed() -> bool {
    current().is_some()
}

/// A fresh runtime, or `None` where nothing is installed. Called by the patched engine.
#[must_use]
pub fn make() -> Option<Handle> {
    current().map(|factory| factory())
}

fn current() -> Option<Factory> {
    THREAD.with_borrow(Clone::clone).or_else(|| {
        PROCESS
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    })
}
