//! What every policy must hold.
use kv_core::{Budget, Pooling, PyramidRounding, Reduce, ReductionOrder, conformance::Wrong};
use kv_policy_pyramid_kv::PyramidKvConfig;

kv_core::conformance!(kit, [PyramidKvConfig::default, the_authors, like_kvpress, steep];
also heads_are_alike, keeps_the_best, rooms_spend_the_budget, ties_go_to_the_lower_head;
refuses [
    Wrong::new("window", r#"{"window": 0}"#),
    Wrong::new("window", r#"{"window": 65}"#).under(Budget::Tokens(64)),
    Wrong::new("kernel", r#"{"kernel": 4}"#),
    Wrong::new("beta", r#"{"beta": 0.5}"#),
    Wrong::new("beta", r#"{"beta": -20.0}"#),
    Wrong::new("beta", r#"{"beta": 0.0}"#),
]);

fn the_authors() -> PyramidKvConfig {
    PyramidKvConfig {
        window: 8,
        kernel: 7,
        pooling: Pooling::Max,
        rounding: PyramidRounding::Authors,
        ..PyramidKvConfig::default()
    }
}

fn like_kvpress() -> PyramidKvConfig {
    PyramidKvConfig {
        window: 64,
        order: ReductionOrder::PoolThenGroup,
        rounding: PyramidRounding::Kvpress,
        ..PyramidKvConfig::default()
    }
}

fn steep() -> PyramidKvConfig {
    PyramidKvConfig {
        window: 1,
        kernel: 1,
        pooling: Pooling::None,
        group: Reduce::Max,
        beta: 1e300,
        ..PyramidKvConfig::default()
    }
}
