//! What must hold of every build, whichever policies it was asked for.
mod common;

use common::{compressed, engine, holds_less, start, tiny};
use mistralrs_kv::{Prompt, policies};

/// Every policy that has a feature, and whether this build has it.
const FEATURES: [(&str, bool); 7] = [
    ("ada-kv", cfg!(feature = "ada-kv")),
    ("duo-attention", cfg!(feature = "duo-attention")),
    ("h2o", cfg!(feature = "h2o")),
    ("head-kv", cfg!(feature = "head-kv")),
    ("pyramid-kv", cfg!(feature = "pyramid-kv")),
    ("snap-kv", cfg!(feature = "snap-kv")),
    ("streaming-llm", cfg!(feature = "streaming-llm")),
];

#[test]
fn a_build_has_the_policies_of_its_features() {
    let asked = FEATURES.iter().filter(|(_, is_on)| *is_on);
    let mut expected: Vec<&str> = asked.map(|(name, _)| *name).collect();
    expected.push("keep-all");
    expected.sort_unstable();
    assert_eq!(policies().names().collect::<Vec<_>>(), expected);
}

/// A tiny random model answers under each policy of the build, holds less than everything, and gives all pages back.
#[tokio::test(flavor = "multi_thread")]
async fn every_policy_of_a_build_runs_in_the_engine() {
    let folder = tempfile::tempdir().expect("makes a folder");
    let model = folder.path().join("tiny.gguf");
    tiny::write(&model, 1);
    let prompt: Vec<u32> = (0..200).map(|i| i * 7 % (tiny::VOCABULARY - 1)).collect();
    for name in policies().names().filter(|name| *name != "keep-all") {
        let cache = compressed(name);
        let engine = start(engine(model.clone(), Some(cache))).await;
        holds_less(&engine, Prompt::Tokens(prompt.clone()), name).await;
    }
}
