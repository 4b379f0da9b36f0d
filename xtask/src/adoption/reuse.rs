//! Third-party crates that the workspace has compiled already, used again for the app. For speed only.
//!
//! Cargo compiles a crate again for every set of features, and with it all that stands above. The app asks for less than
//! the workspace's tests do, so its copy is given dependencies that ask for the rest.

use std::collections::BTreeSet;

use anyhow::Result;

use super::app::App;
use crate::{once, vendor::Entry, workspace::Workspace};

/// A package and its features, as `cargo tree` prints them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Unit<'a> {
    name: &'a str,
    version: &'a str,
    features: BTreeSet<&'a str>,
}

impl<'a> Unit<'a> {
    /// None for what is no third-party library: `kv-core v0.1.0 (/path) ...`, `serde_derive v1.0.0 (proc-macro) ...`.
    fn parse(line: &'a str) -> Option<Self> {
        let (name, rest) = line.split_once(" v")?;
        let (version, features) = rest.split_once(' ').unwrap_or((rest, ""));
        let features = features.split(',').filter(|feature| !feature.is_empty());
        (!rest.contains('(')).then(|| Self {
            name,
            version,
            features: features.collect(),
        })
    }

    /// The dependency that asks for what `self` has and `less` has not.
    fn entry(&self, less: &Self, number: usize) -> Entry {
        let more: Vec<&str> = self.features.difference(&less.features).copied().collect();
        // What stands behind a plus is no part of a requirement.
        let version = self.version.split('+').next().unwrap_or_default();
        Entry {
            table: "dependencies",
            line: format!(
                "reused-{number} = {{ package = \"{}\", version = \"={version}\", default-features = false, features = {more:?} }} # for speed only",
                self.name
            ),
        }
    }
}

/// Gives the app what it lacks, writes its manifest, says what will be compiled again nevertheless; returns the lines.
pub(super) fn align(workspace: &Workspace, app: &mut App) -> Result<Vec<Entry>> {
    let tests = once::of_tests(workspace)?;
    let mut entries = Vec::new();
    loop {
        let apps = once::tree(
            workspace,
            app.folder(),
            &["--workspace", "--edges", "normal,build"],
        )?;
        let different = different(&tests, &apps);
        let more = missing(&tests, &different, &entries);
        if more.is_empty() {
            let names: Vec<&str> = different.iter().map(|unit| unit.name).collect();
            if !names.is_empty() {
                println!(
                    "adoption: compiled again for other features, with all above: {}",
                    names.join(", ")
                );
            }
            return Ok(entries);
        }
        app.paste(&more)?;
        entries.extend(more);
    }
}

/// Third-party libraries of the app that the tests have not, or with other features.
fn different<'a>(tests: &BTreeSet<String>, apps: &'a BTreeSet<String>) -> Vec<Unit<'a>> {
    let different = apps.iter().filter(|line| !tests.contains(*line));
    different.filter_map(|line| Unit::parse(line)).collect()
}

/// New dependencies that lift `different` to what the tests have, where they have more.
fn missing(tests: &BTreeSet<String>, different: &[Unit<'_>], asked: &[Entry]) -> Vec<Entry> {
    let tests: Vec<Unit<'_>> = tests.iter().filter_map(|line| Unit::parse(line)).collect();
    let mut entries = Vec::new();
    for unit in different {
        let more = tests.iter().filter(|test| {
            (test.name, test.version) == (unit.name, unit.version)
                && test.features.is_superset(&unit.features)
        });
        let Some(nearest) = more.min_by_key(|test| test.features.len()) else {
            continue;
        };
        let entry = nearest.entry(unit, asked.len() + entries.len());
        // What was asked for without success, such as features of a build script's dependency, is not asked again.
        let what = |entry: &Entry| {
            entry
                .line
                .split_once(" = ")
                .map(|(_, what)| what.to_owned())
        };
        if asked.iter().all(|old| what(old) != what(&entry)) {
            entries.push(entry);
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(lines: &[&str]) -> BTreeSet<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn dependencies_ask_for_what_the_tests_have_more() {
        let tests = set(&[
            "hyper v1.12.0 client,http1,server",
            "kv-core v0.1.0 (/home/kv core) a,b",
            "serde_json v1.0.154 default,indexmap,raw_value,std",
            "serde_json v1.0.154 default,std",
            "utoipa-gen v5.5.0 (proc-macro) axum_extras",
            "zstd v0.13.0+1.5.6 a,b",
        ]);
        let apps = set(&[
            "hyper v1.12.0 client,http1",
            "kv-core v0.1.0 (/home/kv core) a",
            "lru v0.1.0",
            "serde_json v1.0.154 default,indexmap,std",
            "utoipa-gen v5.5.0 (proc-macro)",
            "zstd v0.13.0+1.5.6",
        ]);
        let units = different(&tests, &apps);
        let names: Vec<&str> = units.iter().map(|unit| unit.name).collect();
        assert_eq!(names, ["hyper", "lru", "serde_json", "zstd"]);
        let entries = missing(&tests, &units, &[]);
        let lines: Vec<&str> = entries.iter().map(|entry| &*entry.line).collect();
        let line = |number: usize, name: &str, version: &str, features: &str| {
            format!(
                "reused-{number} = {{ package = \"{name}\", version = \"={version}\", default-features = false, features = [{features}] }} # for speed only"
            )
        };
        assert_eq!(
            lines,
            [
                line(0, "hyper", "1.12.0", "\"server\""),
                line(1, "serde_json", "1.0.154", "\"raw_value\""),
                line(2, "zstd", "0.13.0", "\"a\", \"b\""),
            ]
        );
        // The same difference after they were asked for: nothing can be done.
        assert_eq!(missing(&tests, &units, &entries), []);
        // One more difference is asked for under a name of its own.
        let later = [Unit::parse("hyper v1.12.0 http1").unwrap()];
        let more = missing(&tests, &later, &entries);
        assert!(more[0].line.starts_with("reused-3 = "), "{more:?}");
    }

    #[test]
    fn packages_without_features_parse() {
        let unit = Unit::parse("lru v0.1.0").unwrap();
        assert_eq!(
            (unit.name, unit.version, unit.features.len()),
            ("lru", "0.1.0", 0)
        );
        assert_eq!(
            Unit::parse("serde_derive v1.0.0 (proc-macro) default"),
            None
        );
        assert_eq!(Unit::parse(""), None);
    }
}
