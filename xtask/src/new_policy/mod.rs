//! `cargo xtask new-policy NAME`: a policy that runs, made from `policies/template`, with its lines in the shared files and
//! its page in the book.

mod name;
mod places;
mod trial;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    metadata::Metadata,
    process,
    workspace::{Workspace, write_if_different},
};
use name::Name;
use places::{POLICIES, TEMPLATE};
pub(crate) use trial::trial;

/// The package with a feature for each policy.
const FACADE: &str = "mistralrs-kv";
/// The policy that is part of `kv-core`.
const KEEP_ALL: &str = "keep-all";
/// The page of a policy that was just made.
const PAGE: &str = include_str!("page.md");

/// Makes the policy and says what to do next.
pub(crate) fn run(workspace: &Workspace, name: &str) -> Result<()> {
    let made = make(workspace, name)?;
    println!("new-policy: these files are new");
    for file in &made.files {
        println!("  {}", workspace.short(file));
    }
    println!("new-policy: these lines are new");
    for line in &made.lines {
        println!("  {line}");
    }
    println!(
        "new-policy: {name} keeps the most recent tokens. Next:\n\
         \n  cargo test -p kv-policy-{name}    # seconds, needs no engine\
         \n  cargo run --release -p mistralrs-kv-cli -- run --model .headroom/models/SmolLM2-135M-Instruct-Q8_0.gguf \\\
         \n      --policy {name} --budget 25% --prompt-file docs/long-prompt.txt --heads\
         \n  cargo run --release -p mistralrs-kv-cli -- policies --markdown > docs/src/use/reference.md\n\
         \nWrite the method in policies/{name}/src/lib.rs; docs/src/extend/policy.md goes through it. Then tell it in the page, \
         in the rows of README.md and which.md,\nand in a line of CHANGELOG.md."
    );
    Ok(())
}

/// What was made.
#[derive(Debug)]
struct Made {
    files: Vec<PathBuf>,
    lines: Vec<String>,
}

/// Makes the policy; everything is known to fit before the first file is written.
fn make(workspace: &Workspace, name: &str) -> Result<Made> {
    let name = Name::parse(name)?;
    check_free(workspace, &name)?;
    let files = files(workspace, &name)?;
    let (shared, lines) = places::with_lines(workspace, &name)?;
    for (path, text) in files.iter().chain(&shared) {
        write_if_different(path, text)?;
    }
    let package = format!("kv-policy-{}", name.kebab());
    // A longer name breaks lines elsewhere.
    process::run(process::cargo(workspace).args(["fmt", "-p", &package]))?;
    Ok(Made {
        files: files.into_keys().collect(),
        lines,
    })
}

/// Refuses names that mean something already.
fn check_free(workspace: &Workspace, name: &Name) -> Result<()> {
    let kebab = name.kebab();
    let taken = "is taken; a policy needs a name of its own";
    ensure!(
        kebab != TEMPLATE,
        "`{kebab}` {taken}: that is what policies are made from"
    );
    ensure!(
        kebab != KEEP_ALL,
        "`{kebab}` {taken}: that is the policy of kv-core"
    );
    for path in [format!("{POLICIES}/{kebab}"), places::page(name)] {
        ensure!(
            !workspace.root().join(&path).exists(),
            "`{kebab}` {taken}: {path} is there"
        );
    }
    let metadata = Metadata::of(workspace)?;
    let features = &metadata.package(FACADE)?.features;
    ensure!(
        !features.contains_key(kebab),
        "`{kebab}` {taken}: {FACADE} has a feature of that name, as it has {}",
        features.keys().cloned().collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

/// The policy's own files, and its page.
fn files(workspace: &Workspace, name: &Name) -> Result<BTreeMap<PathBuf, String>> {
    let policies = workspace.root().join(POLICIES);
    let (from, to) = (policies.join(TEMPLATE), policies.join(name.kebab()));
    let page = workspace.root().join(places::page(name));
    let mut files = BTreeMap::from([(page, name.put_into(PAGE))]);
    for path in files_below(&from)? {
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}; restore it with git", path.display()))?;
        if path.extension().is_some_and(|end| end == "rs") {
            name.check_types(&text)?;
        }
        let text = name.put_into(&without_anchors(&text));
        files.insert(to.join(path.strip_prefix(&from)?), text);
    }
    Ok(files)
}

/// Without the marks by which the book finds its snippets.
fn without_anchors(text: &str) -> String {
    let is_mark = |line: &&str| line.trim_start().starts_with("// ANCHOR");
    text.split_inclusive('\n')
        .filter(|line| !is_mark(line))
        .collect()
}

/// Every file in the folder and in those inside it.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str) -> String {
        let workspace = Workspace::find().unwrap();
        make(&workspace, name).unwrap_err().to_string()
    }

    #[test]
    fn names_that_mean_something_are_refused() {
        for (name, because) in [
            ("template", "what policies are made from"),
            ("keep-all", "the policy of kv-core"),
            ("h2o", "policies/h2o is there"),
            ("which", "docs/src/policies/which.md is there"),
            ("cuda", "has a feature of that name"),
            ("default", "builders"),
            ("room", "a type `Room`"),
            ("policy", "a type `Policy`"),
            ("H2O", "must be words of a-z"),
        ] {
            let error = refusal(name);
            assert!(error.contains(&format!("`{name}`")), "{error}");
            assert!(error.contains(because), "{error}");
        }
    }

    #[test]
    fn nothing_of_the_template_is_left_in_a_policy() {
        let workspace = Workspace::find().unwrap();
        let name = Name::parse("some-thing").unwrap();
        let files = files(&workspace, &name).unwrap();
        let paths: Vec<String> = files
            .keys()
            .map(|path| workspace.short(path).to_string().replace('\\', "/"))
            .collect();
        assert_eq!(
            paths,
            [
                "docs/src/policies/some-thing.md",
                "policies/some-thing/Cargo.toml",
                "policies/some-thing/mutants.toml",
                "policies/some-thing/src/lib.rs",
                "policies/some-thing/tests/conformance.rs",
            ]
        );
        for (path, text) in files {
            let lower = text.to_lowercase();
            assert!(!lower.contains("template"), "{}: {text}", path.display());
            assert!(!text.contains("ANCHOR"), "{}: {text}", path.display());
        }
    }
}
