//! What every policy must hold.
use kv_core::conformance::Wrong;
use kv_policy_fast_gen::FastGenConfig;

kv_core::conformance!(kit, [FastGenConfig::default, some_of_each];
refuses [
    Wrong::new("recovery", r#"{"recovery": 1.5}"#),
    Wrong::new("heavy_share", r#"{"heavy_share": -0.1}"#),
    Wrong::new("local_share", r#"{"local_share": 2.0}"#),
]);

/// Random attention recovers about as much as the tokens kept are of the prompt.
fn some_of_each() -> FastGenConfig {
    FastGenConfig {
        recovery: 0.3,
        heavy_share: 0.1,
        local_share: 0.2,
    }
}
