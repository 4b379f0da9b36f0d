//! The baselines are policies like any other.
use std::collections::BTreeSet;

use kv_core::{Budget, KeepPlan, LayerView, Pins, Policy, PolicyConfig, conformance::geometry};
use kv_eval::baselines::{RandomConfig, RecencyConfig};

mod random {
    use super::*;
    kv_core::conformance!(kit, [RandomConfig::default]);
}

mod recency {
    use super::*;
    kv_core::conformance!(kit, [RecencyConfig::default]; also heads_are_alike, budgets_nest);
}

fn kept(seed: u64, layer: usize) -> Vec<Vec<u32>> {
    let policy = RandomConfig { seed }
        .bind(&geometry(3), Budget::Tokens(20))
        .expect("a good configuration");
    let view = LayerView::prefill(layer, 3, 400, 20);
    let mut keep = KeepPlan::all(3);
    policy.plan(&view, &mut keep);
    keep.resolve(&view, &Pins::default()).slots
}

#[test]
fn random_heads_differ_and_repeat_by_seed() {
    let all: Vec<Vec<u32>> = [kept(1, 0), kept(1, 1), kept(2, 0)].concat();
    let different: BTreeSet<&Vec<u32>> = all.iter().collect();
    assert_eq!(different.len(), all.len(), "{all:?}");
    assert_eq!(kept(1, 0), kept(1, 0));
    for slots in &all {
        assert_eq!((slots.len(), slots.last()), (20, Some(&399)), "{slots:?}");
    }
}

/// Every slot is as likely as every other: over many seeds each is kept about as often.
#[test]
fn random_favours_nobody() {
    let mut counts = [0_u32; 399];
    for seed in 0..400 {
        for slot in kept(seed, 0).iter().flatten() {
            if let Some(count) = counts.get_mut(*slot as usize) {
                *count += 1;
            }
        }
    }
    // 1,200 draws of 19 out of 399: 57 on average, with a deviation of 7.4.
    assert!(
        counts.iter().all(|count| (20..100).contains(count)),
        "{counts:?}"
    );
}
