//! What a profile does to the heads' budgets.
use std::fs;

use kv_core::{Budget, Geometry, LayerShares, Policy, PolicyConfig, conformance::geometry};
use kv_policy_head_kv::{HeadKv, HeadKvConfig, Rounding};

fn bound(config: HeadKvConfig, model: &Geometry, budget: Budget) -> HeadKv {
    config
        .bind(model, budget)
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Scores are found by key, whatever their order, and lists may differ in length.
#[test]
fn keys_say_which_head() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("scores.json");
    let text = r#"{"1-1": 0, "0-1": [2, 4], "1-0": [0.0, 0.0, 3.0], "0-0": 0}"#;
    fs::write(&path, text).expect("written");
    let model = Geometry {
        group: 1,
        ..geometry(2)
    };
    let config = HeadKvConfig {
        profile: path.display().to_string(),
        beta: 2.0,
        ..HeadKvConfig::default()
    };
    let budget = Budget::Tokens(28);
    let policy = bound(config, &model, budget);
    // 20 besides the window: 10 for each head, and 40 shared 3 to 1.
    let tokens = |layer| policy.capacities(layer, 1000, 28);
    assert_eq!([tokens(0), tokens(1)], [[18, 48], [28, 18]]);
    assert_eq!(policy.notice(), None);
}

/// The profiles that the repository ships were learned: heads get unequal parts of a budget that is spent whole.
#[test]
fn the_shipped_profiles_were_learned() {
    const BUDGET: usize = 100;
    let model = Geometry {
        layers: 30,
        group: 3,
        ..geometry(3)
    };
    let of = |profile: &str, rounding, layers| {
        let config = HeadKvConfig {
            profile: profile.into(),
            rounding,
            layers,
            ..HeadKvConfig::default()
        };
        bound(config, &model, Budget::Tokens(BUDGET))
    };
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles");
    for (rounding, layers) in [
        (Rounding::Exact, LayerShares::Uniform),
        (Rounding::Authors, LayerShares::Uniform),
        (Rounding::Exact, LayerShares::Pyramid),
    ] {
        for score in ["r", "r2"] {
            let file = format!("{folder}/SmolLM2-135M-Instruct.{score}.json");
            let shipped = of(&file, rounding, layers);
            let tokens = (0..model.layers).map(|layer| shipped.capacities(layer, 1000, BUDGET));
            let tokens: Vec<usize> = tokens.flatten().collect();
            assert!(tokens.iter().min() < tokens.iter().max(), "{tokens:?}");
            if rounding == Rounding::Exact {
                assert_eq!(tokens.iter().sum::<usize>(), 90 * BUDGET, "{score}");
                assert_eq!(shipped.notice(), None, "{score}");
            }
        }
        let built_in = of("neutral-equal", rounding, layers);
        for layer in 0..model.layers {
            let tokens = built_in.capacities(layer, 1000, BUDGET);
            assert!(layers == LayerShares::Pyramid || tokens == [BUDGET; 3]);
        }
        let notice = built_in.notice().expect("says that it is neutral");
        assert!(notice.contains("not learned"), "{notice}");
    }
}

#[test]
fn without_a_budget_nothing_is_observed() {
    let policy = bound(HeadKvConfig::default(), &geometry(2), Budget::Full);
    assert_eq!(policy.needs().observation, kv_core::Observation::None);
    assert_eq!(policy.capacities(1, 100, usize::MAX), [usize::MAX; 2]);
}
