//! What every policy must hold.
use kv_core::{
    Budget, LayerShares, Over, Pooling, Reduce, ReductionOrder, ScoreKind, conformance,
    conformance::Wrong,
};
use kv_policy_ada_kv::{AdaKvConfig, Decode, Safeguard, SplitRounding};

kv_core::conformance!(kit, [AdaKvConfig::default, guaranteed, a_weighed_pyramid, evicting, evicting_guaranteed];
also keeps_the_best, rooms_spend_the_budget, ties_go_to_the_lower_head;
refuses [
    Wrong::new("window", r#"{"window": 0}"#),
    Wrong::new("window", r#"{"window": 65}"#).under(Budget::Tokens(64)),
    Wrong::new("kernel", r#"{"kernel": 4}"#),
    Wrong::new("alpha", r#"{"alpha": -0.1}"#),
    Wrong::new("alpha", r#"{"alpha": 1.1}"#),
    Wrong::new("skip", r#"{"skip": 3}"#),
    Wrong::new("rounding", r#"{"safeguard": "guarantee", "rounding": "authors"}"#),
    Wrong::new("normalize", r#"{"safeguard": "guarantee", "rounding": "exact", "normalize": true}"#),
    Wrong::new("beta", r#"{"layers": "uniform", "beta": 20.0}"#),
    Wrong::new("beta", r#"{"layers": "pyramid", "beta": 0.5}"#),
    Wrong::new("decode", r#"{"score": "window", "decode": "evict"}"#),
    Wrong::new("group", r#"{"score": "accumulated", "decode": "evict", "group": "max"}"#),
]);

kv_core::conformance!(kit_over_another, [over_what_is_observed, over_what_is_read, a_weighed_pyramid_over];
also keeps_the_best, rooms_spend_the_budget;
refuses [
    Wrong::new("over", r#"{"over": "keep-all"}"#),
    Wrong::new("score", r#"{"score": "accumulated"}"#),
    Wrong::new("window", r#"{"window": 64}"#),
    Wrong::new("kernel", r#"{"kernel": 5}"#).under(Budget::Tokens(64)),
    Wrong::new("pooling", r#"{"pooling": "average"}"#),
    Wrong::new("group", r#"{"group": "sum"}"#),
    Wrong::new("order", r#"{"order": "pool-then-group"}"#),
    Wrong::new("decode", r#"{"decode": "evict"}"#).under(Budget::Tokens(64)),
]);

fn over_what_is_observed() -> AdaKvConfig {
    AdaKvConfig {
        over: Some(Over::named("snap-kv")),
        ..AdaKvConfig::default()
    }
}

fn over_what_is_read() -> AdaKvConfig {
    AdaKvConfig {
        over: Some(Over::named("key-diff")),
        safeguard: Safeguard::Guarantee,
        skip: 1,
        ..AdaKvConfig::default()
    }
}

fn a_weighed_pyramid_over() -> AdaKvConfig {
    AdaKvConfig {
        normalize: true,
        layers: LayerShares::Pyramid,
        beta: Some(4.0),
        ..over_what_is_observed()
    }
}

fn guaranteed() -> AdaKvConfig {
    AdaKvConfig {
        window: 4,
        kernel: 5,
        pooling: Pooling::Average,
        order: ReductionOrder::PoolThenGroup,
        safeguard: Safeguard::Guarantee,
        alpha: 0.5,
        ..AdaKvConfig::default()
    }
}

fn a_weighed_pyramid() -> AdaKvConfig {
    AdaKvConfig {
        window: 8,
        group: Reduce::Max,
        alpha: 0.0,
        normalize: true,
        skip: 1,
        layers: LayerShares::Pyramid,
        beta: Some(2.5),
        ..AdaKvConfig::default()
    }
}

fn evicting() -> AdaKvConfig {
    AdaKvConfig {
        score: ScoreKind::Accumulated,
        window: 3,
        kernel: 1,
        pooling: Pooling::None,
        group: Reduce::Sum,
        decode: Decode::Evict,
        ..AdaKvConfig::default()
    }
}

fn evicting_guaranteed() -> AdaKvConfig {
    AdaKvConfig {
        window: 1,
        safeguard: Safeguard::Guarantee,
        layers: LayerShares::Pyramid,
        skip: 1,
        ..evicting()
    }
}

fn the_authors() -> AdaKvConfig {
    AdaKvConfig {
        window: 8,
        rounding: SplitRounding::Authors,
        alpha: 0.5,
        ..AdaKvConfig::default()
    }
}

/// Largest remainders go to the lower head where they are equal; the other two splits know no head's number.
#[test]
fn heads_are_alike() {
    conformance::hold(conformance::heads_are_alike, &[guaranteed, the_authors]);
}

/// Where all keys of a prompt are the same, so are all scores that are read from them.
#[test]
fn ties_go_to_the_lower_head_over_another() {
    conformance::hold(
        conformance::ties_go_to_the_lower_head,
        &[over_what_is_observed, a_weighed_pyramid_over],
    );
}

/// All but the one that a layer's room is within the budget: this rounding may go half a token per head beyond it.
#[test]
fn the_authors_rounding_holds_all_but_the_budget() {
    for (name, property) in conformance::properties::<AdaKvConfig>() {
        if name != "plan_fits_its_bound" {
            conformance::hold(property, &[the_authors]);
        }
    }
}
