//! Checks the published crate, applies every edit in memory, then writes what differs.
use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::{ENGINE_PACKAGE, ENGINE_VERSION, Edit, Patch, PatchError, Place};

/// What [`Patch::apply`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Edits and whole files applied.
    pub edits: usize,
    /// Files written because they were missing or different.
    pub written: usize,
    /// Whether anything was written, that is, whether the engine has to be compiled again.
    pub changed: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { edits, written, .. } = self;
        if self.changed {
            write!(
                f,
                "{ENGINE_PACKAGE} {ENGINE_VERSION} patched: {edits} edits, {written} files written"
            )
        } else {
            write!(
                f,
                "{ENGINE_PACKAGE} {ENGINE_VERSION} is patched already ({edits} edits)"
            )
        }
    }
}

impl Patch {
    /// Makes `target` the patched copy of the published crate at `pristine`.
    ///
    /// `hook` is the manifest value of the `kv-hook` dependency, for example `{ path = "../../integration/hook" }`.
    /// Doing it twice changes nothing, not even a time stamp, so that cargo does not compile the engine again.
    ///
    /// # Errors
    ///
    /// [`PatchError`], naming the edit or the file. Nothing is written before every edit has been applied in memory.
    pub fn apply(&self, pristine: &Path, target: &Path, hook: &str) -> Result<Report, PatchError> {
        check_release(pristine)?;
        let mut files = self.read_touched(pristine)?;
        for edit in &self.edits {
            let text = files.get_mut(&edit.file).ok_or_else(|| edit.unlisted())?;
            *text = edit.applied(text, hook)?;
        }
        for write in &self.writes {
            files.insert(write.file.clone(), write.content()?.to_owned());
        }
        // The manifest is the first of them: a copy that was interrupted is known for what it is.
        let mut written = 0;
        for (name, text) in &files {
            written += usize::from(write_if_different(&target.join(name), text.as_bytes())?);
        }
        written += copy_untouched(pristine, target, &files)?;
        Ok(Report {
            edits: self.edits.len() + self.writes.len(),
            written,
            changed: written > 0,
        })
    }

    /// Reads and checks every published file that an edit or a whole file touches.
    fn read_touched(&self, pristine: &Path) -> Result<BTreeMap<String, String>, PatchError> {
        let mut files = BTreeMap::new();
        for (file, expected) in &self.sha256 {
            let path = pristine.join(file);
            let bytes = fs::read(&path).map_err(|source| PatchError::Io {
                path: path.clone(),
                source,
            })?;
            let found = hex(&Sha256::digest(&bytes));
            let edit = self.first_edit_of(file);
            if found != *expected {
                return Err(PatchError::Checksum {
                    edit,
                    file: file.clone(),
                    found,
                    expected: expected.clone(),
                });
            }
            let text = String::from_utf8(bytes)
                .map_err(|e| PatchError::Malformed(format!("`{edit}`: {file} is not text: {e}")))?;
            files.insert(file.clone(), text);
        }
        Ok(files)
    }

    fn first_edit_of(&self, file: &str) -> String {
        let edits = self.edits.iter().filter(|e| e.file == file).map(|e| &e.id);
        let writes = self.writes.iter().filter(|w| w.file == file).map(|w| &w.id);
        edits.chain(writes).next().cloned().unwrap_or_default()
    }
}

impl Edit {
    fn unlisted(&self) -> PatchError {
        PatchError::Unlisted {
            edit: self.id.clone(),
            file: self.file.clone(),
        }
    }

    fn applied(&self, text: &str, hook: &str) -> Result<String, PatchError> {
        let times = text.matches(&self.anchor).count();
        if times != 1 {
            let (edit, file, anchor) = (self.id.clone(), self.file.clone(), self.anchor.clone());
            return Err(PatchError::Anchor {
                edit,
                file,
                times,
                anchor,
            });
        }
        let ours = self.text.replace("@HOOK@", hook);
        let new = match self.place {
            Place::Before => format!("{ours}{}", self.anchor),
            Place::After => format!("{}{ours}", self.anchor),
            Place::Replace => ours,
        };
        Ok(text.replacen(&self.anchor, &new, 1))
    }
}

