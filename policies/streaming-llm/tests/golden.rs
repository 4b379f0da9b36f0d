//! The same tokens as the authors' `StartRecentKVCache`.
//!
//! One thing is done in another order. The authors' perplexity loop lets the new token attend to the whole cache and
//! itself, `sinks + recent + 1` keys, and trims afterwards. Here the newcomer takes its victim's slot before the
//! attention of its step, so that a head never holds more than `sinks + recent`, and the new token does not see the one
//! that it drove out. What is held *after* each step is the same, and that is what is compared.
use kv_core::{
    Budget,
    conformance::{Golden, decode},
};
use kv_policy_streaming_llm::StreamingLlmConfig;
use serde::Deserialize;

const HEADS: usize = 2;

#[derive(Debug, Deserialize)]
struct File {
    cases: Vec<Case>,
}

/// One call of the authors' code; the file says how it was made.
#[derive(Debug, Deserialize)]
struct Case {
    tokens: u32,
    sinks: usize,
    recent: usize,
    coming: Option<u32>,
    /// Half-open ranges.
    kept: Vec<(u32, u32)>,
}

impl Case {
    fn config(&self) -> StreamingLlmConfig {
        StreamingLlmConfig {
            sinks: self.sinks,
            recent: Some(self.recent),
            ..StreamingLlmConfig::default()
        }
    }

    fn kept(&self) -> Vec<u32> {
        self.kept
            .iter()
            .flat_map(|&(start, end)| start..end)
            .collect()
    }
}

fn cases() -> Vec<Case> {
    let file: File = serde_json::from_str(include_str!("../testdata/start_recent_kv_cache.json"))
        .expect("golden data");
    file.cases
}

/// `StartRecentKVCache.__call__` on a list of positions; [`the_trim_is_the_authors`] holds it to their own.
fn trim(cache: &mut Vec<u32>, sinks: usize, recent: usize) {
    if cache.len() > sinks + recent {
        cache.drain(sinks..cache.len() - recent);
    }
}

fn check_plan(config: StreamingLlmConfig, budget: Budget, prompt: u32, kept: &[u32]) {
    let kept = vec![kept.to_vec(); HEADS];
    let golden = Golden {
        budget,
        layer: 0,
        prompt: prompt as usize,
        scores: &[],
        kept: &kept,
    };
    golden
        .check(config)
        .unwrap_or_else(|failure| panic!("{failure}"));
}

/// What every head holds after the prompt and after each decode step.
fn history(config: StreamingLlmConfig, budget: Budget, prompt: u32, steps: u32) -> Vec<Vec<u32>> {
    let history = decode(config, HEADS, budget, prompt as usize, steps as usize);
    let history = history.unwrap_or_else(|failure| panic!("{failure}"));
    let one_head = |heads: Vec<Vec<u32>>| {
        assert!(
            heads.iter().all(|head| head == &heads[0]),
            "the heads differ: {heads:?}"
        );
        heads.into_iter().next().unwrap_or_default()
    };
    history.into_iter().map(one_head).collect()
}

#[test]
fn a_prompt_is_trimmed_as_by_the_authors() {
    let calls = cases().into_iter().filter(|case| case.coming.is_none());
    let mut count = 0;
    for case in calls {
        check_plan(case.config(), Budget::Full, case.tokens, &case.kept());
        // The same window, left to the budget.
        let config = StreamingLlmConfig {
            recent: None,
            ..case.config()
        };
        check_plan(
            config,
            Budget::Tokens(case.sinks + case.recent),
            case.tokens,
            &case.kept(),
        );
        count += 1;
    }
    assert_eq!(count, 16, "cases in the golden data");
}

#[test]
fn the_trim_is_the_authors() {
    for case in cases().into_iter().filter(|case| case.coming.is_none()) {
        let mut cache = (0..case.tokens).collect();
        trim(&mut cache, case.sinks, case.recent);
        assert_eq!(cache, case.kept(), "{case:?}");
    }
}

/// The authors' chat script makes room before a turn; here every newcomer makes its own. Once the turn's tokens are in,
/// both caches are the same.
#[test]
fn room_made_before_a_turn_is_room_made_in_it() {
    let mut count = 0;
    for case in cases() {
        let Some(coming) = case.coming else { continue };
        let mut cache = case.kept();
        cache.extend(case.tokens..case.tokens + coming);
        let held = history(case.config(), Budget::Full, case.tokens, coming);
        assert_eq!(held.last(), Some(&cache), "{case:?}");
        count += 1;
    }
    assert_eq!(count, 28, "cases in the golden data");
}

/// Feed one token, then trim: the authors' perplexity loop, many steps long.
#[test]
fn each_decode_step_leaves_what_the_authors_loop_leaves() {
    for (sinks, recent) in [
        (0, 1),
        (0, 16),
        (1, 7),
        (4, 1),
        (4, 8),
        (4, 60),
        (15, 17),
        (1, 255),
    ] {
        for prompt in [1, 2, 5, 12, 31, 100, 300] {
            let config = StreamingLlmConfig {
                sinks,
                recent: Some(recent),
                ..StreamingLlmConfig::default()
            };
            let mut cache: Vec<u32> = (0..prompt).collect();
            trim(&mut cache, sinks, recent);
            for (step, held) in (0..).zip(history(config, Budget::Full, prompt, 400)) {
                assert_eq!(held, cache, "{config:?}, a prompt of {prompt}, step {step}");
                cache.push(prompt + step);
                trim(&mut cache, sinks, recent);
            }
        }
    }
}

#[test]
fn vectors_of_the_method_page() {
    let config = StreamingLlmConfig {
        sinks: 4,
        recent: Some(8),
        ..StreamingLlmConfig::default()
    };
    let kept: Vec<u32> = (0..4).chain(12..20).collect();
    check_plan(config, Budget::Full, 20, &kept);
    // `evict_for_space` with 12 cached and 3 coming keeps 0..4 and 7..12; with none coming it keeps all.
    let after: Vec<u32> = (0..4).chain(7..12).chain(12..15).collect();
    assert_eq!(
        history(config, Budget::Full, 12, 3),
        [
            (0..12).collect(),
            (0..4).chain(5..13).collect(),
            (0..4).chain(6..14).collect::<Vec<u32>>(),
            after
        ]
    );
}

#[test]
fn a_share_of_the_prompt_decides_the_window() {
    let config = StreamingLlmConfig::default();
    let quarter = Budget::Ratio(0.25);
    let kept: Vec<u32> = (0..4).chain(79..100).collect();
    check_plan(config, quarter, 100, &kept);
    // A share that buys less than the sinks and one token is raised to them.
    check_plan(config, quarter, 10, &[0, 1, 2, 3, 9]);
    let held = history(config, quarter, 100, 50).pop().expect("steps");
    assert_eq!(held, (0..4).chain(129..150).collect::<Vec<u32>>());
}

#[test]
fn without_a_budget_the_window_is_the_authors_default() {
    let kept: Vec<u32> = (0..4).chain(1000 - 512..1000).collect();
    check_plan(StreamingLlmConfig::default(), Budget::Full, 1000, &kept);
}
