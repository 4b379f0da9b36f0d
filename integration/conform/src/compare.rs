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
    /// Rows without the newest token in both, where a host keeps it.
    without_newest: usize,
    /// Rows that differ by the newest token alone, which the plan keeps in place of another.
    for_newest: usize,
    layers: usize,
}

impl Tally {
    /// Counts our rows of a layer and theirs, after a step where there are steps. `is_tie` is asked whether other rows than ours are as
    /// right; `newest` is the token that a host keeps whatever a plan says.
    pub(crate) fn add(
        &mut self,
        place: &str,
        (ours, theirs): (&[Vec<u32>], &[Vec<u32>]),
        newest: Option<u32>,
        is_tie: impl Fn(&[Vec<u32>]) -> bool,
    ) {
        let lacks = |row: &Vec<u32>| newest.is_some() && row.last().copied() != newest;
        let lack = ours
            .iter()
            .zip(theirs)
            .filter(|(a, b)| lacks(a) && lacks(b));
        self.without_newest += lack.count();
        self.rows += ours.len();
        let differing: Vec<usize> = (0..ours.len()).filter(|&i| ours[i] != theirs[i]).collect();
        if differing.is_empty() {
            return;
        }
        if is_tie(theirs) {
            self.add_ties(&differing, ours, theirs, newest);
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

    /// Counts rows of a layer that differ, and are as right as ours. Where we keep nothing more than the newest token, the rest went for
    /// it: in the same head, or in another of those that compete.
    fn add_ties(
        &mut self,
        differing: &[usize],
        ours: &[Vec<u32>],
        theirs: &[Vec<u32>],
        newest: Option<u32>,
    ) {
        let extra: Vec<Vec<u32>> = differing
            .iter()
            .map(|&head| only(&ours[head], &theirs[head]))
            .collect();
        let is_newest = |extra: &[u32]| newest.is_some() && extra.first().copied() == newest;
        let for_newest = extra.iter().any(|extra| is_newest(extra))
            && extra
                .iter()
                .all(|extra| extra.is_empty() || is_newest(extra));
        for (&head, extra) in differing.iter().zip(&extra) {
            if for_newest || is_newest(extra) {
                self.for_newest += 1;
            } else {
                self.tied += 1;
                self.tied_bits += extra.len() + only(&theirs[head], &ours[head]).len();
            }
        }
    }

    /// Notes that a layer was compared.
    pub(crate) fn add_layer(&mut self) {
        self.layers += 1;
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
        if self.for_newest > 0 {
            remarks.push(format!(
                "the plan keeps the newest token in place of the lowest score, in {} rows",
                self.for_newest
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
