//! Which mask is the plain causal one.
//!
//! A runtime that attends itself must know what a layer's mask says. The engine makes the plain causal mask in one place; it is noted
//! there, and looked up where the mask comes to a layer. Any other mask is not known, and the engine's own attention is used.
use std::cell::Cell;

use candle_core::{Tensor, TensorId};

thread_local! {
    static NOTED: Cell<Option<TensorId>> = const { Cell::new(None) };
}

/// Notes that `mask` hides what comes after each query, and nothing else. Called by the patched engine, on the thread of the forward
/// pass.
pub fn note_causal(mask: &Tensor) {
    NOTED.set(Some(mask.id()));
}

/// Whether `mask` is the one noted last on this thread.
#[must_use]
pub fn is_causal(mask: &Tensor) -> bool {
    NOTED.get() == Some(mask.id())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn only_the_noted_mask_is_causal() {
        let mask = || Tensor::zeros((2, 2), DType::F32, &Device::Cpu).expect("a tensor");
        let (causal, other) = (mask(), mask());
        assert!(!is_causal(&causal));
        note_causal(&causal);
        assert!(is_causal(&causal) && is_causal(&causal.clone()) && !is_causal(&other));
        note_causal(&other);
        assert!(!is_causal(&causal));
    }
}
