//! `cargo xtask vendor`: a patched engine in a folder of somebody else's app, and the lines that make the app use it.

use std::{
    fmt, fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use kv_patch::{ENGINE_PACKAGE, ENGINE_VERSION};

use crate::{
    engine,
    metadata::Metadata,
    workspace::{Workspace, make_folder},
};

/// The package that an app depends on.
const FACADE: &str = "mistralrs-kv";
const MANIFEST: &str = "Cargo.toml";

/// Writes the engine to `into/mistralrs-core` and says what the app has to paste.
pub(crate) fn run(workspace: &Workspace, into: &Path, hook: Option<&Path>) -> Result<Paste> {
    let folder = into.join(ENGINE_PACKAGE);
    check_free(&folder)?;
    let hook = match hook {
        Some(folder) => canonical(folder)?,
        None => canonical(&workspace.root().join("integration/hook"))?,
    };
    if !hook.join(MANIFEST).is_file() {
        bail!(
            "{} holds no crate; name the folder of kv-hook with `--hook`",
            hook.display()
        );
    }
    make_folder(&folder)?;
    let folder = canonical(&folder)?;
    let value = format!("{{ path = {} }}", toml_string(&relative(&folder, &hook)));
    let report = engine::patch(workspace, &folder, &value)?;
    println!("vendor: {report}");
    println!(
        "vendor: {} {}",
        folder.display(),
        if report.changed {
            "is ready"
        } else {
            "stays as it was"
        }
    );
    let paste = Paste {
        app: App::above(workspace, &folder),
        facade: facade(workspace, &hook)?,
        engine: folder,
    };
    println!("\n{paste}");
    Ok(paste)
}

/// Refuses a folder that holds something else, also another copy of the engine, which may be somebody's work.
fn check_free(folder: &Path) -> Result<()> {
    let is_empty = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if folder.exists() && !is_empty() && !is_ours(folder) {
        bail!(
            "{} is there and was not written by this command; remove it, or name another folder with `--into`",
            folder.display()
        );
    }
    Ok(())
}

/// Whether the folder is the engine with the dependency that only our patch adds.
fn is_ours(folder: &Path) -> bool {
    let manifest = fs::read_to_string(folder.join(MANIFEST)).unwrap_or_default();
    holds(folder, ENGINE_PACKAGE) && manifest.lines().any(|line| line.starts_with("kv-hook = "))
}

/// The app's dependency: the one that `hook` belongs to, because the engine and it must agree on that crate.
fn facade(workspace: &Workspace, hook: &Path) -> Result<PathBuf> {
    match hook.parent() {
        Some(parent) if holds(parent, FACADE) => Ok(parent.to_owned()),
        _ => canonical(&workspace.root().join("integration")),
    }
}

/// Whether the folder is the one of this package.
fn holds(folder: &Path, package: &str) -> bool {
    let name = format!("name = \"{package}\"");
    fs::read_to_string(folder.join(MANIFEST))
        .is_ok_and(|text| text.lines().any(|line| line == name))
}

/// The cargo project whose folder holds the engine.
#[derive(Debug, PartialEq, Eq)]
struct App {
    /// Of the nearest manifest.
    folder: PathBuf,
    /// Of the manifest at the root, the only one whose `[patch]` cargo reads.
    root: PathBuf,
    /// Whether the nearest manifest has no package.
    is_virtual: bool,
    /// Whether the workspace counts the engine among its own packages, because its `members` say so.
    takes_engine_in: bool,
}

impl App {
    /// None where no manifest that cargo can read stands above the engine, or only this checkout's own.
    fn above(workspace: &Workspace, engine: &Path) -> Option<Self> {
        let mut folders = engine.ancestors().skip(1);
        let folder = folders.find(|folder| folder.join(MANIFEST).is_file())?;
        let metadata = Metadata::at(workspace, folder).ok()?;
        let root = canonical(&metadata.workspace_root).ok()?;
        if root == canonical(workspace.root()).ok()? {
            return None;
        }
        let is_member = |folder: &Path| {
            let mut packages = metadata.packages.iter();
            packages.any(|package| package.folder() == folder)
        };
        Some(Self {
            folder: folder.to_owned(),
            root,
            is_virtual: !is_member(folder),
            takes_engine_in: is_member(engine),
        })
    }
}

/// What a reader has to do by hand.
#[derive(Debug)]
pub(crate) struct Paste {
    app: Option<App>,
    facade: PathBuf,
    engine: PathBuf,
}

impl Paste {
    /// The dependency, its path as seen from the app's manifest.
    pub(crate) fn dependency(&self) -> Entry {
        let app = self.app.as_ref();
        let path = seen_from(app.map(|app| &*app.folder), &self.facade);
        Entry {
            table: match app {
                Some(App {
                    is_virtual: true, ..
                }) => "workspace.dependencies",
                _ => "dependencies",
            },
            line: format!("{FACADE} = {{ path = {path} }}"),
        }
    }

    /// The replacement of the engine, its path as seen from the manifest at the root.
    pub(crate) fn patch(&self) -> Entry {
        let path = seen_from(self.app.as_ref().map(|app| &*app.root), &self.engine);
        Entry {
            table: "patch.crates-io",
            line: format!("{ENGINE_PACKAGE} = {{ path = {path} }}"),
        }
    }
}

/// One line of a manifest, and the table that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) table: &'static str,
    pub(crate) line: String,
}

