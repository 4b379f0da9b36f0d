//! Every refusal: the variant, its numbers, its words, and that nothing was changed.

use attention_kernels::{
    AttendArgs, CopyRow, HeadSlots, KernelError, KvDtype, PageLayout, PageStore, RowWrite,
    Workspace, WriteArgs, attend, attend_into, copy_rows, write,
};

fn layout() -> PageLayout {
    PageLayout::new(8, 4).expect("a layout")
}

fn store() -> PageStore {
    PageStore::new(layout(), KvDtype::F32, 3).expect("a small store")
}

/// The words name every number that a person needs.
pub(crate) fn assert_says(error: &KernelError, numbers: &[&str]) {
    let words = error.to_string();
    for number in numbers {
        assert!(words.contains(number), "`{number}` is missing in `{words}`");
    }
}

#[test]
fn layout_out_of_range() {
    let error = PageLayout::new(0, 64).expect_err("an empty page");
    assert_eq!(
        error,
        KernelError::LayoutOutOfRange {
            block: 0,
            head_dim: 64
        }
    );
    assert_says(&error, &["0 tokens", "64 elements"]);
}

#[test]
fn store_too_large() {
    // More pages than a u32 counts, and more bytes than there are addresses.
    let wide = PageLayout::new(1 << 20, 1 << 20).expect("a page of 8 TiB");
    let cases = [
        (layout(), 1 << 32, 256),
        (layout(), usize::MAX, 256),
        (wide, 1 << 21, 1 << 43),
    ];
    for (layout, pages, bytes_per_page) in cases {
        let error = PageStore::new(layout, KvDtype::F32, pages).expect_err("too large");
        assert_eq!(
            error,
            KernelError::StoreTooLarge {
                pages,
                bytes_per_page
            }
        );
        assert_says(&error, &[&pages.to_string(), &bytes_per_page.to_string()]);
    }
}

#[test]
fn out_of_memory() {
    // Fits an isize, and no machine.
    let wide = PageLayout::new(1 << 20, 1 << 20).expect("a page of 4 TiB");
    let error = PageStore::new(wide, KvDtype::F16, 1 << 20).expect_err("2^62 bytes");
    assert_eq!(
        error,
        KernelError::OutOfMemory {
            bytes: 1 << 62,
            pages: 1 << 20,
            dtype: KvDtype::F16
        }
    );
    assert_says(&error, &["4611686018427387904", "1048576", "f16"]);
}

/// A sound write of two rows, and then one thing wrong with it.
fn refused_write(keys: usize, values: usize, second: RowWrite) -> KernelError {
    let mut store = store();
    let first = RowWrite {
        source: 0,
        page: 0,
        offset: 0,
    };
    let args = WriteArgs {
        keys: &vec![1.0; keys],
        values: &vec![1.0; values],
        rows: &[first, second],
    };
    let error = write(&mut store, &args).expect_err("a wrong write");
    assert_eq!(
        store.read_key(0, 0),
        [0.0; 4],
        "a refused write changes nothing"
    );
    error
}

const SOUND: RowWrite = RowWrite {
    source: 1,
    page: 2,
    offset: 7,
};

#[test]
fn keys_values_differ() {
    let error = refused_write(8, 12, SOUND);
    assert_eq!(
        error,
        KernelError::KeysValuesDiffer {
            keys: 8,
            values: 12
        }
    );
    assert_says(&error, &["8", "12"]);
}

#[test]
fn rows_not_whole() {
    let error = refused_write(9, 9, SOUND);
    assert_eq!(
        error,
        KernelError::RowsNotWhole {
            elements: 9,
            head_dim: 4
        }
    );
    assert_says(&error, &["9", "4"]);
}

#[test]
fn row_out_of_range() {
    let error = refused_write(8, 8, RowWrite { source: 2, ..SOUND });
    assert_eq!(
        error,
        KernelError::RowOutOfRange {
            index: 1,
            row: 2,
            rows: 2
        }
    );
    assert_says(&error, &["entry 1", "row 2", "2 rows"]);
}

#[test]
fn page_out_of_range_in_write() {
    let error = refused_write(8, 8, RowWrite { page: 3, ..SOUND });
    assert_eq!(
        error,
        KernelError::PageOutOfRange {
            index: 1,
            page: 3,
            pages: 3
        }
    );
    assert_says(&error, &["entry 1", "page 3", "3 pages"]);
}

#[test]
fn offset_out_of_range_in_write() {
    let error = refused_write(8, 8, RowWrite { offset: 8, ..SOUND });
    assert_eq!(
        error,
        KernelError::OffsetOutOfRange {
            index: 1,
            offset: 8,
            block: 8
        }
    );
    assert_says(&error, &["entry 1", "offset 8", "8 tokens"]);
}

