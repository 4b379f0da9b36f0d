//! What every policy must hold.
use kv_core::{Budget, Reduce, conformance::Wrong};
use kv_policy_h2o::{Decode, H2oConfig, Score};

kv_core::conformance!(kit, [H2oConfig::default, sizes, window_of_four, mostly_heavy, the_largest_of_a_group, prompt_only];
also heads_are_alike, budgets_nest, keeps_the_best, ties_go_to_the_lower_head;
refuses [
    Wrong::new("heavy_share", r#"{"heavy": null, "recent": null, "heavy_share": 1.5}"#).under(Budget::Tokens(64)),
    Wrong::new("heavy_share", r#"{"heavy": 8, "recent": null, "heavy_share": 0.25}"#).under(Budget::Tokens(64)),
    Wrong::new("score", r#"{"decode": "evict", "score": "mean"}"#),
    Wrong::new("group", r#"{"decode": "evict", "score": "sum", "group": "max"}"#),
    Wrong::new("recent", r#"{"heavy": null, "recent": 0, "heavy_share": 0.5}"#).under(Budget::Tokens(64)),
    Wrong::new("recent", r#"{"heavy": 8, "recent": null, "heavy_share": 0.5}"#),
    Wrong::new("heavy", r#"{"heavy": null, "recent": 8, "heavy_share": 0.5}"#),
    Wrong::new("heavy", r#"{"heavy": 64, "recent": null, "heavy_share": 0.5}"#).under(Budget::Tokens(64)),
    Wrong::new("recent", r#"{"heavy": null, "recent": 65, "heavy_share": 0.5}"#).under(Budget::Tokens(64)),
]);

fn sizes() -> H2oConfig {
    H2oConfig {
        heavy: Some(8),
        recent: Some(24),
        ..H2oConfig::default()
    }
}

fn the_largest_of_a_group() -> H2oConfig {
    H2oConfig {
        group: Reduce::Max,
        heavy_share: 0.25,
        decode: Decode::Append,
        ..H2oConfig::default()
    }
}

fn prompt_only() -> H2oConfig {
    H2oConfig {
        score: Score::Mean,
        group: Reduce::Mean,
        decode: Decode::Append,
        ..H2oConfig::default()
    }
}

fn mostly_heavy() -> H2oConfig {
    H2oConfig {
        heavy_share: 1.0,
        ..H2oConfig::default()
    }
}

fn window_of_four() -> H2oConfig {
    H2oConfig {
        recent: Some(4),
        ..H2oConfig::default()
    }
}
