//! Follows every link that stays at home: between the pages of the book, and from the repository's own texts.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::html::Page;

/// Follows the links of every page in the folder; returns how many there are.
pub(super) fn check_book(folder: &Path) -> Result<usize> {
    let mut pages = BTreeMap::new();
    read_pages(folder, Path::new(""), &mut pages)?;
    let mut followed = 0;
    let mut problems = Vec::new();
    for (path, page) in &pages {
        let at = path.display();
        if page.empty > 0 {
            problems.push(format!(
                "{at}: {} code blocks are empty; does what they include exist?",
                page.empty
            ));
        }
        for link in page.links.iter().filter(|link| stays(link)) {
            followed += 1;
            if let Err(problem) = follow(folder, &pages, path, link) {
                problems.push(format!("{at}: `{link}` {problem}"));
            }
        }
    }
    refuse(&problems)?;
    Ok(followed)
}

/// Follows the links of Markdown files at the root; returns how many there are.
pub(super) fn check_texts(root: &Path, names: &[&str]) -> Result<usize> {
    let mut followed = 0;
    let mut problems = Vec::new();
    for name in names {
        let text =
            fs::read_to_string(root.join(name)).with_context(|| format!("cannot read {name}"))?;
        for link in markdown_links(&text).into_iter().filter(|link| stays(link)) {
            followed += 1;
            let (path, _) = parts(link);
            if !root.join(decoded(path)).exists() {
                problems.push(format!("{name}: `{link}` leads to no file"));
            }
        }
    }
    refuse(&problems)?;
    Ok(followed)
}

fn refuse(problems: &[String]) -> Result<()> {
    if !problems.is_empty() {
        bail!(
            "{} links or code blocks are broken:\n  {}",
            problems.len(),
            problems.join("\n  ")
        );
    }
    Ok(())
}

/// Every page below `root`, by its path there.
fn read_pages(root: &Path, below: &Path, pages: &mut BTreeMap<PathBuf, Page>) -> Result<()> {
    let folder = root.join(below);
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            read_pages(root, &path, pages)?;
        } else if path.extension().is_some_and(|ending| ending == "html") {
            let html = fs::read_to_string(entry.path())
                .with_context(|| format!("cannot read {}", entry.path().display()))?;
            pages.insert(path, Page::read(&html));
        }
    }
    Ok(())
}

/// Whether a link leads to something we have: it names no scheme and no host.
fn stays(link: &str) -> bool {
    let scheme = link.split(['/', '?', '#']).next().unwrap_or_default();
    !scheme.contains(':') && !link.starts_with("//")
}

fn follow(
    folder: &Path,
    pages: &BTreeMap<PathBuf, Page>,
    from: &Path,
    link: &str,
) -> Result<(), &'static str> {
    let (path, anchor) = parts(link);
    let mut to = if path.is_empty() {
        from.to_owned()
    } else {
        let beside = from.parent().unwrap_or(Path::new(""));
        within(&beside.join(decoded(path))).ok_or("leads out of the book")?
    };
    if folder.join(&to).is_dir() {
        to.push("index.html");
    }
    if !folder.join(&to).is_file() {
        return Err("leads to no file");
    }
    match (anchor, pages.get(&to)) {
        (None | Some(""), _) => Ok(()),
        (Some(anchor), Some(page)) if page.ids.contains(&decoded(anchor)) => Ok(()),
        (Some(_), _) => Err("leads to no heading"),
    }
}

/// The path of a link and what stands after `#`.
fn parts(link: &str) -> (&str, Option<&str>) {
    let (path, anchor) = match link.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (link, None),
    };
    (path.split('?').next().unwrap_or_default(), anchor)
}

/// A relative path without `.` and `..`; none where it leads up and out, or is not relative.
fn within(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir if clean.pop() => {}
            _ => return None,
        }
    }
    Some(clean)
}

/// `%20` and the like as what they stand for.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%').then(|| after.get(..2)).flatten();
        let byte = code.and_then(|code| u8::from_str_radix(str::from_utf8(code).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Targets of `[text](target)` and `[name]: target` outside code.
fn markdown_links(text: &str) -> Vec<&str> {
    let mut links = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        // Every second piece between backticks is code.
        let prose = line.split('`').step_by(2);
        if line.starts_with('[')
            && let Some((_, target)) = line.split_once("]: ")
        {
            links.push(target);
        }
        for piece in prose {
            let targets = piece.split("](").skip(1);
            links.extend(targets.map(|target| target.split(')').next().unwrap_or_default()));
        }
    }
    // A title may follow.
    links
        .iter()
        .filter_map(|link| link.split_whitespace().next())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a book of one page `a/b.html` that links there.
    fn problem(link: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("index.html", "<h1 id=\"top\">");
        write("a/two words.png", "");
        write(
            "a/b.html",
            &format!("<h1 id=\"h\u{e9}\"><a href=\"{link}\">"),
        );
        check_book(folder.path())
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        for link in [
            "b.html",
            "../index.html#top",
            "../",
            "..#top",
            "#h%C3%A9",
            "#h\u{e9}",
            "#",
            "two%20words.png",
            "b.html?x#h\u{e9}",
            "./../a/b.html",
            "https://example.org/none#x",
            "mailto:x@example.org",
            "//example.org/none",
        ] {
            assert_eq!(problem(link), None, "{link}");
        }
    }

    #[test]
    fn links_that_lead_nowhere_are_named_with_their_page() {
        for (link, why) in [
            ("c.html", "leads to no file"),
            ("../index.html#bottom", "leads to no heading"),
            ("#top", "leads to no heading"),
            ("two%20words.png#x", "leads to no heading"),
            ("../../README.md", "leads out of the book"),
            ("/index.html", "leads out of the book"),
        ] {
            let problem = problem(link).unwrap();
            assert!(
                problem.contains(&format!("a/b.html: `{link}` {why}")),
                "{problem}"
            );
        }
    }

    #[test]
    fn empty_code_is_a_problem() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.html"), "<pre><code></code></pre>").unwrap();
        let error = check_book(folder.path()).unwrap_err().to_string();
        assert!(error.contains("a.html: 1 code blocks are empty"), "{error}");
    }

    #[test]
    fn texts_of_the_repository_are_followed_outside_code() {
        let root = tempfile::tempdir().unwrap();
        let text = "[a](A.md) and ![b](B.png \"title\"), [c](https://example.org) `[d](D.md)`\n\
             ```\n[e](E.md)\n```\n| [f](F.md#x) | [g](#here) |\n[h]: H.md\n";
        fs::write(root.path().join("README.md"), text).unwrap();
        let error = check_texts(root.path(), &["README.md"])
            .unwrap_err()
            .to_string();
        let named: Vec<&str> = error.lines().skip(1).map(str::trim).collect();
        let wanted = ["A.md", "B.png", "F.md#x", "H.md"]
            .map(|link| format!("README.md: `{link}` leads to no file"));
        let sorted = |mut all: Vec<String>| {
            all.sort();
            all
        };
        let named = named.into_iter().map(str::to_owned).collect();
        assert_eq!(sorted(named), wanted);
        for name in ["A.md", "B.png", "F.md", "H.md"] {
            fs::write(root.path().join(name), "").unwrap();
        }
        assert_eq!(check_texts(root.path(), &["README.md"]).unwrap(), 5);
    }
}
