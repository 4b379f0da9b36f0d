//! What every policy must hold.
use kv_core::{Budget, conformance::Wrong};
use kv_policy_cake::CakeConfig;

kv_core::conformance!(kit, [CakeConfig::default, a_small_window, unpooled];
also heads_are_alike, keeps_the_best, rooms_spend_the_budget, ties_go_to_the_lower_head;
refuses [
    Wrong::new("window", r#"{"window": 1}"#),
    Wrong::new("window", r#"{"window": 65}"#).under(Budget::Tokens(64)),
    Wrong::new("window", r#"{"window": 4097}"#).under(Budget::Ratio(0.25)),
    Wrong::new("kernel", r#"{"kernel": 0}"#),
    Wrong::new("kernel", r#"{"kernel": 4}"#),
    Wrong::new("kernel", r#"{"kernel": 4097}"#),
    Wrong::new("gamma", r#"{"gamma": -0.5}"#),
    Wrong::new("tau1", r#"{"tau1": 0.0}"#),
    Wrong::new("tau1", r#"{"tau1": 10.5}"#),
    Wrong::new("tau2", r#"{"tau2": 0.05}"#),
    Wrong::new("tau2", r#"{"tau2": 11.0}"#),
]);

fn a_small_window() -> CakeConfig {
    CakeConfig {
        window: 3,
        kernel: 7,
        tau1: 1.6,
        tau2: 0.4,
        ..CakeConfig::default()
    }
}

fn unpooled() -> CakeConfig {
    CakeConfig {
        window: 2,
        kernel: 1,
        gamma: 0.0,
        ..CakeConfig::default()
    }
}
