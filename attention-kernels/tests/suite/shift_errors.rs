//! Every refusal of `shift`: the variant, its numbers, its words, and that nothing was turned.

use attention_kernels::{
    KernelError, KvDtype, PageLayout, PageStore, RopeStyle, RowShift, RowWrite, ShiftArgs,
    WriteArgs, shift, write,
};

use crate::errors::assert_says;

/// Tables of five positions and two pairs, all of them half a turn.
const COS: [f32; 10] = [-1.0; 10];
const SIN: [f32; 10] = [0.0; 10];

const FIRST: RowShift = RowShift {
    page: 0,
    offset: 0,
    by: 1,
};

const SECOND: RowShift = RowShift {
    page: 2,
    offset: 7,
    by: -4,
};

const SOUND: ShiftArgs<'static> = ShiftArgs {
    rows: &[FIRST, SECOND],
    cos: &COS,
    sin: &SIN,
    rotary_dim: 4,
    style: RopeStyle::Halves,
};

/// A store whose first key is ones.
fn store() -> PageStore {
    let layout = PageLayout::new(8, 6).expect("a layout");
    let mut store = PageStore::new(layout, KvDtype::F32, 3).expect("a small store");
    let args = WriteArgs {
        keys: &[1.0; 6],
        values: &[1.0; 6],
        rows: &[RowWrite {
            source: 0,
            page: 0,
            offset: 0,
        }],
    };
    write(&mut store, &args).expect("a sound write");
    store
}

fn refused(args: &ShiftArgs<'_>) -> KernelError {
    let mut store = store();
    let error = shift(&mut store, args).expect_err("a wrong shift");
    assert_eq!(
        store.read_key(0, 0),
        [1.0; 6],
        "a refused shift changes nothing"
    );
    shift(&mut store, &SOUND).expect("a sound shift");
    assert_eq!(store.read_key(0, 0), [-1.0, -1.0, -1.0, -1.0, 1.0, 1.0]);
    error
}

/// The refusal of a sound first entry and a wrong second one.
fn refused_entry(second: RowShift) -> KernelError {
    refused(&ShiftArgs {
        rows: &[FIRST, second],
        ..SOUND
    })
}

#[test]
fn rotary_dim_out_of_range() {
    for rotary_dim in [0, 1, 3, 5, 8, usize::MAX] {
        let error = refused(&ShiftArgs {
            rotary_dim,
            ..SOUND
        });
        let want = KernelError::RotaryDimOutOfRange {
            rotary_dim,
            head_dim: 6,
        };
        assert_eq!(error, want);
        assert_says(
            &error,
            &["even", "head dim 6", &format!("got {rotary_dim}")],
        );
    }
}

#[test]
fn angle_tables() {
    for (cos, sin) in [(10, 8), (8, 10), (9, 9), (0, 2)] {
        let error = refused(&ShiftArgs {
            cos: &COS[..cos],
            sin: &SIN[..sin],
            ..SOUND
        });
        assert_eq!(error, KernelError::AngleTables { cos, sin, pairs: 2 });
        let (cos, sin) = (format!("{cos} cosines"), format!("{sin} sines"));
        assert_says(&error, &[&cos, &sin, "rows of 2"]);
    }
}

#[test]
fn shift_out_of_range() {
    for by in [5, -5, i32::MAX, i32::MIN] {
        let error = refused_entry(RowShift { by, ..SECOND });
        let want = KernelError::ShiftOutOfRange {
            index: 1,
            by,
            positions: 5,
        };
        assert_eq!(error, want);
        assert_says(&error, &["entry 1", &format!("by {by}"), "5 positions"]);
    }
    let error = refused(&ShiftArgs {
        cos: &[],
        sin: &[],
        ..SOUND
    });
    let want = KernelError::ShiftOutOfRange {
        index: 0,
        by: 1,
        positions: 0,
    };
    assert_eq!(error, want);
}

#[test]
fn slots_out_of_range() {
    let page = KernelError::PageOutOfRange {
        index: 1,
        page: 3,
        pages: 3,
    };
    assert_eq!(refused_entry(RowShift { page: 3, ..SECOND }), page);
    let offset = KernelError::OffsetOutOfRange {
        index: 1,
        offset: 8,
        block: 8,
    };
    assert_eq!(
        refused_entry(RowShift {
            offset: 8,
            ..SECOND
        }),
        offset
    );
}

#[test]
fn shifted_twice() {
    for by in [FIRST.by, 0, -1] {
        let error = refused_entry(RowShift { by, ..FIRST });
        let want = KernelError::ShiftedTwice {
            index: 1,
            page: 0,
            offset: 0,
        };
        assert_eq!(error, want);
        assert_says(&error, &["entry 1", "page 0", "offset 0", "once"]);
    }
}

#[test]
fn nothing_to_turn() {
    let mut store = store();
    let nothing = ShiftArgs {
        rows: &[],
        cos: &[],
        sin: &[],
        ..SOUND
    };
    assert_eq!(shift(&mut store, &nothing), Ok(()));
}
