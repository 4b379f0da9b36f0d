//! The lines that name a policy outside its folder, and which of them are missing.

use std::{collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result};

use super::name::Name;
use crate::workspace::Workspace;

/// Where the policies are.
pub(super) const POLICIES: &str = "policies";
/// The one to copy from, which is named nowhere.
pub(super) const TEMPLATE: &str = "template";
const MANIFEST: &str = "integration/Cargo.toml";

/// A line that every policy has in a file that all of them share. In its texts `template` stands for the policy's name.
#[derive(Debug)]
struct Place {
    file: &'static str,
    /// How the line begins.
    start: &'static str,
    /// How it goes on in a policy that was just made.
    rest: &'static str,
    /// Whether the lines of a file are sorted; otherwise a new one comes last.
    sorted: bool,
}

const PLACES: [Place; 7] = [
    Place {
        file: MANIFEST,
        start: "    \"template\",",
        rest: "",
        sorted: true,
    },
    Place {
        file: MANIFEST,
        start: "template = [\"dep:kv-policy-template\"",
        rest: "]",
        sorted: true,
    },
    Place {
        file: MANIFEST,
        start: "kv-policy-template = {",
        rest: " path = \"../policies/template\", optional = true }",
        sorted: true,
    },
    Place {
        file: "integration/src/registry.rs",
        start: "    \"template\": kv_policy_template::TemplateConfig;",
        rest: "",
        sorted: true,
    },
    Place {
        file: "docs/src/SUMMARY.md",
        start: "- [template](policies/template.md)",
        rest: "",
        sorted: false,
    },
    Place {
        file: "docs/src/policies/which.md",
        start: "| [template](template.md) |",
        rest: " nothing | keeps the newest tokens | ring | fixed |",
        sorted: false,
    },
    Place {
        file: "README.md",
        start: "| [template](docs/src/policies/template.md) |",
        rest: " the most recent tokens in every head |",
        sorted: false,
    },
];

/// The page of a policy in the book.
pub(super) fn page(name: &Name) -> String {
    format!("docs/src/policies/{}.md", name.kebab())
}

/// Every policy of the checkout but the template, by its folder.
pub(super) fn policies(workspace: &Workspace) -> Result<Vec<Name>> {
    let folder = workspace.root().join(POLICIES);
    let entries = fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}; restore it with git", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != TEMPLATE && entry.path().join("Cargo.toml").is_file() {
            names.push(Name::parse(&name)?);
        }
    }
    names.sort_by(|a, b| a.kebab().cmp(b.kebab()));
    Ok(names)
}

/// The shared files with the lines of a new policy in them, and those lines as a reader would look for them.
pub(super) fn with_lines(
    workspace: &Workspace,
    name: &Name,
) -> Result<(BTreeMap<PathBuf, String>, Vec<String>)> {
    let others = policies(workspace)?;
    let mut texts = BTreeMap::new();
    let mut added = Vec::new();
    for place in &PLACES {
        let path = workspace.root().join(place.file);
        let text = match texts.remove(&path) {
            Some(text) => text,
            None => read(workspace, place.file)?,
        };
        let line = name.put_into(&format!("{}{}", place.start, place.rest));
        let more = place
            .with_line(&text, name, &others, &line)
            .with_context(|| {
                format!(
                    "{} names no policy in a line such as `{}`; restore it with git",
                    place.file,
                    line.trim()
                )
            })?;
        texts.insert(path, more);
        added.push(format!("{}: {}", place.file, line.trim()));
    }
    Ok((texts, added))
}

/// Lines and pages that policies of the checkout should have and have not.
pub(super) fn missing(workspace: &Workspace) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for name in policies(workspace)? {
        for place in &PLACES {
            let start = name.put_into(place.start);
            let text = read(workspace, place.file)?;
            if !text.lines().any(|line| line.starts_with(&start)) {
                missing.push(format!("{}: a line `{} ...`", place.file, start.trim()));
            }
        }
        let page = page(&name);
        if !workspace.root().join(&page).is_file() {
            missing.push(format!("{page}: the page of {}", name.kebab()));
        }
    }
    Ok(missing)
}

fn read(workspace: &Workspace, file: &str) -> Result<String> {
    fs::read_to_string(workspace.root().join(file))
        .with_context(|| format!("cannot read {file}; restore it with git"))
}

impl Place {
    /// The text with a new line among those of the others; none where there are none.
    fn with_line(&self, text: &str, name: &Name, others: &[Name], line: &str) -> Option<String> {
        let starts: Vec<(String, &str)> = others
            .iter()
            .map(|other| (other.put_into(self.start), other.kebab()))
            .collect();
        let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
        let named = lines.iter().enumerate().filter_map(|(at, line)| {
            let (_, other) = starts.iter().find(|(start, _)| line.starts_with(start))?;
            Some((at, *other))
        });
        let named: Vec<(usize, &str)> = named.collect();
        let (last, _) = named.last()?;
        let later = named.iter().find(|(_, other)| *other > name.kebab());
        let at = match later {
            Some((at, _)) if self.sorted => *at,
            _ => last + 1,
        };
        let line = format!("{line}\n");
        lines.insert(at, &line);
        Some(lines.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn every_policy_of_this_checkout_has_its_lines_and_its_page() {
        let missing = missing(&Workspace::find().unwrap()).unwrap();
        assert!(missing.is_empty(), "missing:\n  {}", missing.join("\n  "));
    }

    #[test]
    fn a_line_is_sorted_in_or_comes_last() {
        let place = |sorted| Place {
            file: "f",
            start: "template =",
            rest: " 1",
            sorted,
        };
        let others = ["d", "b"].map(name);
        let text = "x\nb = 1\nd = 2\ny\n";
        let with = |new: &str, sorted| {
            let line = format!("{new} = 1");
            place(sorted).with_line(text, &name(new), &others, &line)
        };
        let lines = |lines: &str| Some(lines.to_owned());
        assert_eq!(with("a", true), lines("x\na = 1\nb = 1\nd = 2\ny\n"));
        assert_eq!(with("c", true), lines("x\nb = 1\nc = 1\nd = 2\ny\n"));
        assert_eq!(with("e", true), lines("x\nb = 1\nd = 2\ne = 1\ny\n"));
        assert_eq!(with("a", false), lines("x\nb = 1\nd = 2\na = 1\ny\n"));
        assert_eq!(place(true).with_line("x\n", &name("a"), &others, "a"), None);
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(folder.path());
        let write = |path: &str, text: &str| {
            crate::workspace::write_if_different(&folder.path().join(path), text).unwrap();
        };
        write("policies/key-diff/Cargo.toml", "");
        write("policies/template/Cargo.toml", "");
        for place in &PLACES {
            write(place.file, "");
        }
        let missing_lines = missing(&workspace).unwrap();
        assert_eq!(missing_lines.len(), PLACES.len() + 1, "{missing_lines:?}");
        let page = "docs/src/policies/key-diff.md";
        assert!(missing_lines.iter().any(|line| line.starts_with(page)));
        // Lines are added among others; there are none.
        let error = with_lines(&workspace, &name("new")).unwrap_err();
        assert!(error.to_string().contains("integration/Cargo.toml"));
        let lines: String = PLACES
            .iter()
            .map(|place| name("key-diff").put_into(place.start) + "\n")
            .collect();
        for place in &PLACES {
            write(place.file, &lines);
        }
        write(page, "");
        assert_eq!(missing(&workspace).unwrap(), [""; 0]);
    }
}
