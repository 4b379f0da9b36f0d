//! The ops that change pages: [`write()`] brings rows in, [`copy_rows`] moves them between slots.
//!
//! Both check every entry before they touch the first, so a refused call leaves the store as it was.

use half::{bf16, f16};
use kv_core::{Address, Move};

use crate::store::MemoryMut;
use crate::{Element, KernelError, PageLayout, PageStore};

/// What [`write()`] writes, and where.
#[derive(Clone, Copy, Debug)]
pub struct WriteArgs<'a> {
    /// Rows of keys, row-major, `D` each, after `RoPE`.
    pub keys: &'a [f32],
    /// Rows of values, as many as rows of keys.
    pub values: &'a [f32],
    /// Which rows go where. Rows that no entry names are not written; a row may be named more than once.
    pub rows: &'a [RowWrite],
}

/// One token to write: key and value row `source` go to `offset` of `page`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowWrite {
    /// Row of [`WriteArgs::keys`] and [`WriteArgs::values`].
    pub source: usize,
    /// Page to write into.
    pub page: u32,
    /// Place in the page, below `B`.
    pub offset: u32,
}

impl RowWrite {
    /// Row `source` to the address that the ledger gave its token.
    #[must_use]
    pub const fn at(source: usize, address: Address) -> Self {
        Self {
            source,
            page: address.page().0,
            offset: address.offset(),
        }
    }
}

/// One token to move from a slot to another of the same store. The slot it leaves keeps its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CopyRow {
    /// Page to read.
    pub from_page: u32,
    /// Place in the page to read, below `B`.
    pub from_offset: u32,
    /// Page to write.
    pub to_page: u32,
    /// Place in the page to write, below `B`.
    pub to_offset: u32,
}

impl CopyRow {
    /// What the ledger says has moved.
    #[must_use]
    pub const fn of(step: &Move) -> Self {
        let (from_page, from_offset) = step.from;
        Self {
            from_page: from_page.0,
            from_offset,
            to_page: step.to.page().0,
            to_offset: step.to.offset(),
        }
    }
}

/// Writes rows of keys and values into slots, in the order of [`WriteArgs::rows`]: of two entries that name the same slot the
/// later one stays. Stores of 16-bit numbers round to nearest, ties to even.
///
/// ```
/// use attention_kernels::{KvDtype, PageLayout, PageStore, RowWrite, WriteArgs, write};
///
/// let mut store = PageStore::new(PageLayout::new(16, 2)?, KvDtype::F32, 4)?;
/// let args = WriteArgs {
///     keys: &[1.0, 2.0, 3.0, 4.0],
///     values: &[5.0, 6.0, 7.0, 8.0],
///     rows: &[RowWrite { source: 1, page: 3, offset: 7 }],
/// };
/// write(&mut store, &args)?;
/// assert_eq!(store.read_key(3, 7), [3.0, 4.0]);
/// assert_eq!(store.read_value(3, 7), [7.0, 8.0]);
/// # Ok::<(), attention_kernels::KernelError>(())
/// ```
///
/// # Errors
///
/// [`KernelError::KeysValuesDiffer`], [`KernelError::RowsNotWhole`], [`KernelError::RowOutOfRange`],
/// [`KernelError::PageOutOfRange`], [`KernelError::OffsetOutOfRange`]. Nothing is written then.
pub fn write(store: &mut PageStore, args: &WriteArgs<'_>) -> Result<(), KernelError> {
    check(store, args)?;
    let layout = store.layout();
    match store.memory_mut() {
        MemoryMut::F32(memory) => write_rows::<f32>(memory, layout, args),
        MemoryMut::F16(memory) => write_rows::<f16>(memory, layout, args),
        MemoryMut::Bf16(memory) => write_rows::<bf16>(memory, layout, args),
    }
    Ok(())
}

/// Copies rows between slots of one store, bit for bit and **in order**: an entry reads what the entries before it wrote.
///
/// Compaction towards the front of a table is safe in the order of the target slots; a swap is not one of the things a list of
/// copies can say without a spare slot.
///
/// ```
/// use attention_kernels::{CopyRow, KvDtype, PageLayout, PageStore, copy_rows};
///
/// let mut store = PageStore::new(PageLayout::new(16, 64)?, KvDtype::F32, 4)?;
/// copy_rows(&mut store, &[CopyRow { from_page: 2, from_offset: 9, to_page: 0, to_offset: 3 }])?;
/// # Ok::<(), attention_kernels::KernelError>(())
/// ```
///
/// # Errors
///
/// [`KernelError::PageOutOfRange`], [`KernelError::OffsetOutOfRange`]. Nothing is copied then.
pub fn copy_rows(store: &mut PageStore, rows: &[CopyRow]) -> Result<(), KernelError> {
    for (index, row) in rows.iter().enumerate() {
        store.check_slot(index, row.from_page, row.from_offset)?;
        store.check_slot(index, row.to_page, row.to_offset)?;
    }
    let layout = store.layout();
    match store.memory_mut() {
        MemoryMut::F32(memory) => move_rows(memory, layout, rows),
        MemoryMut::F16(memory) => move_rows(memory, layout, rows),
        MemoryMut::Bf16(memory) => move_rows(memory, layout, rows),
    }
    Ok(())
}

fn check(store: &PageStore, args: &WriteArgs<'_>) -> Result<(), KernelError> {
    let (keys, values) = (args.keys.len(), args.values.len());
    if keys != values {
        return Err(KernelError::KeysValuesDiffer { keys, values });
    }
    let head_dim = store.layout().head_dim();
    if keys % head_dim != 0 {
        return Err(KernelError::RowsNotWhole {
            elements: keys,
            head_dim,
        });
    }
    let rows = keys / head_dim;
    for (index, row) in args.rows.iter().enumerate() {
        if row.source >= rows {
            return Err(KernelError::RowOutOfRange {
                index,
                row: row.source,
                rows,
            });
        }
        store.check_slot(index, row.page, row.offset)?;
    }
    Ok(())
}

fn write_rows<E: Element>(memory: &mut [E], layout: PageLayout, args: &WriteArgs<'_>) {
    let head_dim = layout.head_dim();
    for row in args.rows {
        let source = row.source * head_dim..(row.source + 1) * head_dim;
        let key = layout.key_row(row.page, row.offset);
        let value = layout.value_row(row.page, row.offset);
        E::narrow(&args.keys[source.clone()], &mut memory[key]);
        E::narrow(&args.values[source], &mut memory[value]);
    }
}

fn move_rows<E: Element>(memory: &mut [E], layout: PageLayout, rows: &[CopyRow]) {
    for row in rows {
        let from = layout.key_row(row.from_page, row.from_offset);
        let to = layout.key_row(row.to_page, row.to_offset);
        memory.copy_within(from, to.start);
        let from = layout.value_row(row.from_page, row.from_offset);
        let to = layout.value_row(row.to_page, row.to_offset);
        memory.copy_within(from, to.start);
    }
}
