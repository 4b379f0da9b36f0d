//! What a user can get wrong, and what the error says: field, value, and what is allowed.
use kv_core::{Budget, PolicyConfig, Registry, conformance};
use kv_policy_pyramid_kv::PyramidKvConfig;
use serde_json::{Value, json};

/// The error for a configuration as a user writes it.
fn refusal(config: &Value, budget: Budget) -> String {
    let mut registry = Registry::default();
    registry.add::<PyramidKvConfig>();
    let fields = config.as_object().expect("a table").clone();
    let built = registry.build("pyramid-kv", fields, &conformance::geometry(2), budget);
    built.expect_err("is refused").to_string()
}

#[test]
fn the_pyramid_stands_on_its_head() {
    for (beta, shown) in [(0.5, "0.5"), (0.0, "0"), (-20.0, "-20")] {
        assert_eq!(
            refusal(&json!({ "beta": beta }), Budget::Full),
            format!(
                "policy pyramid-kv: `beta` is {shown}, must be a number from 1 (no pyramid): the last layer gets \
                 1/beta of the average"
            )
        );
    }
    for beta in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let config = PyramidKvConfig {
            beta,
            ..PyramidKvConfig::default()
        };
        let refusal = config.bind(&conformance::geometry(2), Budget::Full);
        let text = refusal.expect_err("is refused").to_string();
        assert!(text.contains(&format!("`beta` is {beta}")), "{text}");
    }
}

#[test]
fn the_window_leaves_no_room() {
    assert_eq!(
        refusal(&json!({}), Budget::Tokens(31)),
        "policy pyramid-kv: `window` is 32, must be at most the 31 tokens that a head may hold"
    );
    assert_eq!(
        refusal(&json!({ "window": 0 }), Budget::Full),
        "policy pyramid-kv: `window` is 0, must be at least 1: the newest token is always kept"
    );
}

#[test]
fn the_kernel_has_no_middle() {
    assert_eq!(
        refusal(&json!({ "kernel": 2 }), Budget::Full),
        "policy pyramid-kv: `kernel` is 2, must be odd, from 1 (no pooling) to 4096"
    );
}

#[test]
fn a_field_is_misspelt_or_of_the_wrong_type() {
    assert_eq!(
        refusal(&json!({ "slope": 4 }), Budget::Full),
        "policy pyramid-kv: unknown field `slope`, expected one of `beta`, `group`, `kernel`, `order`, `pooling`, \
         `rounding`, `window`"
    );
    assert_eq!(
        refusal(&json!({ "rounding": "down" }), Budget::Full),
        "policy pyramid-kv: `rounding`: unknown variant `down`, expected one of `exact`, `authors`, `kvpress`"
    );
}
