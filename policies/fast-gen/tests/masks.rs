//! The strategies of random heads, against the definition: whole masks over whole attention matrices.
//!
//! A failure prints its seed; `HEADROOM_SEED=<seed>` repeats the run.
use std::hash::{BuildHasher, RandomState};

use kv_core::{Budget, TokenClass};
use kv_policy_fast_gen::{FastGenConfig, Strategy};

mod support;
use support::Prompt;

/// A small generator.
struct Dice(u64);

impl Dice {
    fn bits(&mut self) -> u16 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        u16::try_from(self.0 >> 48).expect("16 bits")
    }

    fn unit(&mut self) -> f32 {
        f32::from(self.bits()) / 65_536.0
    }

    fn below(&mut self, end: u16) -> usize {
        usize::from(self.bits() % end)
    }
}

/// Attention to a few kinds of tokens, as strong as the dice say.
fn random(dice: &mut Dice) -> Prompt {
    let (heads, group, tokens) = (1 + dice.below(3), 1 + dice.below(2), 2 + dice.below(28));
    let class = |dice: &mut Dice| match dice.below(6) {
        0 => TokenClass::Special,
        1 => TokenClass::Punctuation,
        _ => TokenClass::Plain,
    };
    let classes: Vec<TokenClass> = (0..tokens).map(|_| class(dice)).collect();
    let mut attention = Vec::new();
    for _ in 0..heads {
        let kind = dice.below(5);
        let loved: Vec<f32> = (0..tokens)
            .map(|_| 1.0 + 60.0 * dice.unit().powi(6))
            .collect();
        for _ in 0..group {
            let mut rows = Vec::new();
            for query in 0..tokens {
                let weight = |token: usize| match (kind, classes[token]) {
                    (0, TokenClass::Special)
                    | (1, TokenClass::Special | TokenClass::Punctuation) => 60.0,
                    (2, _) => loved[token],
                    (3, _) if token + 3 > query => 40.0,
                    _ => 1.0,
                };
                let mut row: Vec<f32> = (0..=query)
                    .map(|token| weight(token) * (0.5 + dice.unit()))
                    .collect();
                let sum: f32 = row.iter().sum();
                row.iter_mut().for_each(|weight| *weight /= sum);
                rows.push(row);
            }
            attention.push(rows);
        }
    }
    Prompt {
        attention,
        group,
        classes,
    }
}

/// Whether a strategy lets query `i` see token `j`, `[n][n]`.
fn mask(
    prompt: &Prompt,
    accumulated: &[f32],
    config: &FastGenConfig,
    strategy: Strategy,
) -> Vec<Vec<bool>> {
    let tokens = prompt.tokens();
    let share = |share: f64| {
        let most = tokens as f64 * share + 1e-9;
        (1..=tokens).filter(|&count| count as f64 <= most).count()
    };
    let window = if strategy >= Strategy::Local {
        share(config.local_share).max(1)
    } else {
        1
    };
    let is_named = |token: usize| match prompt.classes[token] {
        TokenClass::Special => true,
        TokenClass::Punctuation => strategy >= Strategy::Punctuation,
        TokenClass::Plain => false,
    };
    // One after the other, the heaviest token outside the last window.
    let mut heavy: Vec<usize> = Vec::new();
    for _ in 0..share(config.heavy_share) {
        let open = (0..tokens.saturating_sub(window))
            .filter(|token| !is_named(*token) && !heavy.contains(token));
        let heaviest = open.reduce(|best, token| {
            if accumulated[token] > accumulated[best] {
                token
            } else {
                best
            }
        });
        heavy.extend(heaviest.filter(|_| strategy >= Strategy::Heavy));
    }
    let sees = |query: usize, token: usize| {
        strategy == Strategy::Full
            || is_named(token)
            || heavy.contains(&token)
            || (strategy == Strategy::Local && token <= query && query < token + window)
    };
    (0..tokens)
        .map(|query| (0..tokens).map(|token| sees(query, token)).collect())
        .collect()
}

/// The share of a KV head's attention that a mask lets through.
fn recovered(prompt: &Prompt, head: usize, mask: &[Vec<bool>]) -> f64 {
    let group = &prompt.attention[head * prompt.group..(head + 1) * prompt.group];
    let mut sum = 0.0;
    for rows in group {
        for (query, row) in rows.iter().enumerate() {
            let seen = row.iter().zip(&mask[query]).filter(|(_, sees)| **sees);
            sum += seen.map(|(&weight, _)| f64::from(weight)).sum::<f64>();
        }
    }
    sum / (group.len() * prompt.tokens()) as f64
}

#[test]
fn the_strategies_are_those_of_the_definition() {
    let seed = std::env::var("HEADROOM_SEED").map_or_else(
        |_| RandomState::new().hash_one("fast-gen"),
        |seed| seed.parse().expect("HEADROOM_SEED is a number"),
    );
    let mut dice = Dice(seed);
    let mut met = [0; 5];
    for _ in 0..400 {
        let prompt = random(&mut dice);
        // Now and then there are no heavy hitters, or a window of one.
        let mut share = || 0.4 * f64::from((dice.unit() - 0.1).max(0.0));
        let (heavy_share, local_share) = (share(), share());
        let config = FastGenConfig {
            recovery: 0.6 + 0.35 * f64::from(dice.unit()),
            heavy_share,
            local_share,
        };
        let (strategies, kept) = prompt.read(config, Budget::Full);
        let accumulated = prompt.accumulated();
        for (head, &found) in strategies.iter().enumerate() {
            let masks = Strategy::ALL.map(|s| mask(&prompt, &accumulated[head], &config, s));
            let shares: Vec<f64> = masks
                .iter()
                .map(|mask| recovered(&prompt, head, mask))
                .collect();
            assert!(shares.is_sorted(), "HEADROOM_SEED={seed}: {shares:?}");
            if shares
                .iter()
                .any(|share| (share - config.recovery).abs() < 1e-5)
            {
                // Too near to tell.
                continue;
            }
            let enough = shares.iter().position(|&share| share >= config.recovery);
            let expected = Strategy::ALL[enough.expect("all is enough")];
            assert_eq!(
                found, expected,
                "HEADROOM_SEED={seed}, head {head}: {shares:?}"
            );
            met[found as usize] += 1;
            // Of the prompt it keeps what the last query sees, and the newest.
            let mut sees = masks[found as usize][prompt.tokens() - 1].clone();
            if let Some(newest) = sees.last_mut() {
                *newest = true;
            }
            let expected: Vec<u32> = (0..).zip(sees).filter(|t| t.1).map(|t| t.0).collect();
            assert_eq!(
                kept.slots[head], expected,
                "HEADROOM_SEED={seed}, head {head}"
            );
        }
    }
    assert!(
        met.iter().all(|&heads| heads >= 10),
        "HEADROOM_SEED={seed} met {met:?} heads of each strategy"
    );
}
