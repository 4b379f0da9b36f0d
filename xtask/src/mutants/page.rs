//! The page of tables: which test kills which mutant.
use std::{collections::BTreeSet, fmt::Write};

use super::{Report, suite::Test};

/// So many tests besides the kit's are named; the rest is counted.
const NAMED: usize = 3;

const INTRODUCTION: &str = "# Planted mistakes

A test kit is worth what it catches. Each policy lists mistakes that an author might make in its `mutants.toml`: a window
that is one too long, scores that were not asked for, a head that is forgotten. `cargo xtask mutants` plants them in the
policy's source, one at a time in a copy of the tree, and runs the policy's tests; a mistake that no test notices fails the
command, unless the list says why none can. This page is what `cargo xtask mutants --markdown` prints.

The kit knows no method. It kills broken plumbing, and most of the mistakes that it leaves make another method of the same
shape: those need golden data from the method's own code, a worked example or a test of the error.
";

const KIT_HEADING: &str = "
## What the kit's properties kill

*Run against* counts the mutants of the policies that have the property, for some are opted into. *Alone* counts those that
no other property of the kit kills. A property that kills none here has a made-up policy in `kv-core/tests/mutants` that it
kills.

| property | run against | kills | alone |
|---|--:|--:|--:|
";

/// The whole page.
pub(crate) fn write(reports: &[Report]) -> String {
    let mut page = INTRODUCTION.to_owned();
    let total = Totals::of(reports);
    let _ = write!(page, "\n{total}\n{KIT_HEADING}");
    for row in kit_rows(reports) {
        let Row {
            property,
            against,
            kills,
            alone,
        } = row;
        let _ = writeln!(page, "| `{property}` | {against} | {kills} | {alone} |");
    }
    for report in reports {
        page.push_str(&section(report));
    }
    page
}

/// How many mutants there are, and what becomes of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    policies: usize,
    mutants: usize,
    by_kit: usize,
    only_by_others: usize,
    survive: usize,
}

impl Totals {
    pub(crate) fn of(reports: &[Report]) -> Self {
        let mut totals = Self {
            policies: reports.len(),
            ..Self::default()
        };
        for judged in reports.iter().flat_map(|report| &report.judged) {
            totals.mutants += 1;
            let count = if kit(&judged.failed).next().is_some() {
                &mut totals.by_kit
            } else if judged.failed.is_empty() {
                &mut totals.survive
            } else {
                &mut totals.only_by_others
            };
            *count += 1;
        }
        totals
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            policies,
            mutants,
            by_kit,
            only_by_others,
            survive,
        } = self;
        write!(
            f,
            "{mutants} mutants of {policies} {}: {by_kit} killed by the kit, {only_by_others} by other tests only, \
             {survive} survive.",
            if *policies == 1 { "policy" } else { "policies" }
        )
    }
}

/// Properties of the kit among some tests.
pub(crate) fn kit(tests: &BTreeSet<Test>) -> impl Iterator<Item = &str> {
    tests.iter().filter_map(|test| match test {
        Test::Kit(name) => Some(name.as_str()),
        Test::Other(_) => None,
    })
}

/// The other tests.
pub(crate) fn others(tests: &BTreeSet<Test>) -> impl Iterator<Item = &str> {
    tests.iter().filter_map(|test| match test {
        Test::Other(name) => Some(name.as_str()),
        Test::Kit(_) => None,
    })
}

/// What one property kills.
#[derive(Debug, PartialEq, Eq)]
struct Row<'a> {
    property: &'a str,
    against: usize,
    kills: usize,
    alone: usize,
}

/// The deadliest first.
fn kit_rows(reports: &[Report]) -> Vec<Row<'_>> {
    let properties: BTreeSet<&str> = reports
        .iter()
        .flat_map(|report| kit(&report.tests))
        .collect();
    let row = |property| {
        let mut row = Row {
            property,
            against: 0,
            kills: 0,
            alone: 0,
        };
        let has = |report: &&Report| kit(&report.tests).any(|name| name == property);
        for judged in reports.iter().filter(has).flat_map(|report| &report.judged) {
            let kills = kit(&judged.failed).any(|name| name == property);
            row.against += 1;
            row.kills += usize::from(kills);
            row.alone += usize::from(kills && kit(&judged.failed).count() == 1);
        }
        row
    };
    let mut rows: Vec<Row<'_>> = properties.into_iter().map(row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.kills, row.alone)));
    rows
}

fn section(report: &Report) -> String {
    let mut section = format!(
        "\n## {}\n\n| the policy | killed by the kit's | and by |\n|---|---|---|\n",
        report.policy
    );
    for judged in &report.judged {
        let name = escaped(&judged.mutant.name);
        let (by_kit, by_others) = match &judged.mutant.survives {
            Some(why) => ("-".to_owned(), format!("survives: {}", escaped(why))),
            None => (
                listed(kit(&judged.failed), usize::MAX),
                listed(others(&judged.failed), NAMED),
            ),
        };
        let _ = writeln!(section, "| {name} | {by_kit} | {by_others} |");
    }
    section
}