/// Refuses another package or another release before anything is compared in detail.
fn check_release(pristine: &Path) -> Result<(), PatchError> {
    #[derive(serde::Deserialize)]
    struct Manifest {
        package: Package,
    }
    #[derive(serde::Deserialize)]
    struct Package {
        name: String,
        version: String,
    }
    let path = pristine.join("Cargo.toml");
    let text = fs::read_to_string(&path).map_err(|source| PatchError::Io {
        path: path.clone(),
        source,
    })?;
    let Manifest { package } = toml::from_str(&text)
        .map_err(|e| PatchError::Malformed(format!("{}: {e}", path.display())))?;
    let found = format!("{} {}", package.name, package.version);
    let wanted = format!("{ENGINE_PACKAGE} {ENGINE_VERSION}");
    if found == wanted {
        Ok(())
    } else {
        Err(PatchError::WrongEngine {
            path,
            found,
            wanted,
        })
    }
}

/// Copies what no edit touches and removes what the published crate does not have.
fn copy_untouched(
    pristine: &Path,
    target: &Path,
    touched: &BTreeMap<String, String>,
) -> Result<usize, PatchError> {
    let wanted = list(pristine)?;
    let mut written = 0;
    for name in &wanted {
        if !touched.contains_key(&slashes(name)) {
            let path = pristine.join(name);
            let bytes = fs::read(&path).map_err(|source| PatchError::Io { path, source })?;
            written += usize::from(write_if_different(&target.join(name), &bytes)?);
        }
    }
    if target.exists() {
        for name in list(target)? {
            if !wanted.contains(&name) && !touched.contains_key(&slashes(&name)) {
                let path = target.join(&name);
                fs::remove_file(&path).map_err(|source| PatchError::Io { path, source })?;
                written += 1;
            }
        }
    }
    Ok(written)
}

fn slashes(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "/")
}

/// Every file below `root`, relative to it, without cargo's own notes and lock.
fn list(root: &Path) -> Result<Vec<PathBuf>, PatchError> {
    fn walk(root: &Path, below: &Path, out: &mut Vec<PathBuf>) -> std::io::Result<()> {
        for entry in fs::read_dir(root.join(below))? {
            let entry = entry?;
            let name = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                walk(root, &name, out)?;
            } else if !matches!(
                entry.file_name().to_str(),
                Some(".cargo-ok" | ".cargo_vcs_info.json" | "Cargo.lock")
            ) {
                out.push(name);
            }
        }
        Ok(())
    }
    let mut out = Vec::new();
    walk(root, Path::new(""), &mut out).map_err(|source| PatchError::Io {
        path: root.to_owned(),
        source,
    })?;
    out.sort();
    Ok(out)
}

fn write_if_different(path: &Path, bytes: &[u8]) -> Result<bool, PatchError> {
    let io = |source| PatchError::Io {
        path: path.to_owned(),
        source,
    };
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(io)?;
    }
    fs::write(path, bytes).map_err(io)?;
    Ok(true)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(anchor: &str, place: Place) -> Edit {
        Edit {
            id: "greet".into(),
            file: "a.rs".into(),
            reason: "a test".into(),
            anchor: anchor.into(),
            place,
            text: "[@HOOK@]".into(),
        }
    }

    #[test]
    fn text_goes_before_after_or_in_place_of_the_anchor() {
        let apply = |place| {
            edit("b", place)
                .applied("abc", "x")
                .expect("the anchor is there")
        };
        assert_eq!(apply(Place::Before), "a[x]bc");
        assert_eq!(apply(Place::After), "ab[x]c");
        assert_eq!(apply(Place::Replace), "a[x]c");
    }

    #[test]
    fn a_missing_or_doubled_anchor_is_an_error_that_names_the_edit() {
        for (text, times) in [("xyz", 0), ("bab", 2)] {
            let error = edit("b", Place::After)
                .applied(text, "")
                .expect_err("not exactly once");
            assert!(
                matches!(&error, PatchError::Anchor { edit, times: n, .. } if edit == "greet" && *n == times)
            );
            assert!(error.to_string().contains("greet"), "{error}");
        }
    }

    #[test]
    fn a_list_that_names_a_file_we_do_not_ship_is_malformed() {
        let text =
            "edit = []\n[sha256]\n[[write]]\nid='w'\nfile='f'\nreason='r'\nfrom='nowhere.rs'\n";
        assert!(
            matches!(Patch::parse(text), Err(PatchError::Malformed(m)) if m.contains("nowhere.rs"))
        );
    }
}
