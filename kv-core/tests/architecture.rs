//! Who may know whom, read from the manifests; and that a policy has one name everywhere.
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Every package of the workspace with what it depends on, tests' dependencies apart.
struct Workspace {
    packages: BTreeMap<String, Package>,
    root: PathBuf,
}

struct Package {
    dependencies: BTreeSet<String>,
    /// Those of them that are there only with a feature.
    optional: BTreeSet<String>,
    features: BTreeSet<String>,
    folder: PathBuf,
}

fn workspace() -> Workspace {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().expect("packages").iter();
    Workspace {
        root: text(&metadata["workspace_root"]).into(),
        packages: packages
            .map(|package| {
                let dependencies = package["dependencies"].as_array().expect("dependencies");
                let normal = || {
                    dependencies
                        .iter()
                        .filter(|dependency| dependency["kind"].is_null())
                };
                let optional = normal().filter(|dependency| dependency["optional"] == true);
                let features = package["features"].as_object().expect("features");
                let manifest = PathBuf::from(text(&package["manifest_path"]));
                let read = Package {
                    dependencies: normal()
                        .map(|dependency| text(&dependency["name"]))
                        .collect(),
                    optional: optional
                        .map(|dependency| text(&dependency["name"]))
                        .collect(),
                    features: features.keys().cloned().collect(),
                    folder: manifest.parent().expect("a folder").to_owned(),
                };
                (text(&package["name"]), read)
            })
            .collect(),
    }
}

#[test]
fn dependencies_point_inwards() {
    let Workspace { packages, .. } = workspace();
    let ours = |package: &Package| -> BTreeSet<String> {
        package
            .dependencies
            .iter()
            .filter(|name| packages.contains_key(*name))
            .cloned()
            .collect()
    };
    let core = BTreeSet::from(["kv-core".to_owned()]);
    for (name, package) in &packages {
        let allowed = match name.as_str() {
            "kv-core" | "kv-hook" | "kv-patch" | "ptx-emulator" | "cuda-host-shim" => {
                BTreeSet::new()
            }
            "attention-kernels" => BTreeSet::from(["kv-core", "ptx-emulator"].map(str::to_owned)),
            "kv-conform" => BTreeSet::from(["kv-core", "attention-kernels"].map(str::to_owned)),
            policy if policy.starts_with("kv-policy-") => core.clone(),
            _ => continue,
        };
        let found = ours(package);
        assert!(
            found.is_subset(&allowed),
            "{name} depends on {found:?}, may depend on {allowed:?}"
        );
        for engine in [
            "mistralrs-core",
            "mistralrs",
            "mistralrs-server-core",
            "candle-core",
        ] {
            let may_know = match name.as_str() {
                "kv-hook" => engine == "candle-core",
                // Where a GPU is asked for.
                "attention-kernels" => engine == "candle-core" && package.optional.contains(engine),
                _ => false,
            };
            assert!(
                may_know || !package.dependencies.contains(engine),
                "{name} must not know {engine}"
            );
        }
        assert!(
            !package.dependencies.contains("ptx-emulator")
                || package.optional.contains("ptx-emulator"),
            "the emulator is for tests"
        );
    }
}

#[test]
fn a_policy_has_one_name_everywhere() {
    let Workspace { packages, root } = workspace();
    let facade = &packages["mistralrs-kv"].features;
    let policies = packages
        .iter()
        .filter_map(|(name, package)| Some((name.strip_prefix("kv-policy-")?, package)));
    let mut count = 0;
    for (name, package) in policies {
        count += 1;
        assert_eq!(
            package.folder,
            root.join("policies").join(name),
            "folder of {name}"
        );
        if name == "template" {
            continue; // to copy from, not to run
        }
        assert!(
            facade.contains(name),
            "mistralrs-kv has no feature `{name}`: {facade:?}"
        );
        let page = Path::new("docs/src/policies").join(format!("{name}.md"));
        assert!(root.join(&page).is_file(), "{} is missing", page.display());
    }
    assert!(count >= 2, "policies are found");
}
