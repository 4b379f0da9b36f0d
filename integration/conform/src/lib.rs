//! Compares what our policies and kernels keep with what other people's code keeps of the same queries and keys.
//!
//! A *case* is one run of somebody else's code: a method, its parameters, and a mask of the positions that it kept, for every
//! layer and head. Cases come in a JSON file, masks and tensors in an `.npz` file next to it. [`run`] does for each case
//! what the engine would do: it translates the case to a policy and its configuration, binds the policy, observes the prompt with the
//! real kernels, asks for a plan, and compares. H2O's cases that go on for many steps are driven through a ledger and a page
//! store, step by step.
//!
//! # The arrays
//!
//! Queries and keys are `f32`, after `RoPE`, either stacked as `q [L, H * G, T, D]` and `k [L, H, T, D]`, or one pair per layer, `L0_q [H * G,
//! T, D]` and `L0_k [H, T, D]`, for some layers or all. A mask is `u8`, bits along the text, most significant first: `[L, H, ceil(T / 8)]`, or
//! `[L, steps, H, ceil(T / 8)]` for a case with steps. A case of the granularity `query_head` is one of `H * G` heads with a query head
//! each. Layers without arrays are left out, unless the policy observes nothing.
//!
//! # Verdicts
//!
//! | verdict | what it means | counts as |
//! |---|---|---|
//! | [`Verdict::Equal`] | the same tokens in every head | passed |
//! | [`Verdict::Differs`] | other tokens | failed |
//! | [`Verdict::Tied`] | other tokens, and both sets are right | skipped |
//! | [`Verdict::Unsupported`] | there is nothing to compare | skipped |
//!
//! A tie has to be shown: raise the score of every token that the reference keeps, and lower that of every other, by at most 5e-6 of
//! itself, and the policy has to keep just what the reference keeps. So the reference's answer is the policy's own for
//! scores that differ from ours by no more than rounding does.
//!
//! What is compared is the plan alone. A host also keeps the newest token, whatever the plan says; where a reference does not, the
//! outcome says so.
#![forbid(unsafe_code)]

mod arrays;
mod bound;
mod case;
mod compare;
mod error;
mod job;
mod mask;
mod npy;
mod npz;
mod prompt;
mod report;
mod steps;
#[cfg(test)]
mod tests;
mod tie;
mod translate;

use std::path::Path;

use kv_core::Registry;

use arrays::Arrays;
use bound::Bound;
use case::{Case, CaseFile};
use compare::Finding;
use error::Stop;
use job::Course;
use mask::Mask;

pub use error::ConformError;
pub use report::{Outcome, Report, Verdict};

/// Runs every case of the file `cases` on the tensors in the file `arrays`, with the policies of `registry`.
///
/// A case that a policy refuses, or that no policy does, is [`Verdict::Unsupported`] and no error.
///
/// # Errors
///
/// [`ConformError`]: a file that cannot be read, or that does not hold what it should.
pub fn run(registry: &Registry, cases: &Path, arrays: &Path) -> Result<Report, ConformError> {
    let file = CaseFile::read(cases)?;
    let arrays = Arrays::open(arrays)?;
    let outcomes = file.cases.iter().map(|case| {
        let finding = match check(registry, case, &arrays) {
            Ok(finding) => finding,
            Err(Stop::Unsupported(reason)) => Finding::unsupported(reason),
            Err(Stop::Error(error)) => return Err(error.in_case(cases, &case.id())),
        };
        Ok(finding.outcome(case))
    });
    let outcomes = outcomes.collect::<Result<_, _>>()?;
    Ok(Report { outcomes })
}

fn check(registry: &Registry, case: &Case, arrays: &Arrays) -> Result<Finding, Stop> {
    let job = translate::translate(case)?;
    let mask = Mask::read(case, arrays)?;
    let bound = Bound::new(registry, case, &job, &mask, arrays)?;
    match job.course {
        Course::Prompt => prompt::check(case, &bound, &mask, arrays),
        Course::Steps { prefill } => steps::check(case, &bound, &mask, prefill, arrays),
    }
}
