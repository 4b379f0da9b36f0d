//! What the engine is asked for.
use kv_core::{
    Budget, Needs, Observation, Policy, PolicyConfig, Pool, Reduce, Reduction, ReductionOrder,
    conformance,
};
use kv_policy_h2o::{Decode, H2oConfig, Score};

fn needs(config: H2oConfig, budget: Budget) -> Needs {
    let policy = config.bind(&conformance::geometry(2), budget);
    policy.expect("a good configuration").needs()
}

const SUMS: Reduction = Reduction {
    queries: Reduce::Sum,
    group: Reduce::Sum,
    pool: Pool::None,
    order: ReductionOrder::GroupThenPool,
    shared: false,
};

/// The authors sum, over the prompt and over every step after it; a recent token and the newcomer need a slot each.
#[test]
fn the_default_sums_every_row() {
    let expected = Needs {
        observation: Observation::Rows,
        reduction: SUMS,
        appends: false,
        min_tokens: 2,
        ..Needs::NONE
    };
    let config = H2oConfig::default();
    assert_eq!(needs(config, Budget::Tokens(64)), expected);
    let unlimited = needs(config, Budget::Full);
    assert_eq!(unlimited.observation, Observation::None);
}

/// Rows of later steps would be asked for in vain.
#[test]
fn only_the_prompt_is_observed_where_tokens_are_appended() {
    let config = H2oConfig {
        heavy: Some(8),
        recent: Some(4),
        decode: Decode::Append,
        ..H2oConfig::default()
    };
    let expected = Needs {
        observation: Observation::Accumulated,
        reduction: SUMS,
        appends: true,
        min_tokens: 12,
        ..Needs::NONE
    };
    assert_eq!(needs(config, Budget::Tokens(64)), expected);
    let mean = H2oConfig {
        score: Score::Mean,
        group: Reduce::Max,
        ..config
    };
    let reduction = Reduction {
        queries: Reduce::Mean,
        group: Reduce::Max,
        ..SUMS
    };
    let expected = Needs {
        reduction,
        ..expected
    };
    assert_eq!(needs(mean, Budget::Tokens(64)), expected);
}
