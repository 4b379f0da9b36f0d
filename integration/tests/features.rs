//! What must hold of every build, whichever policies it was asked for.
mod common;

use std::{collections::BTreeSet, fs, path::Path};

use common::{compressed, engine, holds_less, start, tiny};
use mistralrs_kv::{Prompt, policies, policy::FEATURES};

#[test]
fn a_build_has_the_policies_of_its_features() {
    let asked = FEATURES.iter().filter(|(_, is_on)| *is_on);
    let mut expected: Vec<&str> = asked.map(|(name, _)| *name).collect();
    expected.push("keep-all");
    expected.sort_unstable();
    assert_eq!(policies().names().collect::<Vec<_>>(), expected);
}

/// A folder of `policies` is a feature, and that feature one line of the registry and one of the default list.
#[test]
fn every_policy_of_the_workspace_has_its_lines() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = fs::read_dir(here.join("../policies")).expect("the policies");
    let folders: BTreeSet<String> = folders
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().join("Cargo.toml").is_file())
        .map(|entry| entry.file_name().into_string().expect("a name"))
        // To copy from, not to run.
        .filter(|name| name != "template")
        .collect();
    let manifest = fs::read_to_string(here.join("Cargo.toml")).expect("the manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let features = manifest["features"].as_table().expect("features");
    let gives = |feature: &str, what: &str| {
        let given = features[feature].as_array().expect("a list");
        given.iter().any(|given| given.as_str() == Some(what))
    };
    let is_policy = |name: &&String| gives(name, &format!("dep:kv-policy-{name}"));
    let with_feature: BTreeSet<String> = features.keys().filter(is_policy).cloned().collect();
    let registered: BTreeSet<String> = FEATURES
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(
        with_feature, folders,
        "features in integration/Cargo.toml, folders"
    );
    assert_eq!(
        registered, folders,
        "lines in integration/src/registry.rs, folders"
    );
    let left_out: Vec<&String> = folders
        .iter()
        .filter(|name| !gives("default", name))
        .collect();
    assert!(
        left_out.is_empty(),
        "not in `default` of integration/Cargo.toml: {left_out:?}"
    );
}

/// The policies that a build with this feature alone has.
fn with_feature(features: &toml::Table, feature: &str) -> Vec<String> {
    let gives = features[feature].as_array().expect("a list");
    let others = gives.iter().filter_map(|given| given.as_str());
    let others = others.filter(|given| features.contains_key(*given));
    let all = others.flat_map(|other| with_feature(features, other));
    all.chain([feature.to_owned()]).collect()
}

/// A tiny random model answers under each policy of the build, with the policies of its feature alone at hand; it holds less than everything,
/// and gives all pages back.
#[tokio::test(flavor = "multi_thread")]
async fn every_policy_of_a_build_runs_in_the_engine_by_its_feature_alone() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(here.join("Cargo.toml")).expect("the manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let features = manifest["features"].as_table().expect("features");
    let folder = tempfile::tempdir().expect("makes a folder");
    let model = folder.path().join("tiny.gguf");
    tiny::write(&model, 1);
    let prompt: Vec<u32> = (0..200).map(|i| i * 7 % (tiny::VOCABULARY - 1)).collect();
    for name in policies().names().filter(|name| *name != "keep-all") {
        let at_hand = with_feature(features, name);
        let at_hand: Vec<&str> = at_hand.iter().map(String::as_str).collect();
        let mut registry = policies();
        registry.keep_only(&at_hand);
        assert!(registry.names().eq(BTreeSet::from_iter(at_hand)));
        let cache = compressed(name).registry(registry);
        let engine = start(engine(model.clone(), Some(cache))).await;
        holds_less(&engine, Prompt::Tokens(prompt.clone()), name).await;
    }
}
