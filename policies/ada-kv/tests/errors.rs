//! What a user can get wrong, and what the error says: field, value, and what is allowed.
use kv_core::{Budget, Over, PolicyConfig, Registry, conformance};
use kv_policy_ada_kv::{AdaKvConfig, Decode};
use serde_json::{Value, json};

/// The error for a configuration as a user writes it.
fn refusal(config: &Value, budget: Budget) -> String {
    let mut registry = Registry::default();
    registry.add::<AdaKvConfig>();
    let fields = config.as_object().expect("a table").clone();
    let built = registry.build("ada-kv", fields, &conformance::geometry(2), budget);
    built.expect_err("is refused").to_string()
}

#[test]
fn alpha_is_no_share() {
    for (alpha, shown) in [(-0.1, "-0.1"), (1.5, "1.5")] {
        assert_eq!(
            refusal(&json!({ "alpha": alpha }), Budget::Full),
            format!(
                "policy ada-kv: `alpha` is {shown}, must be from 0 (all by the scores) to 1 (the same for every head)"
            )
        );
    }
    let config = AdaKvConfig {
        alpha: f64::NAN,
        ..AdaKvConfig::default()
    };
    let refusal = config.bind(&conformance::geometry(2), Budget::Full);
    let text = refusal.expect_err("is refused").to_string();
    assert!(text.contains("`alpha` is NaN"), "{text}");
}

#[test]
fn the_window_leaves_no_room() {
    assert_eq!(
        refusal(&json!({}), Budget::Tokens(31)),
        "policy ada-kv: `window` is 32, must be at most the 31 tokens that a head may hold"
    );
    assert_eq!(
        refusal(&json!({ "window": 0 }), Budget::Full),
        "policy ada-kv: `window` is 0, must be at least 1: the newest token is always kept"
    );
    assert_eq!(
        refusal(&json!({ "kernel": 2 }), Budget::Full),
        "policy ada-kv: `kernel` is 2, must be odd, from 1 (no pooling) to 4096"
    );
}

#[test]
fn more_layers_are_skipped_than_there_are() {
    assert_eq!(
        refusal(&json!({ "skip": 3 }), Budget::Full),
        "policy ada-kv: `skip` is 3, must be at most 2, the layers of the model"
    );
}

#[test]
fn a_guarantee_has_no_options_of_the_mix() {
    assert_eq!(
        refusal(
            &json!({ "safeguard": "guarantee", "rounding": "authors" }),
            Budget::Full
        ),
        "policy ada-kv: `rounding` is authors, must be exact with `safeguard` = guarantee: there is nothing to round"
    );
    assert_eq!(
        refusal(
            &json!({ "safeguard": "guarantee", "normalize": true }),
            Budget::Full
        ),
        "policy ada-kv: `normalize` is true, must be false with `safeguard` = guarantee: it ranks the scores as they \
         are"
    );
}

#[test]
fn a_slope_without_a_pyramid_and_a_pyramid_without_a_slope() {
    assert_eq!(
        refusal(&json!({ "beta": 20 }), Budget::Full),
        "policy ada-kv: `beta` is 20, must be left out with `layers` = uniform: there is no pyramid"
    );
    assert_eq!(
        refusal(&json!({ "layers": "pyramid", "beta": 0.5 }), Budget::Full),
        "policy ada-kv: `beta` is 0.5, must be a number from 1 (no pyramid): the last layer gets 1/beta of the average"
    );
}

#[test]
fn a_window_score_cannot_evict_while_decoding() {
    assert_eq!(
        refusal(&json!({ "decode": "evict" }), Budget::Full),
        "policy ada-kv: `decode` is evict, must be append with `score` = window: new tokens get no such score to be \
         evicted by"
    );
}

#[test]
fn another_policy_has_a_score_of_its_own() {
    assert_eq!(
        refusal(&json!({ "over": "h2o", "kernel": 5 }), Budget::Full),
        "policy ada-kv: `kernel` is 5, must be left out with `over`: the other policy has a score of its own"
    );
    let unknown = refusal(&json!({ "over": "nobody" }), Budget::Full);
    assert!(unknown.contains("`nobody`"), "{unknown}");
    let config = AdaKvConfig {
        over: Some(Over::named("snap-kv")),
        ..AdaKvConfig::default()
    };
    let refusal = |config: AdaKvConfig, tokens| {
        let geometry = conformance::geometry(2);
        let bound = config.bind_in(&conformance::registry(), &geometry, Budget::Tokens(tokens));
        bound.expect_err("is refused").to_string()
    };
    let evicting = AdaKvConfig {
        decode: Decode::Evict,
        ..config.clone()
    };
    assert_eq!(
        refusal(evicting, 64),
        "policy ada-kv: `decode` is evict, must be append with `over` = `snap-kv`: new tokens get no such score to be \
         evicted by"
    );
    assert_eq!(
        refusal(config, 3),
        "`budget` is 3, must be at least 4 tokens per KV head, which `over` needs"
    );
}

#[test]
fn a_field_is_misspelt_or_of_the_wrong_type() {
    let misspelt = refusal(&json!({ "floor_alpha": 0.2 }), Budget::Full);
    assert!(
        misspelt.starts_with("policy ada-kv: unknown field `floor_alpha`, expected one of `alpha`"),
        "{misspelt}"
    );
    assert_eq!(
        refusal(&json!({ "safeguard": "none" }), Budget::Full),
        "policy ada-kv: `safeguard`: unknown variant `none`, expected `mix` or `guarantee`"
    );
    assert_eq!(
        refusal(&json!({ "score": "rows" }), Budget::Full),
        "policy ada-kv: `score`: unknown variant `rows`, expected `window` or `accumulated`"
    );
}

#[test]
fn the_outermost_that_is_allowed_is_accepted() {
    for (alpha, skip) in [(0.0, 0), (1.0, 2)] {
        let config = AdaKvConfig {
            alpha,
            skip,
            ..AdaKvConfig::default()
        };
        let bound = config.bind(&conformance::geometry(2), Budget::Tokens(33));
        assert!(bound.is_ok(), "{bound:?}");
    }
}
