//! What every policy must hold.
use kv_core::{Budget, Pooling, Reduce, ReductionOrder, conformance::Wrong};
use kv_policy_snap_kv::SnapKvConfig;

kv_core::conformance!(kit, [SnapKvConfig::default, a_small_window, like_kvpress, unpooled];
also heads_are_alike, budgets_nest, keeps_the_best, rooms_spend_the_budget, ties_go_to_the_lower_head;
refuses [
    Wrong::new("window", r#"{"window": 0}"#),
    Wrong::new("window", r#"{"window": 65}"#).under(Budget::Tokens(64)),
    Wrong::new("window", r#"{"window": 4097}"#).under(Budget::Ratio(0.25)),
    Wrong::new("kernel", r#"{"kernel": 0}"#),
    Wrong::new("kernel", r#"{"kernel": 4}"#),
    Wrong::new("kernel", r#"{"kernel": 4097}"#),
]);

fn a_small_window() -> SnapKvConfig {
    SnapKvConfig {
        window: 3,
        kernel: 7,
        pooling: Pooling::Max,
        group: Reduce::Max,
        ..SnapKvConfig::default()
    }
}

fn like_kvpress() -> SnapKvConfig {
    SnapKvConfig {
        window: 64,
        order: ReductionOrder::PoolThenGroup,
        ..SnapKvConfig::default()
    }
}

fn unpooled() -> SnapKvConfig {
    SnapKvConfig {
        window: 1,
        kernel: 1,
        pooling: Pooling::None,
        group: Reduce::Sum,
        ..SnapKvConfig::default()
    }
}
