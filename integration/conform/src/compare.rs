//! Two sets of tokens, and what is said about them.
use std::fmt::Write as _;

use crate::{
    case::Case,
    report::{Outcome, Verdict},
};

/// Positions that are listed before it becomes too many.
const LISTED: usize = 6;

/// A verdict and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) verdict: Verdict,
    pub(crate) detail: String,
}

impl Finding {
    pub(crate) fn unsupported(reason: String) -> Self {
        Self {
            verdict: Verdict::Unsupported,
            detail: reason,
        }
    }

    pub(crate) fn outcome(self, case: &Case) -> Outcome {
        Outcome {
            id: case.id(),
            method: case.method.clone(),
            source: case.source.clone(),
            verdict: self.verdict,
            detail: self.detail,
        }
    }
}

/// What has been compared so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Heads, or heads after a step.
    rows: usize,
    tied: usize,
    /// Bits of the mask that differ in tied rows.
    tied_bits: usize,
    differing: usize,
    first: Option<String>,
    /// Rows of a reference that drops the newest token.
    without_newest: usize,
    layers: usize,
}

impl Tally {
    /// Counts a layer, after a step where there are steps. `is_tie` is asked whether other rows than ours are as right.
    pub(crate) fn add(
        &mut self,
        place: &str,
        ours: &[Vec<u32>],
        theirs: &[Vec<u32>],
        is_tie: impl Fn(&[Vec<u32>]) -> bool,
    ) {
        self.rows += ours.len();
        let differing: Vec<usize> = (0..ours.len()).filter(|&i| ours[i] != theirs[i]).collect();
        if differing.is_empty() {
            return;
        }
        if is_tie(theirs) {
            self.tied += differing.len();
            let bits = |&head: &usize| {
                let (ours, theirs) = (&ours[head], &theirs[head]);
                only(ours, theirs).len() + only(theirs, ours).len()
            };
            self.tied_bits += differing.iter().map(bits).sum::<usize>();
            return;
        }
        // Some of the rows may be ties all the same: those are not to blame.
        let is_to_blame = |&head: &usize| {
            let mut alone = ours.to_vec();
            alone[head].clone_from(&theirs[head]);
            !is_tie(&alone)
        };
        let to_blame: Vec<usize> = differing.iter().copied().filter(is_to_blame).collect();
        let head = *to_blame.first().unwrap_or(&differing[0]);
        self.differing += to_blame.len().max(1);
        let say = || {
            format!(
                "{place}, head {head}: {}",
                differences(&ours[head], &theirs[head])
            )
        };
        self.first.get_or_insert_with(say);
    }

    /// Notes that a layer was compared.
    pub(crate) fn add_layer(&mut self) {
        self.layers += 1;
    }

    /// Notes rows of a reference that does not keep the newest token, which a host does.
    pub(crate) fn note_newest(&mut self, theirs: &[Vec<u32>], tokens: usize) {
        let newest = tokens.checked_sub(1).and_then(|n| u32::try_from(n).ok());
        let drops = |row: &&Vec<u32>| row.last().copied() != newest;
        self.without_newest += theirs.iter().filter(drops).count();
    }

    /// The verdict on a case whose mask has so many layers.
    pub(crate) fn finding(self, case: &Case, layers: usize) -> Finding {
        if self.layers == 0 {
            return Finding::unsupported("none of its layers has arrays".into());
        }
        let Self {
            rows,
            tied,
            differing,
            ..
        } = self;
        let mut remarks = Vec::new();
        let verdict = if let Some(first) = &self.first {
            remarks.push(format!("{first}; {differing} of {rows} rows differ"));
            Verdict::Differs
        } else if tied > 0 {
            remarks.push(format!(
                "{} bits differ, in {tied} of {rows} rows, where the scores at the cut are equal within 1e-5{}",
                self.tied_bits,
                evidence(case)
            ));
            Verdict::Tied
        } else {
            Verdict::Equal
        };
        if self.layers < layers {
            remarks.push(format!(
                "{} of {layers} layers compared: the others have no arrays",
                self.layers
            ));
        }
        if self.without_newest > 0 {
            remarks.push(format!(
                "a host keeps the newest token besides in {} rows",
                self.without_newest
            ));
        }
        Finding {
            verdict,
            detail: remarks.join("; "),
        }
    }
}

/// What the case file itself says about ties.
fn evidence(case: &Case) -> String {
    let mut text = String::new();
    if let Some(margin) = case.min_margin_kept_minus_evicted {
        // Writing to a string does not fail.
        let _ = write!(text, "; the reference's own scores are {margin:e} apart");
    }
    if let Some(bits) = case.numpy_stable_mismatch_bits.filter(|&bits| bits > 0) {
        let _ = write!(
            text,
            "; another implementation that breaks ties in order differs in {bits} bits"
        );
    }
    text
}

/// What is in `tokens` and not in `others`; both ascend.
fn only(tokens: &[u32], others: &[u32]) -> Vec<u32> {
    let missing = |token: &u32| others.binary_search(token).is_err();
    tokens.iter().copied().filter(missing).collect()
}

fn differences(ours: &[u32], theirs: &[u32]) -> String {
    let (extra, missing) = (only(ours, theirs), only(theirs, ours));
    format!(
        "we keep {} tokens, the reference {}; only we {}; only it {}",
        ours.len(),
        theirs.len(),
        listed(&extra),
        listed(&missing)
    )
}

fn listed(tokens: &[u32]) -> String {
    if tokens.is_empty() {
        return "none".into();
    }
    let shown = tokens.iter().take(LISTED).map(ToString::to_string);
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if tokens.len() > LISTED {
        let _ = write!(text, " and {} more", tokens.len() - LISTED);
    }
    text
}
