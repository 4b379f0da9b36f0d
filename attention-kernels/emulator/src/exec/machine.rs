//! What all blocks of a launch share.

use super::order::Signals;
use super::shadow::{Clock, Conflict, Shadow, Shared};
use super::{Launch, Options, Stats, dynamic_start};
use crate::error::{AccessKind, Fault, FaultKind};
use crate::memory::Memory;
use crate::program::Program;
use crate::types::Space;

/// The launch cannot go on; the reason is among the faults.
#[derive(Debug)]
pub(super) struct Stop;

/// One launch.
pub(super) struct Machine<'a> {
    pub(super) program: &'a Program,
    pub(super) memory: &'a mut Memory,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    pub(super) options: &'a Options,
    pub(super) params: Vec<u8>,
    pub(super) stats: Stats,
    pub(super) shadow: Shadow,
    pub(super) shared: Shared,
    pub(super) clock: Clock,
    pub(super) signals: Signals,
    /// The block that runs.
    pub(super) current: [u32; 3],
    kernel: &'a str,
    faults: Vec<Fault>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(
        kernel: &'a str,
        program: &'a Program,
        memory: &'a mut Memory,
        launch: &Launch<'_>,
        options: &'a Options,
        params: Vec<u8>,
    ) -> Self {
        let shared = dynamic_start(program) + launch.dynamic_shared;
        let threads = launch.block.iter().product::<u32>() as usize;
        Self {
            program,
            memory,
            grid: launch.grid,
            block: launch.block,
            options,
            params,
            stats: Stats::default(),
            shadow: Shadow::new(program.global_granule),
            shared: Shared::new(shared, program.shared_granule),
            clock: Clock::new(threads.div_ceil(super::LANES)),
            signals: Signals::new(program.fences),
            current: [0; 3],
            kernel,
            faults: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> (Vec<Fault>, Stats) {
        (self.faults, self.stats)
    }

    pub(super) fn threads(&self) -> usize {
        self.block.iter().product::<u32>() as usize
    }

    fn place_of_thread(&self, thread: usize) -> [u32; 3] {
        let [x, y, _] = self.block;
        let thread = thread as u32;
        [thread % x, thread / x % y, thread / (x * y)]
    }

    /// Writes a fault down, once per line and kind. Stops where there are too many.
    #[cold]
    pub(super) fn fault(&mut self, line: u32, thread: usize, kind: FaultKind) -> Result<(), Stop> {
        let same = |fault: &&mut Fault| {
            let kinds = [&fault.kind, &kind].map(std::mem::discriminant);
            fault.line == line && kinds[0] == kinds[1]
        };
        if let Some(known) = self.faults.iter_mut().find(same) {
            known.count += 1;
            return Ok(());
        }
        self.faults.push(Fault {
            kernel: self.kernel.to_owned(),
            line,
            block: self.current,
            thread: self.place_of_thread(thread),
            kind,
            count: 1,
        });
        if self.faults.len() < self.options.max_faults {
            Ok(())
        } else {
            Err(Stop)
        }
    }

    /// Writes a fault down after which nothing can go on.
    #[cold]
    pub(super) fn fatal<T>(
        &mut self,
        line: u32,
        thread: usize,
        kind: FaultKind,
    ) -> Result<T, Stop> {
        self.fault(line, thread, kind).and(Err(Stop))
    }

    #[cold]
    pub(super) fn race(
        &mut self,
        line: u32,
        thread: usize,
        later: AccessKind,
        place: (Space, String, u64),
        conflict: Conflict,
    ) -> Result<(), Stop> {
        let (space, name, offset) = place;
        let other_block = if conflict.time >= self.clock.block_start() {
            let [x, y, z] = self.current.map(u64::from);
            let [width, height, _] = self.grid.map(u64::from);
            x + width * (y + height * z)
        } else {
            self.signals.block_at(conflict.time)
        };
        let kind = FaultKind::Race {
            space,
            name,
            offset,
            earlier: conflict.earlier,
            later,
            other_thread: u32::from(conflict.thread),
            other_block,
        };
        self.fault(line, thread, kind)
    }

    /// The variable that lies at a byte of shared memory, and where in it that is.
    pub(super) fn shared_name(&self, offset: usize) -> (String, u64) {
        let dynamic = dynamic_start(self.program);
        if offset >= dynamic {
            return ("dynamic".to_owned(), (offset - dynamic) as u64);
        }
        let mut names = self.program.shared_names.iter();
        let found = names.rfind(|(start, _)| *start <= offset);
        match found {
            Some((start, name)) => (name.clone(), (offset - start) as u64),
            None => ("static".to_owned(), offset as u64),
        }
    }
}
