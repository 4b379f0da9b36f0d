//! The op that turns keys: [`shift()`] moves them from the position that they were written at to another.
//!
//! `RoPE` turns each pair of a key's elements by an angle in proportion to its position. So a key that has been turned for position `p`
//! becomes that of position `p + d` by a further turn for `d`, whatever `p` is; its value has no position. A cache whose positions
//! count tokens held instead of tokens read needs this: where `E` tokens went between the attention sinks and the recent ones, the
//! sinks move forward by `E`, and every distance is what it would be in a text without the `E` tokens.
//!
//! Every turn rounds the key once more. A host that turns the same keys again and again should write them anew from a copy of
//! their first state from time to time, or turn them seldom.

use std::collections::HashSet;

use half::{bf16, f16};

use crate::store::MemoryMut;
use crate::{Element, KernelError, PageLayout, PageStore};

/// What [`shift()`] turns, and how far.
#[derive(Clone, Copy, Debug)]
pub struct ShiftArgs<'a> {
    /// The keys to turn, none of them twice.
    pub rows: &'a [RowShift],
    /// `[P, R / 2]`, row-major: the cosines of the angles of positions `0..P`. The model's own table, where it is one of plain cosines;
    /// a factor on them, as some extensions of the context have, would be applied to the key a second time.
    pub cos: &'a [f32],
    /// `[P, R / 2]`: the sines.
    pub sin: &'a [f32],
    /// `R`, elements of a key that are turned, the first ones of its `D`. Even.
    pub rotary_dim: usize,
    /// Which of them make pairs.
    pub style: RopeStyle,
}

/// One key to turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowShift {
    /// Page of the key.
    pub page: u32,
    /// Place in the page, below `B`.
    pub offset: u32,
    /// Positions to move the key by. Where it comes from is in the key itself.
    pub by: i32,
}

/// Which elements of a key `RoPE` turns together. Pair `i` has the angle of column `i` of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeStyle {
    /// Pair `i` is elements `i` and `i + R / 2`, as in GPT-NeoX and Llama.
    Halves,
    /// Pair `i` is elements `2 * i` and `2 * i + 1`, as in GPT-J.
    Interleaved,
}

impl RopeStyle {
    /// The elements of pair `pair` of `R`.
    const fn elements(self, pair: usize, rotary_dim: usize) -> (usize, usize) {
        match self {
            Self::Halves => (pair, pair + rotary_dim / 2),
            Self::Interleaved => (2 * pair, 2 * pair + 1),
        }
    }
}

/// Turns keys by the angles of [`RowShift::by`] positions, backwards where it is negative. Values, the elements of a key from `R` on,
/// and keys that move by 0 keep every bit. What is computed is defined by [`oracle::shift`](crate::oracle::shift), which also says
/// how close the result is; the bits of a key depend on itself, on `by` and on the tables' row for it.
///
/// A number that is not finite in a key or in the tables makes the elements of its pair unspecified and touches nothing else.
///
/// ```
/// use attention_kernels::{
///     KvDtype, PageLayout, PageStore, RopeStyle, RowShift, RowWrite, ShiftArgs, WriteArgs, shift, write,
/// };
///
/// let mut store = PageStore::new(PageLayout::new(16, 2)?, KvDtype::F32, 1)?;
/// let rows = [RowWrite { source: 0, page: 0, offset: 3 }];
/// write(&mut store, &WriteArgs { keys: &[1.0, 2.0], values: &[5.0, 6.0], rows: &rows })?;
///
/// // One pair, turned by a quarter per position.
/// let args = ShiftArgs {
///     rows: &[RowShift { page: 0, offset: 3, by: -1 }],
///     cos: &[1.0, 0.0, -1.0],
///     sin: &[0.0, 1.0, 0.0],
///     rotary_dim: 2,
///     style: RopeStyle::Halves,
/// };
/// shift(&mut store, &args)?;
/// assert_eq!(store.read_key(0, 3), [2.0, -1.0]);
/// assert_eq!(store.read_value(0, 3), [5.0, 6.0]);
/// # Ok::<(), attention_kernels::KernelError>(())
/// ```
///
/// # Errors
///
/// [`KernelError::RotaryDimOutOfRange`], [`KernelError::AngleTables`], [`KernelError::PageOutOfRange`],
/// [`KernelError::OffsetOutOfRange`], [`KernelError::ShiftOutOfRange`], [`KernelError::ShiftedTwice`]. Nothing is turned then.
pub fn shift(store: &mut PageStore, args: &ShiftArgs<'_>) -> Result<(), KernelError> {
    args.check(store.layout(), store.pages())?;
    let layout = store.layout();
    match store.memory_mut() {
        MemoryMut::F32(memory) => turn_rows::<f32>(memory, layout, args),
        MemoryMut::F16(memory) => turn_rows::<f16>(memory, layout, args),
        MemoryMut::Bf16(memory) => turn_rows::<bf16>(memory, layout, args),
    }
    Ok(())
}

impl ShiftArgs<'_> {
    /// Refuses what a store of `pages` pages of `layout` cannot turn.
    pub(crate) fn check(&self, layout: PageLayout, pages: usize) -> Result<(), KernelError> {
        let (head_dim, rotary_dim) = (layout.head_dim(), self.rotary_dim);
        if rotary_dim == 0 || rotary_dim > head_dim || !rotary_dim.is_multiple_of(2) {
            return Err(KernelError::RotaryDimOutOfRange {
                rotary_dim,
                head_dim,
            });
        }
        let (cos, sin, pairs) = (self.cos.len(), self.sin.len(), rotary_dim / 2);
        if cos != sin || !cos.is_multiple_of(pairs) {
            return Err(KernelError::AngleTables { cos, sin, pairs });
        }
        let positions = cos / pairs;
        let mut seen = HashSet::with_capacity(self.rows.len());
        for (index, &RowShift { page, offset, by }) in self.rows.iter().enumerate() {
            layout.check_slot(pages, index, page, offset)?;
            if by.unsigned_abs() as usize >= positions {
                return Err(KernelError::ShiftOutOfRange {
                    index,
                    by,
                    positions,
                });
            }
            if !seen.insert((page, offset)) {
                return Err(KernelError::ShiftedTwice {
                    index,
                    page,
                    offset,
                });
            }
        }
        Ok(())
    }
}

fn turn_rows<E: Element>(memory: &mut [E], layout: PageLayout, args: &ShiftArgs<'_>) {
    let rotary_dim = args.rotary_dim;
    let mut numbers = vec![0.0; rotary_dim];
    for row in args.rows.iter().filter(|row| row.by != 0) {
        let key = &mut memory[layout.key_row(row.page, row.offset)][..rotary_dim];
        E::widen(key, &mut numbers);
        turn(&mut numbers, row.by, args);
        E::narrow(&numbers, key);
    }
}

/// Turns the pairs of `key` (`R`).
fn turn(key: &mut [f32], by: i32, args: &ShiftArgs<'_>) {
    let pairs = key.len() / 2;
    let angles = by.unsigned_abs() as usize * pairs..(by.unsigned_abs() as usize + 1) * pairs;
    let sign = if by < 0 { -1.0 } else { 1.0 };
    let angles = args.cos[angles.clone()].iter().zip(&args.sin[angles]);
    for (pair, (cos, sin)) in angles.enumerate() {
        let (first, second) = args.style.elements(pair, args.rotary_dim);
        let (a, b, sin) = (key[first], key[second], sign * sin);
        key[first] = a * cos - b * sin;
        key[second] = a * sin + b * cos;
    }
}