impl Entry {
    /// The manifest with this line, as a reader would paste it: below the table's head where there is one.
    pub(crate) fn pasted_into(&self, manifest: &str) -> String {
        let head = format!("[{}]\n", self.table);
        let (before, after) = match manifest.find(&head) {
            Some(at) => manifest.split_at(at + head.len()),
            None => return format!("{manifest}\n{self}"),
        };
        format!("{before}{}\n{after}", self.line)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[{}]\n{}", self.table, self.line)
    }
}

impl fmt::Display for Paste {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dependency, patch) = (self.dependency(), self.patch());
        match &self.app {
            None => {
                writeln!(f, "Paste this into your app's {MANIFEST}:\n\n{dependency}")?;
                writeln!(
                    f,
                    "and this into the one at the root of its workspace:\n\n{patch}"
                )?;
            }
            Some(app) => {
                let (here, root) = (app.folder.join(MANIFEST), app.root.join(MANIFEST));
                writeln!(f, "Paste this into {}:\n\n{dependency}", here.display())?;
                if here != root && !app.is_virtual {
                    writeln!(f, "and this into {}:\n", root.display())?;
                }
                writeln!(f, "{patch}")?;
                if app.is_virtual {
                    let line = format!("{FACADE} = {{ workspace = true }}");
                    writeln!(f, "and `{line}` into the crate that uses it.\n")?;
                }
                if app.takes_engine_in {
                    let path = seen_from(Some(&app.root), &self.engine);
                    writeln!(
                        f,
                        "`members` there takes the engine in; add `exclude = [{path}]` to [workspace].\n"
                    )?;
                }
            }
        }
        write!(
            f,
            "Cargo changes Cargo.lock by itself, once it is called without `--locked`. Where it says that the patch `was \
             not used`,\nanother release is locked: `cargo update -p {ENGINE_PACKAGE} --precise {ENGINE_VERSION}`."
        )
    }
}

/// `path` as TOML text: relative to the folder of a manifest, or in full where that is not known.
fn seen_from(folder: Option<&Path>, path: &Path) -> String {
    toml_string(&folder.map_or_else(|| path.to_owned(), |folder| relative(folder, path)))
}

fn canonical(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path)
        .with_context(|| format!("{} cannot be found; check the path", path.display()))
}

/// The way from the folder `from` to `to`, both absolute; `to` itself where there is none.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from
        .components()
        .zip(to.components())
        .take_while(|(a, b)| a == b)
        .count();
    if shared == 0 {
        return to.to_owned();
    }
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

