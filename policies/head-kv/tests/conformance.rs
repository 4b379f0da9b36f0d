//! What every policy must hold.
use kv_core::{Budget, LayerShares, Pooling, Reduce, ScoreKind, conformance::Wrong};
use kv_policy_head_kv::{HeadGroup, HeadKvConfig, Rounding};

kv_core::conformance!(kit, [HeadKvConfig::default, pyramid, as_the_authors, accumulated];
also heads_are_alike, keeps_the_best, rooms_spend_the_budget, ties_go_to_the_lower_head;
refuses [
    Wrong::new("window", r#"{"window": 0}"#),
    Wrong::new("window", r#"{"window": 65}"#).under(Budget::Tokens(64)),
    Wrong::new("kernel", r#"{"kernel": 4}"#),
    Wrong::new("beta", r#"{"beta": 0.5}"#),
    Wrong::new("temp", r#"{"temp": -1}"#),
    Wrong::new("temp", r#"{"temp": 17}"#),
    Wrong::new("layers", r#"{"layers": "pyramid", "rounding": "authors"}"#),
    Wrong::new("head_group", r#"{"layers": "uniform", "head_group": "max", "rounding": "authors"}"#),
    Wrong::new("pyramid_beta", r#"{"layers": "uniform", "rounding": "exact", "pyramid_beta": 20}"#),
    Wrong::new("pyramid_beta", r#"{"layers": "pyramid", "rounding": "exact", "pyramid_beta": 0}"#),
]);

fn pyramid() -> HeadKvConfig {
    HeadKvConfig {
        window: 16,
        pooling: Pooling::Average,
        head_group: HeadGroup::Max,
        beta: 1.0,
        layers: LayerShares::Pyramid,
        pyramid_beta: Some(5.5),
        ..HeadKvConfig::default()
    }
}

/// All heads being equal, their rounding does not drift.
fn as_the_authors() -> HeadKvConfig {
    HeadKvConfig {
        beta: 1.01,
        temp: 2.0,
        rounding: Rounding::Authors,
        ..HeadKvConfig::default()
    }
}

fn accumulated() -> HeadKvConfig {
    HeadKvConfig {
        score: ScoreKind::Accumulated,
        window: 1,
        kernel: 1,
        group: Reduce::Max,
        ..HeadKvConfig::default()
    }
}
