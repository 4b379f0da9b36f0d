//! How long work shows itself: a bar on a terminal, a plain line now and then elsewhere.

use std::{
    env,
    io::{IsTerminal, stderr},
    panic::resume_unwind,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

const BETWEEN_LINES: Duration = Duration::from_secs(10);

static NO_BARS: AtomicBool = AtomicBool::new(false);

/// Plain lines from now on, even on a terminal.
pub(crate) fn no_bars() {
    NO_BARS.store(true, Ordering::Relaxed);
}

/// Does the work on another thread and shows meanwhile that it goes on.
pub(crate) fn shown<T: Send>(what: &str, work: impl FnOnce() -> T + Send) -> T {
    let mut progress = Progress::open_ended(what);
    thread::scope(|scope| {
        let work = scope.spawn(work);
        while !work.is_finished() {
            thread::sleep(Duration::from_millis(50));
            progress.tick();
        }
        work.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Progress of one piece of work; call [`tick`](Self::tick) or [`advance`](Self::advance) often.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    total: Option<u64>,
    done: u64,
    started: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Work that ends after `total` bytes.
    pub(crate) fn bytes(what: &str, total: u64) -> Self {
        let style = "{msg} [{bar:32}] {bytes}/{total_bytes} {elapsed}";
        Self::new(what, Some(total), ProgressBar::new(total), style)
    }

    /// Work of unknown length.
    pub(crate) fn open_ended(what: &str) -> Self {
        Self::new(
            what,
            None,
            ProgressBar::new_spinner(),
            "{spinner} {msg} {elapsed}",
        )
    }

    fn new(what: &str, total: Option<u64>, bar: ProgressBar, style: &str) -> Self {
        let plain = NO_BARS.load(Ordering::Relaxed)
            || env::var_os("CI").is_some()
            || !stderr().is_terminal();
        let bar = (!plain).then(|| {
            bar.set_style(
                ProgressStyle::with_template(style)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar.with_message(what.to_owned())
        });
        let now = Instant::now();
        if bar.is_none() {
            println!("{what}");
        }
        Self {
            what: what.to_owned(),
            total,
            done: 0,
            started: now,
            last_line: now,
            bar,
        }
    }

    pub(crate) fn advance(&mut self, by: u64) {
        self.done += by;
        self.tick();
    }

    pub(crate) fn tick(&mut self) {
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
            bar.tick();
        } else if self.last_line.elapsed() >= BETWEEN_LINES {
            self.last_line = Instant::now();
            println!("{}", self.line());
        }
    }

    fn line(&self) -> String {
        let seconds = self.started.elapsed().as_secs();
        match self.total {
            Some(total) => format!(
                "{}: {} of {}, {seconds} s",
                self.what,
                HumanBytes(self.done),
                HumanBytes(total)
            ),
            None => format!("{}: still at it after {seconds} s", self.what),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_line_says_how_far() {
        no_bars();
        let mut progress = Progress::bytes("unpacking", 4 << 20);
        progress.advance(1 << 20);
        assert_eq!(progress.line(), "unpacking: 1.00 MiB of 4.00 MiB, 0 s");
        assert!(
            Progress::open_ended("waiting")
                .line()
                .starts_with("waiting: still at it")
        );
    }
}
