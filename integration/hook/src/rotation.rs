//! How a layer's queries and keys were turned, told on the way to its attention.
//!
//! The engine turns queries and keys just before it calls a layer's attention, on the same thread, and has no field that carries the
//! tables there. So the one notes them, and the other takes them.
use std::{
    cell::RefCell,
    sync::atomic::{AtomicBool, Ordering},
};

use candle_core::Tensor;

/// Tables of `RoPE`, for positions from 0 on: `[P, D' / 2]` each, `D'` the dimensions that are turned.
#[derive(Debug, Clone)]
pub struct RotationTables {
    /// Cosines.
    pub cos: Tensor,
    /// Sines.
    pub sin: Tensor,
    /// Whether dimensions `2 i` and `2 i + 1` are a pair; else `i` and `i + D' / 2`.
    pub is_adjacent: bool,
}

thread_local! {
    static NOTED: RefCell<Option<RotationTables>> = const { RefCell::new(None) };
}

/// Whether any runtime of this process reads the tables.
static WANTED: AtomicBool = AtomicBool::new(false);

/// Asks for the tables: until then nothing is noted.
pub fn want_rotation() {
    WANTED.store(true, Ordering::Relaxed);
}

/// Notes the tables that queries and keys have just been turned by. Called by the patched engine.
pub fn note_rotation(cos: &Tensor, sin: &Tensor, is_adjacent: bool) {
    if !WANTED.load(Ordering::Relaxed) {
        return;
    }
    let tables = RotationTables {
        cos: cos.clone(),
        sin: sin.clone(),
        is_adjacent,
    };
    NOTED.set(Some(tables));
}

/// The tables noted last on this thread, once.
#[must_use]
pub fn take_rotation() -> Option<RotationTables> {
    NOTED.take()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn tables_are_taken_once() {
        let table = Tensor::new(&[[1.0_f32]], &Device::Cpu).expect("a tensor");
        note_rotation(&table, &table, true);
        assert!(take_rotation().is_none(), "nobody wants them");
        want_rotation();
        note_rotation(&table, &table, true);
        let taken = take_rotation().expect("noted");
        assert!(taken.is_adjacent && taken.cos.id() == table.id());
        assert!(take_rotation().is_none());
    }
}
