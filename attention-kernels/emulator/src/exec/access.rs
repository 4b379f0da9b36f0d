//! Loads and stores.

use super::compute::classify;
use super::machine::{Machine, Stop};
use super::warp::{Warp, lanes};
use super::{LANES, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
use crate::error::{AccessKind, FaultKind};
use crate::memory::Nowhere;
use crate::number::convert::extend;
use crate::op::{Access, Inst, NONE};
use crate::types::Space;

/// Where an access goes, checked: all of its bytes are there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Shared(usize),
    /// In the memory of the warp.
    Local(usize),
    Param(usize),
    Global {
        allocation: usize,
        offset: usize,
    },
}

/// Up to 8 bytes as a number.
#[inline]
pub(super) fn number(bytes: &[u8]) -> u64 {
    match *bytes {
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b] => u64::from(u16::from_le_bytes([a, b])),
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        _ => bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)),
    }
}

/// One lane's access.
#[derive(Clone, Copy)]
pub(super) struct Touch {
    pub(super) line: u32,
    pub(super) thread: usize,
    pub(super) kind: AccessKind,
    /// All elements together.
    pub(super) bytes: usize,
}

impl Machine<'_> {
    /// The bytes that a lane's address names.
    #[inline]
    pub(super) fn place(
        &mut self,
        warp: &Warp,
        inst: &Inst,
        access: Access,
        lane: usize,
        touch: Touch,
    ) -> Result<Place, Stop> {
        let mut address = warp.rows[inst.a as usize][lane].wrapping_add_signed(access.offset);
        let mut space = access.space;
        if space == Space::Generic {
            space = classify(address);
            address = address.wrapping_sub(match space {
                Space::Shared => SHARED_WINDOW,
                Space::Local => LOCAL_WINDOW,
                Space::Param => PARAM_WINDOW,
                _ => 0,
            });
        }
        if address & (touch.bytes as u64 - 1) != 0 {
            return self.misaligned(space, address, touch);
        }
        let room = match space {
            Space::Global | Space::Const => {
                return match self.memory.locate(address, touch.bytes) {
                    Ok((allocation, offset)) => Ok(Place::Global { allocation, offset }),
                    Err(nowhere) => self.nowhere(nowhere, space, address, touch),
                };
            }
            Space::Shared => self.shared.bytes.len(),
            Space::Param => self.params.len(),
            _ => warp.local.len() / LANES,
        };
        // These addresses have 32 bits; what is above them wraps around.
        let offset = address as u32 as usize;
        if offset + touch.bytes > room {
            let what = if space == Space::Shared {
                "a block"
            } else {
                "a thread"
            };
            let near = format!("{what} has {room} bytes");
            return self.out_of_bounds(space, offset as u64, touch, near);
        }
        Ok(match space {
            Space::Shared => Place::Shared(offset),
            Space::Param => Place::Param(offset),
            _ => Place::Local(lane * room + offset),
        })
    }

    #[cold]
    fn misaligned(&mut self, space: Space, address: u64, touch: Touch) -> Result<Place, Stop> {
        let Touch { kind, bytes, .. } = touch;
        let kind = FaultKind::Misaligned {
            space,
            kind,
            address,
            bytes,
        };
        self.fatal(touch.line, touch.thread, kind)
    }

    #[cold]
    fn out_of_bounds(
        &mut self,
        space: Space,
        address: u64,
        touch: Touch,
        near: String,
    ) -> Result<Place, Stop> {
        let kind = FaultKind::OutOfBounds {
            space,
            kind: touch.kind,
            address,
            bytes: touch.bytes,
            near,
        };
        self.fatal(touch.line, touch.thread, kind)
    }

    #[cold]
    fn nowhere(
        &mut self,
        nowhere: Nowhere,
        space: Space,
        address: u64,
        touch: Touch,
    ) -> Result<Place, Stop> {
        match nowhere {
            Nowhere::Outside { near } => self.out_of_bounds(space, address, touch, near),
            Nowhere::Freed { name, offset } => {
                let kind = FaultKind::UseAfterFree {
                    kind: touch.kind,
                    name,
                    offset,
                };
                self.fatal(touch.line, touch.thread, kind)
            }
        }
    }

    /// Everything about an access that depends on what others did.
    #[inline]
    pub(super) fn check(&mut self, place: Place, touch: Touch) -> Result<(), Stop> {
        match place {
            Place::Shared(offset) => self.check_shared(offset, touch),
            Place::Global { allocation, offset } => self.check_global(allocation, offset, touch),
            Place::Param(_) if writes(touch.kind) => {
                let space = Space::Param;
                self.fatal(touch.line, touch.thread, FaultKind::ReadOnly { space })
            }
            Place::Param(_) | Place::Local(_) => Ok(()),
        }
    }

    #[inline]
    fn check_shared(&mut self, offset: usize, touch: Touch) -> Result<(), Stop> {
        let shift = self.shared.shift;
        let reads = touch.kind != AccessKind::Write;
        for cell in offset >> shift..(offset + touch.bytes) >> shift {
            let known = &mut self.shared.cells[cell];
            let unwritten = reads && !known.is_written(&self.clock);
            let thread = touch.thread as u16;
            let conflict = known.touch(&self.clock, thread, touch.kind, |_| false);
            if unwritten {
                let (name, offset) = self.shared_name(cell << shift);
                let kind = FaultKind::Uninitialised {
                    space: Space::Shared,
                    name,
                    offset,
                };
                self.fault(touch.line, touch.thread, kind)?;
            }
            if let Some(conflict) = conflict {
                let (name, offset) = self.shared_name(cell << shift);
                let place = (Space::Shared, name, offset);
                self.race(touch.line, touch.thread, touch.kind, place, conflict)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn check_global(&mut self, index: usize, offset: usize, touch: Touch) -> Result<(), Stop> {
        let allocation = self.memory.allocation(index);
        if touch.kind != AccessKind::Write && !allocation.is_written(offset, touch.bytes) {
            let kind = FaultKind::Uninitialised {
                space: Space::Global,
                name: allocation.name.clone(),
                offset: offset as u64,
            };
            self.fault(touch.line, touch.thread, kind)?;
        }
        if self.memory.allocation(index).read_only {
            if writes(touch.kind) {
                let space = Space::Const;
                return self.fatal(touch.line, touch.thread, FaultKind::ReadOnly { space });
            }
            return Ok(());
        }
        let shift = self.shadow.shift;
        for cell in offset >> shift..(offset + touch.bytes) >> shift {
            let signals = &self.signals;
            let thread = touch.thread as u16;
            let known = self.shadow.cell(index, cell);
            let foreign = |time| signals.unordered(time);
            if let Some(conflict) = known.touch(&self.clock, thread, touch.kind, foreign) {
                let name = self.memory.allocation(index).name.clone();
                let place = (Space::Global, name, (cell << shift) as u64);
                self.race(touch.line, touch.thread, touch.kind, place, conflict)?;
            }
        }
        Ok(())
    }

    pub(super) fn load(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        access: Access,
        mask: u32,
    ) -> Result<(), Stop> {
        let kind = if access.strong {
            AccessKind::StrongRead
        } else {
            AccessKind::Read
        };
        let size = usize::from(access.bytes);
        let bytes = size * usize::from(access.count);
        let list = &self.program.lists[access.list as usize..][..2 * usize::from(access.count)];
        for lane in lanes(mask) {
            let touch = Touch {
                line: inst.line,
                thread: warp.thread(lane),
                kind,
                bytes,
            };
            let place = self.place(warp, inst, access, lane, touch)?;
            self.check(place, touch)?;
            if let Place::Global { .. } = place {
                self.stats.global_bytes_read += bytes as u64;
                if access.strong {
                    self.strong(warp, inst, access, lane, false);
                }
            }
            for (element, target) in list.chunks_exact(2).enumerate() {
                let value = self.value(warp, place, element * size, size);
                if target[0] != NONE {
                    let value = if access.signed {
                        extend(
                            extend(value, access.bytes * 8, true),
                            target[1] as u8,
                            false,
                        )
                    } else {
                        value
                    };
                    warp.rows[target[0] as usize][lane] = value;
                }
            }
        }
        Ok(())
    }

    fn strong(&mut self, warp: &Warp, inst: &Inst, access: Access, lane: usize, writes: bool) {
        let address = warp.rows[inst.a as usize][lane].wrapping_add_signed(access.offset);
        self.signals.strong(address, writes);
    }

    /// `size` bytes, `skip` bytes after a place.
    #[inline]
    pub(super) fn value(&mut self, warp: &Warp, place: Place, skip: usize, size: usize) -> u64 {
        match place {
            Place::Shared(offset) => number(&self.shared.bytes[offset + skip..][..size]),
            Place::Local(offset) => number(&warp.local[offset + skip..][..size]),
            Place::Param(offset) => number(&self.params[offset + skip..][..size]),
            Place::Global { allocation, offset } => {
                number(self.memory.allocation(allocation).read(offset + skip, size))
            }
        }
    }

    #[inline]
    pub(super) fn set_value(
        &mut self,
        warp: &mut Warp,
        place: Place,
        skip: usize,
        (value, size): (u64, usize),
    ) {
        let bytes = &value.to_le_bytes()[..size];
        match place {
            Place::Shared(at) => self.shared.bytes[at + skip..][..size].copy_from_slice(bytes),
            Place::Local(at) => warp.local[at + skip..][..size].copy_from_slice(bytes),
            Place::Param(_) => {}
            Place::Global { allocation, offset } => {
                self.memory
                    .allocation(allocation)
                    .write(offset + skip, bytes);
            }
        }
    }

    pub(super) fn store(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        access: Access,
        mask: u32,
    ) -> Result<(), Stop> {
        let kind = if access.strong {
            AccessKind::StrongWrite
        } else {
            AccessKind::Write
        };
        let size = usize::from(access.bytes);
        let bytes = size * usize::from(access.count);
        let list = &self.program.lists[access.list as usize..][..2 * usize::from(access.count)];
        for lane in lanes(mask) {
            let touch = Touch {
                line: inst.line,
                thread: warp.thread(lane),
                kind,
                bytes,
            };
            let place = self.place(warp, inst, access, lane, touch)?;
            // A strong store does not read, and so may be the first to write.
            if access.strong {
                self.note_first_write(place, bytes);
            }
            self.check(place, touch)?;
            if let Place::Global { .. } = place {
                self.stats.global_bytes_written += bytes as u64;
                if access.strong {
                    self.strong(warp, inst, access, lane, true);
                }
            }
            for (element, source) in list.chunks_exact(2).enumerate() {
                let value = warp.rows[source[0] as usize][lane];
                self.set_value(warp, place, element * size, (value, size));
            }
        }
        Ok(())
    }

    /// Counts bytes as written, for what writes them without reading.
    pub(super) fn note_first_write(&mut self, place: Place, bytes: usize) {
        match place {
            Place::Shared(offset) => {
                let shift = self.shared.shift;
                for cell in offset >> shift..(offset + bytes) >> shift {
                    self.shared.cells[cell].note_written(&self.clock);
                }
            }
            Place::Global { allocation, offset } => {
                self.memory
                    .allocation(allocation)
                    .note_written(offset, bytes);
            }
            Place::Local(_) | Place::Param(_) => {}
        }
    }
}

fn writes(kind: AccessKind) -> bool {
    matches!(kind, AccessKind::Write | AccessKind::StrongWrite)
}
