//! What the engine is asked for.
use kv_core::{
    Budget, Needs, Observation, Policy, PolicyConfig, Pool, Pooling, Reduce, Reduction,
    ReductionOrder, ScoreKind, conformance,
};
use kv_policy_ada_kv::{AdaKvConfig, Decode};

fn needs(config: AdaKvConfig, budget: Budget) -> Needs {
    let policy = config.bind(&conformance::geometry(2), budget);
    policy.expect("a good configuration").needs()
}

#[test]
fn the_default_asks_for_what_the_authors_observe() {
    let expected = Needs {
        observation: Observation::Window { queries: 32 },
        reduction: Reduction {
            queries: Reduce::Mean,
            group: Reduce::Mean,
            pool: Pool::Max(7),
            order: ReductionOrder::GroupThenPool,
            shared: false,
        },
        appends: true,
        min_tokens: 32,
        ..Needs::NONE
    };
    let config = AdaKvConfig::default();
    assert_eq!(needs(config.clone(), Budget::Tokens(64)), expected);
    let unlimited = needs(config, Budget::Full);
    assert_eq!(unlimited.observation, Observation::None);
}

/// Its heads stay as long as they were made, so that what is generated takes no room of its own.
#[test]
fn a_policy_that_evicts_sees_every_row_and_appends_nothing() {
    let config = AdaKvConfig {
        score: ScoreKind::Accumulated,
        decode: Decode::Evict,
        window: 3,
        kernel: 1,
        pooling: Pooling::None,
        group: Reduce::Sum,
        ..AdaKvConfig::default()
    };
    let evicting = needs(config.clone(), Budget::Tokens(64));
    let expected = Needs {
        observation: Observation::Rows,
        reduction: Reduction {
            queries: Reduce::Sum,
            group: Reduce::Sum,
            pool: Pool::None,
            order: ReductionOrder::GroupThenPool,
            shared: false,
        },
        appends: false,
        min_tokens: 3,
        ..Needs::NONE
    };
    assert_eq!(evicting, expected);
    let appending = AdaKvConfig {
        decode: Decode::Append,
        ..config
    };
    let expected = Needs {
        observation: Observation::Accumulated,
        appends: true,
        ..expected
    };
    assert_eq!(needs(appending, Budget::Tokens(64)), expected);
}