/// At most `most` names, and how many more there are.
fn listed<'a>(names: impl Iterator<Item = &'a str>, most: usize) -> String {
    let names: Vec<String> = names.map(|name| format!("`{}`", escaped(name))).collect();
    match names.len() {
        0 => "-".to_owned(),
        count if count > most => {
            format!("{} and {} more", names[..most].join(", "), count - most)
        }
        _ => names.join(", "),
    }
}

fn escaped(text: &str) -> String {
    text.replace('|', r"\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mutants::{Judged, list},
        workspace::Workspace,
    };

    fn tests(names: &[&str]) -> BTreeSet<Test> {
        let test = |name: &&str| match name.strip_prefix("kit::") {
            Some(property) => Test::Kit(property.to_owned()),
            None => Test::Other((*name).to_owned()),
        };
        names.iter().map(test).collect()
    }

    fn judged(name: &str, survives: Option<&str>, failed: &[&str]) -> Judged {
        Judged {
            mutant: list::Mutant {
                name: name.into(),
                file: "src/lib.rs".into(),
                find: "a".into(),
                replace: "b".into(),
                survives: survives.map(str::to_owned),
            },
            failed: tests(failed),
        }
    }

    fn reports() -> Vec<Report> {
        let window = Report {
            policy: "window".into(),
            tests: tests(&["kit::fits", "kit::nests", "golden::a"]),
            judged: vec![
                judged("is too long", None, &["kit::fits", "golden::a"]),
                judged(
                    "is a | b",
                    None,
                    &["golden::a", "golden::b", "golden::c", "golden::d"],
                ),
                judged("is odd", None, &["kit::fits", "kit::nests"]),
            ],
        };
        let other = Report {
            policy: "other".into(),
            tests: tests(&["kit::fits"]),
            judged: vec![judged("is even", Some("nobody sees it"), &[])],
        };
        vec![window, other]
    }

    #[test]
    fn properties_are_counted_against_the_policies_that_have_them() {
        let row = |property, against, kills, alone| Row {
            property,
            against,
            kills,
            alone,
        };
        let reports = reports();
        assert_eq!(
            kit_rows(&reports),
            [row("fits", 4, 2, 1), row("nests", 3, 1, 0)]
        );
        assert_eq!(
            Totals::of(&reports).to_string(),
            "4 mutants of 2 policies: 2 killed by the kit, 1 by other tests only, 1 survive."
        );
    }

    #[test]
    fn page_has_a_row_for_every_mutant() {
        let page = write(&reports());
        for row in [
            "| `fits` | 4 | 2 | 1 |",
            "| is too long | `fits` | `golden::a` |",
            r"| is a \| b | - | `golden::a`, `golden::b`, `golden::c` and 1 more |",
            "| is odd | `fits`, `nests` | - |",
            "## other",
            "| is even | - | survives: nobody sees it |",
        ] {
            assert!(page.lines().any(|line| line == row), "{row}: {page}");
        }
        let expected = [
            ("window", vec!["is too long", r"is a \| b", "is odd"]),
            ("other", vec!["is even"]),
        ];
        assert_eq!(
            outline(&page),
            expected.map(|(policy, names)| {
                (
                    policy.to_owned(),
                    names.into_iter().map(str::to_owned).collect(),
                )
            })
        );
    }

    /// Policies and mutants in the sections of a page.
    fn outline(page: &str) -> Vec<(String, Vec<String>)> {
        let mut sections: Vec<(String, Vec<String>)> = Vec::new();
        for section in page.split("\n## ").skip(2) {
            let mut lines = section.lines();
            let heading = lines.next().unwrap_or_default();
            let rows = lines.filter(|line| line.starts_with("| ")).skip(1);
            let name = |row: &str| row[2..].split(" | ").next().unwrap_or_default().to_owned();
            sections.push((heading.to_owned(), rows.map(name).collect()));
        }
        sections
    }

    /// Made anew by `cargo xtask mutants --markdown > docs/src/extend/mutants.md`, which takes minutes: what can be
    /// compared in no time is which mutants it tells of.
    #[test]
    fn page_of_the_book_tells_of_the_listed_mutants() {
        let workspace = Workspace::find().unwrap();
        let path = workspace.root().join("docs/src/extend/mutants.md");
        let page = std::fs::read_to_string(path).unwrap();
        let lists = list::read(&workspace, &[]).unwrap();
        let listed: Vec<(String, Vec<String>)> = lists
            .into_iter()
            .map(|list| {
                let names = list.mutants.iter().map(|mutant| escaped(&mutant.name));
                let names = names.collect();
                (list.policy, names)
            })
            .collect();
        assert_eq!(
            outline(&page),
            listed,
            "run `cargo xtask mutants --markdown > docs/src/extend/mutants.md`"
        );
    }
}
