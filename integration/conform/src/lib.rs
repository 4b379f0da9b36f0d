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
//! Queries, keys and values are `f32`, queries and keys after `RoPE`, either stacked as `q [L, H * G, T, D]`, `k [L, H, T, D]` and `v`, or
//! one of each per layer, `L0_q [H * G, T, D]`, `L0_k [H, T, D]` and `L0_v`, for some layers or all. The output projection is `o_proj_weight
//! [L, M, H * G * D]`, a row for each of the `M` numbers that a layer puts out, or `L0_o_proj_weight`. A mask is `u8`, bits along the text, most
//! significant first: `[L, H, ceil(T / 8)]`, or `[L, steps, H, ceil(T / 8)]` for a case with steps. The scores that a reference chose by
//! are `f32`, `[L, H, T]`, of the layers that the case or the file's `meta` lists as `score_layers`, or of all. A case of the granularity `query_head` is one of
//! `H * G` heads with a query head each.
//!
//! Values, projections, scores and `meta`'s `rope_theta`, the base of the rotation, may be missing: a case whose policy reads what is not
//! there is unsupported. Layers without arrays are left out, unless the policy looks at nothing.
//!
//! # Verdicts
//!
//! | verdict | what it means | counts as |
//! |---|---|---|
//! | [`Verdict::Equal`] | the same tokens in every head, but for the newest | passed |
//! | [`Verdict::Differs`] | other tokens | failed |
//! | [`Verdict::Tied`] | other tokens, and both sets are right | skipped |
//! | [`Verdict::Unsupported`] | there is nothing to compare | skipped |
//!
//! A tie has to be shown, in one of three ways. *Observed scores*: raise the score of every token that the reference keeps, and lower that
//! of every other, by at most 5e-6 of itself, and the policy has to keep just what the reference keeps. So the reference's answer is
//! the policy's own for scores that differ from ours by no more than rounding does. *The policy's ranks* ([`kv_core::Scorer`]): the
//! reference keeps as many tokens, and no rank that it drops is above one that it keeps by more than that; among all heads of a layer
//! where those compete. *The reference's scores*, where the file has them: of every head that differs, both answers are the best by
//! them. Where the reference goes by more than these scores, they do not explain its own answer, and nothing is shown.
//!
//! Many references drop the newest token where its score is low. A host never does, and most plans keep it themselves, in place of the
//! lowest score. Such a row is equal if the rest of it is, which the policy's ranks have to show, and the outcome says so.
//!
//! What is compared is the plan alone. Where neither it nor the reference keeps the newest token, the outcome says that a host does.
#![forbid(unsafe_code)]

mod arrays;
mod bound;
mod case;
mod compare;
mod error;
mod job;
mod layer;
mod mask;
mod npy;
mod npz;
mod prompt;
mod report;
mod rope;
mod shown;
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
    let arrays = Arrays::open(arrays, &file.meta)?;
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
