//! A prompt of six tokens and two steps, worked out by hand.
use kv_core::Budget;
use kv_policy_h2o::{H2oConfig, Score};

mod support;
use support::Cache;

/// Attention of each prompt query before it is divided by its sum.
const PROMPT: [&[f32]; 6] = [
    &[1.0],
    &[3.0, 1.0],
    &[2.0, 1.0, 1.0],
    &[4.0, 1.0, 4.0, 1.0],
    &[2.0, 1.0, 5.0, 1.0, 1.0],
    &[1.0, 1.0, 4.0, 1.0, 2.0, 1.0],
];

fn normalised(weights: &[f32]) -> Vec<f32> {
    let sum: f32 = weights.iter().sum();
    weights.iter().map(|weight| weight / sum).collect()
}

fn accumulated() -> Vec<f32> {
    let mut sums = vec![0.0; PROMPT.len()];
    for query in PROMPT {
        for (sum, mass) in sums.iter_mut().zip(normalised(query)) {
            *sum += mass;
        }
    }
    sums
}

fn two_and_two() -> H2oConfig {
    H2oConfig {
        heavy: Some(2),
        recent: Some(2),
        ..H2oConfig::default()
    }
}

fn assert_kept(cache: &Cache, expected: &[(u32, f32)]) {
    let kept = cache.kept(0);
    let is_near = |(a, b): (&(u32, f32), &(u32, f32))| a.0 == b.0 && (a.1 - b.1).abs() < 5e-4;
    assert!(
        kept.len() == expected.len() && kept.iter().zip(expected).all(is_near),
        "{kept:?}, not {expected:?}"
    );
}

/// One step with these weights on the positions held, in the order of the text.
fn step(cache: &mut Cache, position: usize, held: &[usize], weights: &[f32]) {
    let row = normalised(weights);
    cache.step(position, |_, positions| {
        let mass = |position| held.iter().position(|p| p == position).map(|at| row[at]);
        positions
            .iter()
            .map(|position| mass(position).expect("the positions of the example"))
            .collect()
    });
}

#[test]
fn six_tokens_and_two_steps() {
    let scores = accumulated();
    for (score, expected) in scores.iter().zip([2.95, 0.8, 1.55, 0.3, 0.3, 0.1]) {
        assert!((score - expected).abs() < 1e-6, "{scores:?}");
    }
    let mut cache = Cache::after_prompt(two_and_two(), Budget::Tokens(5), &[scores]);
    assert_kept(&cache, &[(0, 2.95), (2, 1.55), (4, 0.3), (5, 0.1)]);
    step(&mut cache, 6, &[0, 2, 4, 5, 6], &[1.0, 2.0, 8.0, 1.0, 1.0]);
    assert_kept(
        &cache,
        &[(0, 3.0269), (2, 1.7038), (5, 0.1769), (6, 0.0769)],
    );
    // Token 5 rises to 0.7769 and goes all the same: old mass never fades.
    step(&mut cache, 7, &[0, 2, 5, 6, 7], &[1.0, 1.0, 6.0, 1.0, 1.0]);
    assert_kept(&cache, &[(0, 3.1269), (2, 1.8038), (6, 0.1769), (7, 0.1)]);
}

/// The budget says the same as the sizes: five tokens are two, two and the newcomer's slot.
#[test]
fn a_budget_has_room_for_the_newcomer() {
    for config in [H2oConfig::default(), two_and_two()] {
        let cache = Cache::after_prompt(config, Budget::Tokens(5), &[accumulated()]);
        let kept: Vec<u32> = cache
            .kept(0)
            .iter()
            .map(|&(position, _)| position)
            .collect();
        assert_eq!(kept, [0, 2, 4, 5], "{config:?}");
    }
}

#[test]
fn only_the_prompt_is_compressed_where_tokens_are_appended() {
    let config = H2oConfig {
        decode: kv_policy_h2o::Decode::Append,
        score: Score::Mean,
        ..two_and_two()
    };
    let mut cache = Cache::after_prompt(config, Budget::Tokens(4), &[accumulated()]);
    for position in 6..50 {
        cache.step(position, |_, held| vec![0.0; held.len()]);
    }
    let kept: Vec<u32> = cache
        .kept(0)
        .iter()
        .map(|&(position, _)| position)
        .collect();
    assert_eq!(kept, [0, 2].into_iter().chain(4..50).collect::<Vec<u32>>());
}
