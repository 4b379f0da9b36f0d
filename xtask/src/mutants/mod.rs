//! Planted mistakes: each policy's `mutants.toml` lists some, and its tests have to notice every one.
//!
//! A policy's tests are built and run in a copy of the tree, once as they are and once for each mistake. What fails, by
//! name, is the page `docs/src/extend/mutants.md`.
mod list;
mod page;
mod suite;
mod tree;

use std::{collections::BTreeSet, path::PathBuf, time::Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;

use self::{
    list::{Listed, Mutant},
    page::Totals,
    suite::{Outcome, Suite, Test},
    tree::Tree,
};
use crate::{metadata::Metadata, workspace::Workspace};

/// What is planted and what is printed.
#[derive(Debug, Args)]
pub(crate) struct MutantsArgs {
    /// Only these policies [default: all]
    #[arg(value_name = "POLICY")]
    policies: Vec<String>,
    /// Print the page docs/src/extend/mutants.md; progress goes to stderr
    #[arg(long, conflicts_with = "policies")]
    markdown: bool,
}

/// One mutant and the tests that fail because of it.
#[derive(Debug)]
struct Judged {
    mutant: Mutant,
    failed: BTreeSet<Test>,
}

/// What became of one policy's mutants.
#[derive(Debug)]
struct Report {
    policy: String,
    /// All tests of the policy as it is.
    tests: BTreeSet<Test>,
    judged: Vec<Judged>,
}

/// Plants every mutant and runs its policy's tests. Fails if one goes unnoticed, or is noticed and should not be.
pub(crate) fn run(workspace: &Workspace, args: &MutantsArgs) -> Result<()> {
    let lists = list::read(workspace, &args.policies)?;
    let started = Instant::now();
    let mut run = Run {
        workspace,
        tree: Tree::of(workspace)?,
        target: Metadata::of(workspace)?.target_directory.join("mutants"),
        problems: Vec::new(),
    };
    let reports: Vec<Report> = lists
        .into_iter()
        .filter_map(|list| run.policy(list))
        .collect();
    if !run.problems.is_empty() {
        bail!(
            "{} of the mutants or policies need work:\n  {}",
            run.problems.len(),
            run.problems.join("\n  ")
        );
    }
    eprintln!(
        "{} ({:.0} s)",
        Totals::of(&reports),
        started.elapsed().as_secs_f64()
    );
    if args.markdown {
        print!("{}", page::write(&reports));
    }
    Ok(())
}

#[derive(Debug)]
struct Run<'a> {
    workspace: &'a Workspace,
    tree: Tree,
    target: PathBuf,
    /// Said again at the end.
    problems: Vec<String>,
}

impl<'a> Run<'a> {
    /// None if the policy's tests fail without a mutant; nothing could be said about its mutants then.
    fn policy(&mut self, list: Listed) -> Option<Report> {
        let Listed { policy, mutants } = list;
        let started = Instant::now();
        let (suite, tests) = match self.right(&policy) {
            Ok(right) => right,
            Err(error) => {
                self.problem(&format!("{policy} without a mutant"), &error);
                return None;
            }
        };
        let took = started.elapsed().as_secs_f64();
        eprintln!(
            "{policy}: {} tests pass without a mutant ({took:.1} s)",
            tests.len()
        );
        let count = mutants.len();
        let mut judged = Vec::new();
        for (index, mutant) in mutants.into_iter().enumerate() {
            let place = format!("{policy} {}/{count} {}", index + 1, mutant.name);
            let started = Instant::now();
            match self.judge(&policy, &suite, mutant) {
                Ok(mutant) => {
                    let took = started.elapsed().as_secs_f64();
                    eprintln!("{place}: {} ({took:.1} s)", mutant.said());
                    judged.push(mutant);
                }
                Err(error) => self.problem(&place, &error),
            }
        }
        Some(Report {
            policy,
            tests,
            judged,
        })
    }

    /// The tests of a policy as it is, all of which pass.
    fn right(&self, policy: &str) -> Result<(Suite<'a>, BTreeSet<Test>)> {
        let suite = Suite::new(
            self.workspace,
            policy,
            self.tree.policy(policy),
            &self.target,
        )?;
        let Outcome { passed, failed } = suite.run()?;
        ensure!(failed.is_empty(), "its own tests fail: {}", named(&failed));
        Ok((suite, passed))
    }

    fn judge(&self, policy: &str, suite: &Suite<'_>, mutant: Mutant) -> Result<Judged> {
        let outcome = self.tree.with(policy, &mutant, || suite.run())?;
        let failed = outcome.failed;
        match &mutant.survives {
            None if failed.is_empty() => bail!(
                "survives: no test notices; write the missing test, or say with `survives` why there can be none"
            ),
            Some(_) if !failed.is_empty() => bail!(
                "is killed by {}, but its list says that it survives; take `survives` out",
                named(&failed)
            ),
            _ => Ok(Judged { mutant, failed }),
        }
    }

    fn problem(&mut self, place: &str, error: &anyhow::Error) {
        let problem = format!("{place}: {error:#}");
        eprintln!("{problem}");
        self.problems.push(problem);
    }
}

impl Judged {
    fn said(&self) -> String {
        match &self.mutant.survives {
            Some(why) => format!("survives, as expected: {why}"),
            None => format!("killed by {}", named(&self.failed)),
        }
    }
}

/// Properties of the kit by their names, then the other tests with their targets.
fn named(tests: &BTreeSet<Test>) -> String {
    let names: Vec<&str> = page::kit(tests).chain(page::others(tests)).collect();
    names.join(", ")
}
