//! What a user can get wrong, and what the error says: field, value, and what is allowed.
use kv_core::{Budget, Policy, PolicyConfig, Registry, conformance};
use kv_policy_h2o::{Decode, H2oConfig};
use serde_json::{Value, json};

/// The error for a configuration as a user writes it.
fn refusal(config: &Value, budget: Budget) -> String {
    let mut registry = Registry::default();
    registry.add::<H2oConfig>();
    let fields = config.as_object().expect("a table").clone();
    let built = registry.build("h2o", fields, &conformance::geometry(2), budget);
    built.expect_err("is refused").to_string()
}

#[test]
fn a_share_is_no_share() {
    for (share, written) in [
        (json!(1.5), "1.5"),
        (json!(-1), "-1"),
        (json!(1e300), "1e300"),
    ] {
        assert_eq!(
            refusal(&json!({ "heavy_share": share }), Budget::Tokens(64)),
            format!(
                "policy h2o: `heavy_share` is {written}, must be from 0 to 1: a share of the budget"
            )
        );
    }
    let config = H2oConfig {
        heavy_share: f64::NAN,
        ..H2oConfig::default()
    };
    assert!(
        config
            .bind(&conformance::geometry(2), Budget::Full)
            .is_err()
    );
}

#[test]
fn a_share_next_to_sizes_says_nothing() {
    assert_eq!(
        refusal(
            &json!({ "heavy": 8, "recent": 8, "heavy_share": 0.25 }),
            Budget::Tokens(64)
        ),
        "policy h2o: `heavy_share` is 0.25, must be left out where `heavy` or `recent` is given: they decide the split"
    );
}

#[test]
fn a_mean_cannot_grow_by_sums() {
    assert_eq!(
        refusal(&json!({ "score": "mean" }), Budget::Tokens(64)),
        "policy h2o: `score` is mean, must be sum where `decode` is evict: the attention of later steps is added to the \
         score"
    );
}

#[test]
fn there_is_no_window() {
    assert_eq!(
        refusal(&json!({ "heavy": 8, "recent": 0 }), Budget::Full),
        "policy h2o: `recent` is 0, must be at least 1 where `decode` is evict: the newest token is always kept"
    );
    assert_eq!(
        refusal(
            &json!({ "recent": 0, "decode": "append" }),
            Budget::Tokens(64)
        ),
        "policy h2o: `recent` is 0, must be at least 1 unless `heavy` is given: the newest token is always kept"
    );
}

#[test]
fn one_size_without_a_budget_leaves_the_other_open() {
    assert_eq!(
        refusal(&json!({ "heavy": 8 }), Budget::Full),
        "policy h2o: `recent` is not given, must be given next to `heavy` where there is no budget"
    );
    assert_eq!(
        refusal(&json!({ "recent": 8 }), Budget::Full),
        "policy h2o: `heavy` is not given, must be given next to `recent` where there is no budget"
    );
}

#[test]
fn the_sizes_are_too_large() {
    assert_eq!(
        refusal(&json!({ "heavy": 32, "recent": 32 }), Budget::Tokens(64)),
        "policy h2o: `heavy` is 32, must be at most 31: 64 tokens per head less 32 recent and a slot for the newcomer"
    );
    assert_eq!(
        refusal(&json!({ "recent": 64 }), Budget::Tokens(64)),
        "policy h2o: `recent` is 64, must be at most 63: 64 tokens per head less a slot for the newcomer"
    );
    assert_eq!(
        refusal(
            &json!({ "heavy": 33, "recent": 32, "decode": "append" }),
            Budget::Tokens(64)
        ),
        "policy h2o: `heavy` is 33, must be at most 32: 64 tokens per head less 32 recent"
    );
    assert_eq!(
        refusal(&json!({ "heavy": 4096, "recent": 1 }), Budget::Ratio(0.5)),
        "policy h2o: `heavy` is 4096, must be at most 4094: 4096 tokens per head less 1 recent and a slot for the newcomer"
    );
}

#[test]
fn a_budget_of_one_token_has_no_room_for_a_newcomer() {
    assert_eq!(
        refusal(&json!({}), Budget::Tokens(1)),
        "`budget` is 1, must be at least 2 tokens per KV head: a recent one and a slot for the newcomer"
    );
}

#[test]
fn a_field_is_misspelt_or_of_the_wrong_type() {
    let misspelt = refusal(&json!({ "heavy_hitters": 4 }), Budget::Full);
    assert!(
        misspelt.starts_with("policy h2o: unknown field `heavy_hitters`")
            && misspelt.contains("`heavy`"),
        "{misspelt}"
    );
    let group = refusal(&json!({ "group": "median" }), Budget::Full);
    assert!(
        group.contains("`median`") && group.contains("`max`"),
        "{group}"
    );
}

#[test]
fn the_largest_that_is_allowed_is_accepted() {
    let geometry = conformance::geometry(2);
    let sizes = |heavy, recent, decode| H2oConfig {
        heavy,
        recent,
        decode,
        ..H2oConfig::default()
    };
    for (config, budget) in [
        (sizes(Some(31), Some(32), Decode::Evict), Budget::Tokens(64)),
        (sizes(Some(62), None, Decode::Evict), Budget::Tokens(64)),
        (sizes(None, Some(63), Decode::Evict), Budget::Tokens(64)),
        (sizes(Some(0), Some(64), Decode::Append), Budget::Tokens(64)),
        (sizes(Some(48), Some(0), Decode::Append), Budget::Full),
        (sizes(Some(4094), Some(1), Decode::Evict), Budget::Full),
        (H2oConfig::default(), Budget::Tokens(2)),
    ] {
        let policy = config
            .bind(&geometry, budget)
            .unwrap_or_else(|error| panic!("{config:?}: {error}"));
        assert!(policy.needs().min_tokens <= 4096);
    }
}
