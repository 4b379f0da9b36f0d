//! Totals over checks and tests.

use std::{fmt, process::Command};

use anyhow::Result;

use crate::process;

/// How many checks and tests passed, failed and were left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    pub(crate) const PASSED: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
    };
    pub(crate) const FAILED: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };
    pub(crate) const SKIPPED: Self = Self {
        passed: 0,
        failed: 0,
        skipped: 1,
    };

    /// Runs tests to the end, counts them, and says whether cargo was content: tests that do not compile are not counted.
    pub(crate) fn of_tests(command: &mut Command) -> Result<(Self, bool)> {
        let mut tally = Self::default();
        let succeeded = process::run_lines(command, |line| {
            if let Some(more) = Self::of_line(line) {
                tally += more;
            }
        })?;
        Ok((tally, succeeded))
    }

    /// Reads a test program's last line: `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; ...`.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let (_, counts) = line
            .trim_start()
            .strip_prefix("test result: ")?
            .split_once(". ")?;
        let count = |word: &str| {
            let mut parts = counts.split(';').map(str::trim);
            parts.find_map(|part| part.strip_suffix(word)?.trim_end().parse().ok())
        };
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            skipped: count("ignored")?,
        })
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_test_runners_lines() {
        let mut total = Tally::default();
        let output = "running 3 tests\n\
             test a ... ok\n\
             test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
             test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.20s\n\
             the test result: ok. 9 passed was not a summary\n\
             test result: ok. no counts here";
        for tally in output.lines().filter_map(Tally::of_line) {
            total += tally;
        }
        assert_eq!(
            total,
            Tally {
                passed: 15,
                failed: 2,
                skipped: 1
            }
        );
        assert_eq!(total.to_string(), "15 passed, 2 failed, 1 skipped");
    }
}
