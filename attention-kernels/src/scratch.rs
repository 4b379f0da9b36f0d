//! Memory that a thread works in, from call to call.

use std::cell::RefCell;

thread_local! {
    static NUMBERS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` numbers of the thread's own, whatever they hold. They are not given back: the next call will want as many.
pub(crate) fn with_scratch(len: usize, work: impl FnOnce(&mut [f32])) {
    NUMBERS.with_borrow_mut(|numbers| {
        if numbers.len() < len {
            numbers.resize(len, 0.0);
        }
        work(&mut numbers[..len]);
    });
}
