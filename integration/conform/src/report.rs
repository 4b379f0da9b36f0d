//! What came out, for people and for exit codes.
use std::fmt;

/// How a case came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The same tokens in every head; the newest, which a host always keeps, may stand in place of the lowest score.
    Equal,
    /// Other tokens.
    Differs,
    /// Other tokens, but both answers are right: the scores at the cut are the same but for rounding.
    Tied,
    /// There was nothing to compare.
    Unsupported,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Equal => "equal",
            Self::Differs => "differs",
            Self::Tied => "tied",
            Self::Unsupported => "unsupported",
        })
    }
}

/// One case and how it came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The case's name in its file.
    pub id: String,
    /// The method, as the file writes it.
    pub method: String,
    /// Whose code made it.
    pub source: String,
    /// How it came out.
    pub verdict: Verdict,
    /// Why, in a sentence; may be empty where the verdict says it all.
    pub detail: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            method,
            source,
            verdict,
            detail,
        } = self;
        write!(f, "{verdict:<11} {id:>3} {method} [{source}]")?;
        if !detail.is_empty() {
            write!(f, ": {detail}")?;
        }
        Ok(())
    }
}

/// All cases of a file, in its order. Displayed as a line for each, and a summary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// One for each case.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// How many cases came out so.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        let same = |outcome: &&Outcome| outcome.verdict == verdict;
        self.outcomes.iter().filter(same).count()
    }

    /// Cases in which we keep the same tokens.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.count(Verdict::Equal)
    }

    /// Cases in which we keep others.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.count(Verdict::Differs)
    }

    /// Cases that say nothing about us: ties, and those that were not run.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.count(Verdict::Tied) + self.count(Verdict::Unsupported)
    }

    /// Whether no case failed.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.failed() == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for outcome in &self.outcomes {
            writeln!(f, "{outcome}")?;
        }
        let (passed, failed, skipped) = (self.passed(), self.failed(), self.skipped());
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(verdict: Verdict, detail: &str) -> Outcome {
        Outcome {
            id: "7".into(),
            method: "snapkv(w=8,k=5)".into(),
            source: "kvpress 0.5.5".into(),
            verdict,
            detail: detail.into(),
        }
    }

    #[test]
    fn a_line_for_each_case_and_a_summary() {
        let outcomes = vec![
            outcome(Verdict::Equal, ""),
            outcome(Verdict::Tied, "why"),
            outcome(Verdict::Unsupported, "no policy for it"),
        ];
        let mut report = Report { outcomes };
        assert!(report.is_ok());
        assert_eq!(
            report.to_string(),
            "equal         7 snapkv(w=8,k=5) [kvpress 0.5.5]\n\
             tied          7 snapkv(w=8,k=5) [kvpress 0.5.5]: why\n\
             unsupported   7 snapkv(w=8,k=5) [kvpress 0.5.5]: no policy for it\n\
             1 passed, 0 failed, 2 skipped"
        );
        report.outcomes.push(outcome(Verdict::Differs, "why"));
        assert!(!report.is_ok());
    }
}
