//! What a store costs.

use attention_kernels::{KvDtype, PageLayout, PageStore};

use crate::world::DTYPES;

#[test]
fn sizes_and_debug() {
    let layout = PageLayout::new(16, 64).expect("a layout");
    for (dtype, bytes) in DTYPES.into_iter().zip([8192, 4096, 4096]) {
        let store = PageStore::new(layout, dtype, 5).expect("a small store");
        assert_eq!((store.layout(), store.dtype()), (layout, dtype));
        assert_eq!((store.pages(), store.len()), (5, 5 * 2048));
        assert_eq!(store.bytes(), 5 * bytes);
        assert!(!store.is_empty());
        // A store is logged as what it is; its numbers would be megabytes.
        let debug = format!("{store:?}");
        assert!(debug.contains("pages: 5") && debug.len() < 200, "{debug}");
    }
    let empty = PageStore::new(layout, KvDtype::F32, 0).expect("a store of nothing");
    assert!(empty.is_empty() && empty.bytes() == 0);
}

#[test]
#[should_panic(expected = "page 5 of a store of 5 pages")]
fn reading_a_page_that_is_not_there_panics() {
    let layout = PageLayout::new(16, 64).expect("a layout");
    let store = PageStore::new(layout, KvDtype::F32, 5).expect("a small store");
    let _ = store.read_value(5, 0);
}

/// Pages that nobody wrote cost no memory, in any element type.
#[cfg(target_os = "linux")]
#[test]
fn untouched_pages_are_not_resident() {
    fn resident_bytes() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").expect("a process has a status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        let kib: usize = kib.and_then(|kib| kib.parse().ok()).expect("VmRSS in kB");
        kib * 1024
    }
    const GIB: usize = 1 << 30;
    let layout = PageLayout::new(16, 64).expect("a layout");
    for dtype in DTYPES {
        let before = resident_bytes();
        let pages = GIB / layout.bytes_per_page(dtype);
        let store = PageStore::new(layout, dtype, pages).expect("a gibibyte of address space");
        let grown = resident_bytes().saturating_sub(before);
        assert_eq!(store.bytes(), GIB);
        // Other tests run beside this one; they stay far below.
        assert!(grown < GIB / 4, "{dtype}: {grown} bytes became resident");
    }
}
