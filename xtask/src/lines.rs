//! How long the policies are.
use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// Lines of one policy, blank ones left out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lines {
    /// Code and comments that are no tests.
    source: usize,
    /// Of these, comments.
    comments: usize,
    tests: usize,
}

/// Prints a row for every policy, the shortest first.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(workspace.root().join("policies"))? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let mut lines = Lines::default();
        count(&folder.join("src"), false, &mut lines)?;
        count(&folder.join("tests"), true, &mut lines)?;
        let shared = shared(workspace, &name)?;
        rows.push((
            lines.source,
            format!(
                "| {name} | {} | {} | {} | {shared} |",
                lines.source, lines.comments, lines.tests
            ),
        ));
    }
    rows.sort();
    println!("| policy | source | of it comments | tests | shared |\n|---|---|---|---|---|");
    for (_, row) in rows {
        println!("{row}");
    }
    Ok(())
}

/// Counts the Rust files below a folder; one that is not there has none.
fn count(folder: &Path, is_test: bool, lines: &mut Lines) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            count(&path, is_test, lines)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            add(&text, is_test, lines);
        }
    }
    Ok(())
}

fn add(text: &str, is_test: bool, lines: &mut Lines) {
    let mut is_test = is_test;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // Unit tests stand at the end of a file.
        is_test |= line == "#[cfg(test)]";
        if is_test {
            lines.tests += 1;
            continue;
        }
        lines.source += 1;
        lines.comments += usize::from(line.starts_with("//"));
    }
}

/// Lines that name the policy in files that all share.
fn shared(workspace: &Workspace, name: &str) -> Result<usize> {
    let mut shared = 0;
    for file in ["integration/Cargo.toml", "integration/src/registry.rs"] {
        let text = fs::read_to_string(workspace.root().join(file))
            .with_context(|| format!("cannot read {file}"))?;
        let names = [
            format!("\"{name}\""),
            format!("kv-policy-{name} ="),
            format!("{name} = ["),
        ];
        let is_one = |line: &&str| names.iter().any(|name| line.trim_start().starts_with(name));
        shared += text.lines().filter(is_one).count();
    }
    Ok(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_at_the_end_of_a_file_are_tests() {
        let mut lines = Lines::default();
        add(
            "//! Doc.\n\nfn a() {}\n#[cfg(test)]\nmod tests {\n}\n",
            false,
            &mut lines,
        );
        add("fn b() {}\n// c\n", true, &mut lines);
        let expected = Lines {
            source: 2,
            comments: 1,
            tests: 5,
        };
        assert_eq!(lines, expected);
    }

    #[test]
    fn every_policy_but_the_template_has_four_shared_lines() {
        let workspace = Workspace::find().unwrap();
        assert_eq!(shared(&workspace, "snap-kv").unwrap(), 4);
        assert_eq!(shared(&workspace, "template").unwrap(), 0);
    }
}
