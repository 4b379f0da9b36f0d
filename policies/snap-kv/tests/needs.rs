//! What the engine is asked for.
use kv_core::{
    Budget, Needs, Observation, Policy, PolicyConfig, Pool, Pooling, Reduce, Reduction,
    ReductionOrder, conformance,
};
use kv_policy_snap_kv::SnapKvConfig;

fn needs(config: SnapKvConfig, budget: Budget) -> Needs {
    let policy = config.bind(&conformance::geometry(2), budget);
    policy.expect("a good configuration").needs()
}

/// A window of 32 and average pooling over 5 are what the authors' code sets for a model.
#[test]
fn the_default_asks_for_what_the_authors_observe() {
    let expected = Needs {
        observation: Observation::Window { queries: 32 },
        reduction: Reduction {
            queries: Reduce::Mean,
            group: Reduce::Mean,
            pool: Pool::Average(5),
            order: ReductionOrder::GroupThenPool,
            shared: false,
        },
        appends: true,
        min_tokens: 32,
        ..Needs::NONE
    };
    let config = SnapKvConfig::default();
    assert_eq!(needs(config, Budget::Tokens(64)), expected);
    assert_eq!(needs(config, Budget::Ratio(0.25)), expected);
    assert_eq!(
        needs(config, Budget::Full),
        Needs {
            observation: Observation::None,
            ..expected
        }
    );
}

#[test]
fn every_option_of_the_score_is_handed_on() {
    let config = SnapKvConfig {
        window: 3,
        kernel: 7,
        pooling: Pooling::Max,
        group: Reduce::Sum,
        order: ReductionOrder::PoolThenGroup,
    };
    let needs = needs(config, Budget::Tokens(64));
    assert_eq!(needs.observation, Observation::Window { queries: 3 });
    assert_eq!(
        needs.reduction,
        Reduction {
            queries: Reduce::Mean,
            group: Reduce::Sum,
            pool: Pool::Max(7),
            order: ReductionOrder::PoolThenGroup,
            shared: false,
        }
    );
}
