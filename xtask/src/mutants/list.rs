//! What is wrong with each mutant: `policies/<name>/mutants.toml`.
use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::workspace::Workspace;

/// The list in a policy's folder.
const LIST: &str = "mutants.toml";
/// Fewer say little about a policy's tests.
const FEWEST: usize = 4;
/// A longer name breaks the tables.
const LONGEST_NAME: usize = 60;

/// One mistake in one place.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutant {
    /// What is wrong.
    pub(crate) name: String,
    /// Where, seen from the policy's folder.
    #[serde(default = "library")]
    pub(crate) file: PathBuf,
    /// Stands exactly once in the file.
    pub(crate) find: String,
    /// Stands there instead.
    pub(crate) replace: String,
    /// Why no test notices.
    pub(crate) survives: Option<String>,
}

fn library() -> PathBuf {
    "src/lib.rs".into()
}

/// The mutants of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// The policy, as its folder is called.
    pub(crate) policy: String,
    pub(crate) mutants: Vec<Mutant>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    mutant: Vec<Mutant>,
}

/// The lists of the policies asked for, or of all; what is wrong in a list is said for all of them at once.
pub(crate) fn read(workspace: &Workspace, wanted: &[String]) -> Result<Vec<Listed>> {
    let folder = workspace.root().join("policies");
    let all = policies(&folder)?;
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        bail!("no policy `{unknown}`; policies are {}", all.join(", "));
    }
    let names = all
        .into_iter()
        .filter(|name| wanted.is_empty() || wanted.contains(name));
    let (mut lists, mut problems) = (Vec::new(), Vec::new());
    for name in names {
        match list(&folder, name) {
            Ok(list) => lists.push(list),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(lists)
}

/// Every folder with a crate in it, in the order of the alphabet.
fn policies(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = fs::read_dir(folder);
    for entry in entries.with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn list(policies: &Path, policy: String) -> Result<Listed> {
    let folder = policies.join(&policy);
    let place = format!("policies/{policy}/{LIST}");
    let text = fs::read_to_string(folder.join(LIST)).with_context(|| {
        format!("{place} cannot be read; every policy lists {FEWEST} mutants of its own or more")
    })?;
    let File { mutant: mutants } = toml::from_str(&text).context(place.clone())?;
    let problems = problems(&mutants, &folder);
    if !problems.is_empty() {
        bail!("{place}: {}", problems.join(&format!("\n{place}: ")));
    }
    Ok(Listed { policy, mutants })
}

fn problems(mutants: &[Mutant], folder: &Path) -> Vec<String> {
    let mut problems = Vec::new();
    if mutants.len() < FEWEST {
        let count = mutants.len();
        problems.push(format!(
            "it lists {count} mutants, must be {FEWEST} or more"
        ));
    }
    let mut names = BTreeSet::new();
    for mutant in mutants {
        let name = &mutant.name;
        if !names.insert(name) {
            problems.push(format!(
                "the name `{name}` stands twice, must stand once in a list"
            ));
        }
        if let Some(problem) = mutant.problem(folder) {
            problems.push(format!("`{name}`: {problem}"));
        }
    }
    problems
}

impl Mutant {
    /// What is wrong with the entry itself, if anything.
    fn problem(&self, folder: &Path) -> Option<String> {
        let length = self.name.chars().count();
        if self.name.trim() != self.name
            || !(1..=LONGEST_NAME).contains(&length)
            || self.name.contains('\n')
        {
            return Some(format!(
                "the name has {length} characters, must be one line of 1 to {LONGEST_NAME} without spaces around it"
            ));
        }
        let is_source = self.file.starts_with("src")
            && self
                .file
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
        if !is_source {
            return Some(format!(
                "`file` is {}, must be a file below src/",
                self.file.display()
            ));
        }
        if self
            .survives
            .as_ref()
            .is_some_and(|why| why.trim().is_empty())
        {
            return Some("`survives` is empty, must say why no test notices".to_owned());
        }
        match fs::read_to_string(folder.join(&self.file)) {
            Err(error) => Some(format!("{} cannot be read: {error}", self.file.display())),
            Ok(source) => self.apply(&source).err().map(|error| error.to_string()),
        }
    }

    /// The source with the mistake in it.
    pub(crate) fn apply(&self, source: &str) -> Result<String> {
        let file = self.file.display();
        if self.find.is_empty() {
            bail!("`find` is empty, must be text that stands once in {file}");
        }
        if self.find == self.replace {
            bail!("`replace` is the same as `find`, must differ");
        }
        let mut places = source.match_indices(&self.find);
        let (Some((start, _)), rest) = (places.next(), places.count()) else {
            bail!("`find` does not stand in {file}, must stand there once");
        };
        if rest > 0 {
            let times = rest + 1;
            bail!("`find` stands {times} times in {file}, must stand there once");
        }
        let (before, after) = (&source[..start], &source[start + self.find.len()..]);
        Ok(format!("{before}{}{after}", self.replace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(find: &str, replace: &str) -> Mutant {
        Mutant {
            name: "keeps one more".into(),
            file: library(),
            find: find.into(),
            replace: replace.into(),
            survives: None,
        }
    }

    /// A checkout with one policy, whose source and list these are.
    fn checkout(source: &str, list: &str) -> (tempfile::TempDir, Workspace) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("policies/window");
        fs::create_dir_all(folder.join("src")).unwrap();
        fs::write(folder.join("Cargo.toml"), "").unwrap();
        fs::write(folder.join("src/lib.rs"), source).unwrap();
        fs::write(folder.join(LIST), list).unwrap();
        let workspace = Workspace::at(root.path());
        (root, workspace)
    }

    fn entry(name: &str, find: &str, more: &str) -> String {
        format!("[[mutant]]\nname = {name:?}\nfind = {find:?}\nreplace = 'x'\n{more}\n")
    }

    /// Every list of this checkout is in order, and no policy is without one.
    #[test]
    fn every_policy_lists_mutants_that_can_be_planted() {
        let workspace = Workspace::find().unwrap();
        let lists = read(&workspace, &[]).unwrap();
        assert!(lists.iter().any(|list| list.policy == "template"));
    }

    #[test]
    fn what_is_found_once_is_replaced() {
        let mutated = mutant("n + 1", "n").apply("fn f(n: u8) { n + 1 }").unwrap();
        assert_eq!(mutated, "fn f(n: u8) { n }");
        for (find, replace, said) in [
            ("m", "n", "does not stand"),
            ("n", "m", "stands 3 times"),
            ("", "m", "is empty"),
            ("u8", "u8", "must differ"),
        ] {
            let error = mutant(find, replace).apply("n + n: u8; n").unwrap_err();
            assert!(error.to_string().contains(said), "{find}: {error}");
        }
    }

    #[test]
    fn good_list_is_read_in_its_order() {
        let names = ["d", "b", "c", "a"];
        let list: String = names
            .map(|name| entry(name, "1", "survives = 'no tie'"))
            .concat();
        let (_root, workspace) = checkout("1", &list);
        let lists = read(&workspace, &["window".into()]).unwrap();
        assert_eq!(lists.len(), 1);
        assert_eq!(lists[0].policy, "window");
        let read: Vec<&str> = lists[0].mutants.iter().map(|m| &*m.name).collect();
        assert_eq!(read, names);
        assert_eq!(lists[0].mutants[0].file, library());
    }

    #[test]
    fn what_is_wrong_in_a_list_is_said_at_once() {
        let list = [
            entry("a", "1", ""),
            entry("a", "2", ""),
            entry("", "1", "file = '../x.rs'"),
            entry("b", "1", "file = 'tests/x.rs'"),
            entry("c", "1", "file = 'src/none.rs'"),
            entry("d", "1", "survives = ' '"),
        ];
        let (_root, workspace) = checkout("1", &list.concat());
        let error = read(&workspace, &[]).unwrap_err().to_string();
        for said in [
            "window/mutants.toml: the name `a` stands twice",
            "`a`: `find` does not stand in src/lib.rs",
            "the name has 0 characters",
            "`b`: `file` is tests/x.rs, must be a file below src/",
            "`c`: src/none.rs cannot be read",
            "`d`: `survives` is empty",
        ] {
            assert!(error.contains(said), "{said}: {error}");
        }
        let (_root, workspace) = checkout("1", &entry("a", "1", ""));
        let error = read(&workspace, &[]).unwrap_err().to_string();
        assert!(
            error.contains("lists 1 mutants, must be 4 or more"),
            "{error}"
        );
    }

    #[test]
    fn unknown_policy_key_and_missing_list_are_named() {
        let (root, workspace) = checkout("1", &entry("a", "1", "fine = 1"));
        let error = format!("{:#}", read(&workspace, &[]).unwrap_err());
        assert!(
            error.contains("policies/window/mutants.toml") && error.contains("fine"),
            "{error}"
        );
        let error = read(&workspace, &["windwo".into()]).unwrap_err();
        assert_eq!(error.to_string(), "no policy `windwo`; policies are window");
        fs::remove_file(root.path().join("policies/window").join(LIST)).unwrap();
        let error = read(&workspace, &[]).unwrap_err().to_string();
        assert!(
            error.contains("cannot be read; every policy lists 4"),
            "{error}"
        );
    }
}
