//! What every policy must hold.
use kv_core::{Budget, Over, conformance::Wrong};
use kv_policy_snap_stream::SnapStreamConfig;

kv_core::conformance!(kit, [SnapStreamConfig::default, over_what_is_read, a_ring_of_one];
also heads_are_alike, rooms_spend_the_budget, ties_go_to_the_lower_head;
refuses [
    Wrong::new("recent", r#"{"recent": 0}"#),
    Wrong::new("recent", r#"{"recent": 64}"#).under(Budget::Tokens(64)),
    Wrong::new("recent", r#"{"recent": 4096}"#).under(Budget::Ratio(0.25)),
]);

fn over_what_is_read() -> SnapStreamConfig {
    SnapStreamConfig {
        over: Over::named("key-diff"),
        recent: 16,
    }
}

fn a_ring_of_one() -> SnapStreamConfig {
    SnapStreamConfig {
        recent: 1,
        ..SnapStreamConfig::default()
    }
}