#[test]
fn copies_out_of_range() {
    let sound = CopyRow {
        from_page: 0,
        from_offset: 0,
        to_page: 1,
        to_offset: 1,
    };
    let page = |page| KernelError::PageOutOfRange {
        index: 1,
        page,
        pages: 3,
    };
    let offset = |offset| KernelError::OffsetOutOfRange {
        index: 1,
        offset,
        block: 8,
    };
    let cases = [
        (
            CopyRow {
                from_page: 3,
                ..sound
            },
            page(3),
        ),
        (
            CopyRow {
                to_page: u32::MAX,
                ..sound
            },
            page(u32::MAX),
        ),
        (
            CopyRow {
                from_offset: 8,
                ..sound
            },
            offset(8),
        ),
        (
            CopyRow {
                to_offset: u32::MAX,
                ..sound
            },
            offset(u32::MAX),
        ),
    ];
    for (wrong, want) in cases {
        let mut store = store();
        let ones = WriteArgs {
            keys: &[1.0; 4],
            values: &[1.0; 4],
            rows: &[RowWrite {
                source: 0,
                page: 0,
                offset: 0,
            }],
        };
        write(&mut store, &ones).expect("a sound write");
        assert_eq!(copy_rows(&mut store, &[sound, wrong]), Err(want));
        assert_eq!(
            store.read_key(1, 1),
            [0.0; 4],
            "a refused copy changes nothing"
        );
    }
}

/// Two heads of two query heads each: a sound call, for the cases below to spoil.
fn sound_call<R>(run: impl FnOnce(&PageStore, AttendArgs<'_>) -> R) -> R {
    let heads = [
        HeadSlots {
            pages: &[0, 2],
            len: 9,
        },
        HeadSlots {
            pages: &[1],
            len: 8,
        },
    ];
    let args = AttendArgs {
        queries: &[1.0; 2 * 2 * 4],
        heads: &heads,
        group: 2,
        scale: 0.5,
        softcap: Some(30.0),
    };
    assert!(attend(&store(), &args).is_ok());
    run(&store(), args)
}

fn refused_attend(spoil: impl FnOnce(&mut AttendArgs<'_>)) -> KernelError {
    sound_call(|store, mut args| {
        spoil(&mut args);
        let mut out = vec![7.0; 16];
        let error = attend_into(store, &args, &mut Workspace::default(), &mut out)
            .expect_err("a wrong call");
        assert_eq!(out, [7.0; 16], "a refused call changes nothing");
        error
    })
}

#[test]
fn group_out_of_range() {
    let error = refused_attend(|args| args.group = 0);
    assert_eq!(error, KernelError::GroupOutOfRange { group: 0 });
    assert_says(&error, &["at least 1", "got 0"]);
}

#[test]
fn queries_length() {
    for (group, expected) in [(3, 24), (usize::MAX, usize::MAX)] {
        let error = refused_attend(|args| args.group = group);
        assert_eq!(
            error,
            KernelError::QueriesLength {
                elements: 16,
                expected,
                heads: 2,
                group,
                head_dim: 4
            }
        );
        assert_says(
            &error,
            &["16", "2 heads", &expected.to_string(), "head dim 4"],
        );
    }
}

#[test]
fn output_length() {
    sound_call(|store, args| {
        let error = attend_into(store, &args, &mut Workspace::default(), &mut [7.0; 15])
            .expect_err("a short output");
        assert_eq!(
            error,
            KernelError::OutputLength {
                elements: 15,
                expected: 16
            }
        );
        assert_says(&error, &["15", "16"]);
    });
}

#[test]
fn pages_too_few() {
    let heads = [
        HeadSlots { pages: &[], len: 0 },
        HeadSlots {
            pages: &[1],
            len: 9,
        },
    ];
    let error = sound_call(|store, args| {
        let args = AttendArgs {
            heads: &heads,
            ..args
        };
        attend(store, &args).expect_err("a short table")
    });
    assert_eq!(
        error,
        KernelError::PagesTooFew {
            head: 1,
            len: 9,
            pages: 1,
            expected: 2,
            block: 8
        }
    );
    assert_says(
        &error,
        &["head 1", "9 tokens", "1 pages", "2 pages", "of 8"],
    );
}

#[test]
fn page_out_of_range_in_attend() {
    let heads = |len| {
        [
            HeadSlots {
                pages: &[0],
                len: 1,
            },
            HeadSlots {
                pages: &[1, 3],
                len,
            },
        ]
    };
    sound_call(|store, args| {
        let in_use = heads(9);
        let args = AttendArgs {
            heads: &in_use,
            ..args
        };
        let error = attend(store, &args).expect_err("a page that is not there");
        assert_eq!(
            error,
            KernelError::PageOutOfRange {
                index: 1,
                page: 3,
                pages: 3
            }
        );
    });
    sound_call(|store, args| {
        let in_reserve = heads(8);
        let args = AttendArgs {
            heads: &in_reserve,
            ..args
        };
        assert!(attend(store, &args).is_ok(), "pages in reserve are ignored");
    });
}

#[test]
fn scale_out_of_range() {
    for scale in [f32::INFINITY, f32::NEG_INFINITY] {
        let error = refused_attend(|args| args.scale = scale);
        assert_eq!(error, KernelError::ScaleOutOfRange { scale });
        assert_says(&error, &[&scale.to_string()]);
    }
    let error = refused_attend(|args| args.scale = f32::NAN);
    assert!(matches!(error, KernelError::ScaleOutOfRange { scale } if scale.is_nan()));
}

#[test]
fn softcap_out_of_range() {
    for softcap in [0.0, -1.0, f32::INFINITY] {
        let error = refused_attend(|args| args.softcap = Some(softcap));
        assert_eq!(error, KernelError::SoftcapOutOfRange { softcap });
        assert_says(&error, &[&softcap.to_string(), "None"]);
    }
    let error = refused_attend(|args| args.softcap = Some(f32::NAN));
    assert!(matches!(error, KernelError::SoftcapOutOfRange { softcap } if softcap.is_nan()));
}
