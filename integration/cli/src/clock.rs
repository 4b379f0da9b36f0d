//! How long something that is done piece by piece still takes.
use std::time::{Duration, Instant};

/// Runs from the first piece on.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    pieces: usize,
}

impl Clock {
    /// Starts, with so many pieces to do.
    pub(crate) fn start(pieces: usize) -> Self {
        Self {
            start: Instant::now(),
            pieces,
        }
    }

    /// About how long the rest takes when `done` pieces are done; before the first nobody knows.
    pub(crate) fn left(&self, done: usize) -> Option<Duration> {
        let took = self.start.elapsed();
        let rest = u32::try_from(self.pieces - done).unwrap_or(u32::MAX);
        let done = u32::try_from(done).ok().filter(|&done| done > 0)?;
        Some(took / done * rest)
    }
}

/// A time in words, in seconds or minutes.
pub(crate) fn short(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=90 => format!("{seconds} s"),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}