/// A path as TOML text; forward slashes work on every system.
fn toml_string(path: &Path) -> String {
    let text = path
        .to_string_lossy()
        .replace('\\', "/")
        .replace('"', "\\\"");
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::write_if_different;

    const PACKAGE: &str = "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2024\"\n";

    /// What a reader is told whose project has these manifests and who vendors into `into`.
    fn told(manifests: &[(&str, &str)], into: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let folder = canonical(folder.path()).unwrap();
        let write = |path: &str, text: &str| {
            write_if_different(&folder.join(path), text).unwrap();
        };
        // The checkout, beside the project.
        write("headroom/Cargo.toml", "[workspace]\n");
        for (path, text) in manifests {
            write(&format!("{path}/Cargo.toml"), text);
            write(&format!("{path}/src/lib.rs"), "");
        }
        let engine = folder.join(into).join(ENGINE_PACKAGE);
        write_if_different(
            &engine.join(MANIFEST),
            &PACKAGE.replace("app", ENGINE_PACKAGE),
        )
        .unwrap();
        write_if_different(&engine.join("src/lib.rs"), "").unwrap();
        let workspace = Workspace::at(&folder.join("headroom"));
        let paste = Paste {
            app: App::above(&workspace, &engine),
            facade: folder.join("headroom/integration"),
            engine,
        };
        let told = paste.to_string();
        assert!(
            told.contains("cargo update -p mistralrs-core --precise 0.8.1"),
            "{told}"
        );
        let (paste, _) = told.split_once("Cargo changes Cargo.lock").unwrap();
        paste.replace(&*folder.to_string_lossy(), "/home")
    }

    #[test]
    fn app_of_one_package_pastes_both_into_one_manifest() {
        let wanted = "Paste this into /home/app/Cargo.toml:\n\n\
             [dependencies]\nmistralrs-kv = { path = \"../headroom/integration\" }\n\n\
             [patch.crates-io]\nmistralrs-core = { path = \"vendor/mistralrs-core\" }\n\n";
        assert_eq!(told(&[("app", PACKAGE)], "app/vendor"), wanted);
        // A workspace that does not name the engine needs no `exclude`: cargo leaves replacements out.
        let workspace = format!("{PACKAGE}[workspace]\n");
        assert_eq!(told(&[("app", &workspace)], "app/vendor"), wanted);
    }

    #[test]
    fn member_pastes_the_replacement_at_the_root() {
        let member = ("app/crates/a", PACKAGE);
        let root = (
            "app",
            "[workspace]\nmembers = [\"crates/a\"]\nresolver = \"3\"\n",
        );
        let wanted = "Paste this into /home/app/crates/a/Cargo.toml:\n\n\
             [dependencies]\nmistralrs-kv = { path = \"../../../headroom/integration\" }\n\n\
             and this into /home/app/Cargo.toml:\n\n\
             [patch.crates-io]\nmistralrs-core = { path = \"crates/a/vendor/mistralrs-core\" }\n\n";
        assert_eq!(told(&[root, member], "app/crates/a/vendor"), wanted);
    }

    #[test]
    fn workspace_without_a_package_shares_the_dependency_and_may_have_to_exclude() {
        let member = ("app/crates/a", PACKAGE);
        let root = (
            "app",
            "[workspace]\nmembers = [\"crates/*\"]\nresolver = \"3\"\n",
        );
        let wanted = |folder: &str| {
            format!(
                "Paste this into /home/app/Cargo.toml:\n\n\
                 [workspace.dependencies]\nmistralrs-kv = {{ path = \"../headroom/integration\" }}\n\n\
                 [patch.crates-io]\nmistralrs-core = {{ path = \"{folder}/mistralrs-core\" }}\n\n\
                 and `mistralrs-kv = {{ workspace = true }}` into the crate that uses it.\n\n"
            )
        };
        assert_eq!(told(&[root, member], "app/vendor"), wanted("vendor"));
        let exclude = "`members` there takes the engine in; add `exclude = [\"crates/mistralrs-core\"]` to [workspace].\n\n";
        assert_eq!(
            told(&[root, member], "app/crates"),
            wanted("crates") + exclude
        );
    }

    #[test]
    fn without_an_app_paths_are_whole() {
        let wanted = "Paste this into your app's Cargo.toml:\n\n\
             [dependencies]\nmistralrs-kv = { path = \"/home/headroom/integration\" }\n\n\
             and this into the one at the root of its workspace:\n\n\
             [patch.crates-io]\nmistralrs-core = { path = \"/home/INTO/mistralrs-core\" }\n\n";
        // The checkout itself is nobody's app.
        for into in ["vendor", "headroom/target/vendor"] {
            assert_eq!(told(&[], into), wanted.replace("INTO", into));
        }
    }

    #[test]
    fn folder_of_something_else_is_refused_and_named() {
        let into = tempfile::tempdir().unwrap();
        let folder = into.path().join(ENGINE_PACKAGE);
        check_free(&folder).unwrap();
        make_folder(&folder).unwrap();
        check_free(&folder).unwrap();
        fs::write(folder.join("notes.txt"), "mine").unwrap();
        let error = check_free(&folder).unwrap_err().to_string();
        assert!(error.starts_with(&folder.display().to_string()), "{error}");
        assert!(error.contains("remove it"), "{error}");
        // The published engine, as `cargo vendor` writes it there, or a fork.
        let engine = PACKAGE.replace("app", ENGINE_PACKAGE);
        fs::write(folder.join(MANIFEST), &engine).unwrap();
        check_free(&folder).unwrap_err();
        let patched = format!("{engine}\n[dependencies]\nkv-hook = {{ path = \"x\" }}\n");
        fs::write(folder.join(MANIFEST), patched).unwrap();
        check_free(&folder).unwrap();
    }

    #[test]
    fn dependency_goes_with_the_hook() {
        let folder = tempfile::tempdir().unwrap();
        let folder = canonical(folder.path()).unwrap();
        let workspace = Workspace::at(&folder);
        let ours = folder.join("integration");
        make_folder(&ours.join("hook")).unwrap();
        let elsewhere = folder.join("other/hook");
        assert_eq!(facade(&workspace, &elsewhere).unwrap(), ours);
        let other = elsewhere.parent().unwrap();
        let manifest = PACKAGE.replace("app", FACADE);
        write_if_different(&other.join(MANIFEST), &manifest).unwrap();
        assert_eq!(facade(&workspace, &elsewhere).unwrap(), other);
    }

    #[test]
    fn relative_goes_up_then_down() {
        let way = relative(Path::new("/a/b/c"), Path::new("/a/d/e"));
        assert_eq!(way, Path::new("../../d/e"));
        assert_eq!(toml_string(&way), "\"../../d/e\"");
    }
}
