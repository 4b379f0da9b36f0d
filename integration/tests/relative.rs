//! Positions in the cache: attention is that of a model that reads what is held at its positions in the cache, and texts go on past the
//! model's positions.
mod common;

use attention_kernels::oracle;
use candle_core::{DType, Tensor};
use common::{
    desk::{Desk, settle, stats},
    host::{
        DIM, GROUP, HEADS, Host, LAYERS, Remembered, SCALE, relative_error, remembered, rotation,
        spec, stored_as,
    },
};
use kv_core::{
    Budget, ConfigError, Geometry, KeepPlan, LayerView, Needs, Policy, PolicyConfig, Positions,
    Registry, schemars::JsonSchema,
};
use kv_hook::{KvRuntime, PoolSpec, RotationTables};
use mistralrs_kv::{CacheConfig, Finish, Prompt, Request, RequestCache, Runtime};
use serde::{Deserialize, Serialize};

const SINKS: usize = 4;
const BUDGET: usize = 52;

fn relative(policy: &str) -> CacheConfig {
    let cache = CacheConfig::new(policy).set("positions", "cache-relative");
    let recent = BUDGET - SINKS;
    match policy {
        "duo-attention" => cache.set("sinks", SINKS).set("recent", recent),
        _ => cache.budget(Budget::Tokens(BUDGET)),
    }
}

fn host(cache: CacheConfig, dtype: DType, max_positions: usize, seed: u64) -> Host {
    let spec = PoolSpec {
        max_positions,
        ..spec(dtype)
    };
    Host::of(&spec, Runtime::new(stored_as(dtype, cache)), seed)
}

/// Which dimensions of a head are turned together.
#[derive(Debug, Clone, Copy)]
struct Turning {
    pairs: usize,
    is_adjacent: bool,
}

/// All of them in halves, as Llama.
const HALVES: Turning = Turning {
    pairs: DIM / 2,
    is_adjacent: false,
};

impl Turning {
    /// A row turned on by `by` positions, in 64 bits.
    fn turned(self, row: &[f64], by: f64) -> Vec<f64> {
        let mut out = row.to_vec();
        for pair in 0..self.pairs {
            let (one, other) = match self.is_adjacent {
                true => (2 * pair, 2 * pair + 1),
                false => (pair, pair + self.pairs),
            };
            let angle = by / 10_000_f64.powf(pair as f64 / self.pairs as f64);
            let ((sin, cos), x, y) = (angle.sin_cos(), row[one], row[other]);
            (out[one], out[other]) = (x * cos - y * sin, x * sin + y * cos);
        }
        out
    }
}

fn row(all: &[f32], token: usize) -> Vec<f64> {
    let row = &all[token * DIM..(token + 1) * DIM];
    row.iter().map(|&x| f64::from(x)).collect()
}

/// Attention of the query of token `asks` over the tokens `held`, each turned anew from its raw key for its place among them.
fn expected(
    turning: Turning,
    one: &Remembered,
    (layer, head): (usize, usize),
    asks: usize,
    held: &[usize],
) -> Vec<f64> {
    let moved = |all: &[f32], token: usize, to: usize| {
        turning.turned(&row(all, token), to as f64 - one.places[token] as f64)
    };
    let at = held.len() - 1;
    let query = moved(&one.queries[layer][head], asks, at);
    let keys = &one.keys[layer][head / GROUP];
    let dot = |(place, &token): (usize, &usize)| -> f64 {
        let key = moved(keys, token, place);
        key.iter().zip(&query).map(|(k, q)| k * q).sum()
    };
    let scores: Vec<f64> = held.iter().enumerate().map(dot).collect();
    let scores = scores.into_iter().map(|s| s * f64::from(SCALE));
    let weights: Vec<f64> = scores.map(f64::exp).collect();
    let total: f64 = weights.iter().sum();
    let mut out = vec![0.0; DIM];
    for (&token, weight) in held.iter().zip(&weights) {
        for (out, value) in out
            .iter_mut()
            .zip(row(&one.values[layer][head / GROUP], token))
        {
            *out += weight / total * value;
        }
    }
    out
}

/// The sinks and the newest tokens up to `last`, where `held` of them fit.
fn window(last: usize, held: usize) -> Vec<usize> {
    let recent = (last + 1).saturating_sub(held - SINKS).max(SINKS);
    (0..SINKS).chain(recent..=last).collect()
}

fn check(
    turning: Turning,
    one: &Remembered,
    output: &[f32],
    (layer, new, index): (usize, usize, usize),
    held: &[usize],
    bound: f64,
) {
    let asks = one.length - new + index;
    for head in 0..HEADS * GROUP {
        let want = expected(turning, one, (layer, head), asks, held);
        let at = (head * new + index) * DIM;
        let error = relative_error(&output[at..at + DIM], &want);
        assert!(
            error < bound,
            "token {asks}, layer {layer}, head {head}: {error:e}"
        );
    }
}

/// More than ten thousand evictions, and more than a thousand times that keys were turned back, because the model has 64 positions.
#[test]
fn a_text_of_any_length_is_read_at_its_positions_in_the_cache() {
    let seed = common::seed();
    eprintln!("HEADROOM_SEED={seed}");
    for (dtype, bound) in [(DType::F32, 1e-5), (DType::F16, 3e-3)] {
        let mut host = host(relative("streaming-llm"), dtype, 64, seed);
        let mut one = [remembered(1)];
        host.pass(&mut one, 40, true);
        while one[0].length < 12_200 {
            let steps = host.pass(&mut one, 1, false);
            let last = one[0].length - 1;
            if !last.is_multiple_of(97) && last < 12_150 {
                continue;
            }
            for (layer, step) in steps.iter().enumerate() {
                let held = window(last, BUDGET);
                check(HALVES, &one[0], &step.output, (layer, 1, 0), &held, bound);
            }
        }
        let stats = host.runtime.stats().expect("open");
        assert!(stats.rebases >= 1000, "{stats:?}");
        assert!(one[0].places.iter().all(|&place| place < 64));
        assert_eq!(stats.resident, [BUDGET * HEADS; LAYERS]);
    }
}

/// Pairs that stand side by side, as GPT-J's, and heads of which only a part is turned, as in Phi and GLM.
#[test]
fn keys_turn_in_pairs_side_by_side_and_in_part() {
    let seed = common::seed();
    eprintln!("HEADROOM_SEED={seed}");
    for (pairs, is_adjacent) in [(DIM / 2, true), (DIM / 8, true), (DIM / 4, false)] {
        let turning = Turning { pairs, is_adjacent };
        let mut host = host(relative("streaming-llm"), DType::F32, 64, seed);
        host.rotation = Some(rotation(64, pairs, is_adjacent));
        let mut one = [remembered(1)];
        host.pass(&mut one, 40, true);
        for _ in 0..400 {
            let steps = host.pass(&mut one, 1, false);
            let last = one[0].length - 1;
            let held = window(last, BUDGET);
            check(turning, &one[0], &steps[1].output, (1, 1, 0), &held, 1e-5);
        }
        assert!(host.runtime.stats().expect("open").rebases >= 20);
    }
}

/// `YaRN` scales what it turns.
#[test]
#[should_panic(expected = "does more than turn")]
fn a_rotation_that_scales_is_refused() {
    let mut host = host(relative("streaming-llm"), DType::F32, 64, 1);
    let usual = rotation(64, DIM / 2, false);
    let scaled = |table: &Tensor| (table * 1.1).expect("scales");
    host.rotation = Some(RotationTables {
        cos: scaled(&usual.cos),
        sin: scaled(&usual.sin),
        is_adjacent: false,
    });
    host.pass(&mut [remembered(1)], 8, true);
}

/// Keeps every other token of a prompt, and asks for positions in the cache.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "kv_core::schemars")]
#[serde(deny_unknown_fields, default)]
struct Scattered {}

impl PolicyConfig for Scattered {
    const NAME: &'static str = "scattered";
    const SUMMARY: &'static str = "every other token";
    type Policy = Self;

    fn bind(self, _: &Geometry, _: Budget) -> Result<Self, ConfigError> {
        Ok(self)
    }
}

impl Policy for Scattered {
    fn needs(&self) -> Needs {
        Needs {
            appends: true,
            positions: Positions::CacheRelative,
            ..Needs::NONE
        }
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        for head in 0..view.heads() {
            keep.slots(head, (0..).step_by(2).take(view.prompt / 2));
        }
    }
}

#[test]
#[should_panic(expected = "other tokens than its first and its newest")]
fn a_policy_that_holds_scattered_tokens_is_refused() {
    let mut registry = Registry::default();
    registry.add::<Scattered>();
    let cache = CacheConfig::new("scattered").registry(registry);
    let mut host = host(cache, DType::F32, 1024, 1);
    host.pass(&mut [remembered(1)], 40, true);
}

/// The rounding of the oracle and of [`oracle::attend`] is the same where nothing is moved.
#[test]
fn the_oracle_is_plain_attention_where_nothing_was_evicted() {
    let mut host = host(relative("streaming-llm"), DType::F32, 1024, 1);
    let mut one = [remembered(1)];
    host.pass(&mut one, 20, true);
    host.pass(&mut one, 1, false);
    let held: Vec<usize> = (0..=20).collect();
    let query = &one[0].queries[0][1][20 * DIM..];
    let plain = oracle::attend(&one[0].keys[0][0], &one[0].values[0][0], query, SCALE, None);
    let moved = expected(HALVES, &one[0], (0, 1), 20, &held);
    for (a, b) in plain.iter().zip(moved) {
        assert!((a - b).abs() < 1e-9);
    }
}

/// A prompt of many times the model's positions comes in chunks: each attends to what stayed and to itself, without the gap.
#[test]
fn a_prompt_may_be_longer_than_the_models_positions() {
    let seed = common::seed();
    eprintln!("HEADROOM_SEED={seed}");
    let mut host = host(relative("streaming-llm"), DType::F32, 256, seed);
    let mut one = [remembered(1)];
    host.to_come = 1500;
    let mut held: Vec<usize> = Vec::new();
    while host.to_come > 0 {
        host.runtime
            .reserve(1, one[0].length + host.to_come)
            .expect("room");
        let new = host.runtime.prompt_chunk(&[1], host.to_come);
        assert!((2..=128).contains(&new), "a pass of {new} tokens");
        host.to_come -= new;
        let steps = host.pass(&mut one, new, true);
        for (layer, step) in steps.iter().enumerate() {
            for index in 0..new {
                let mut seen = held.clone();
                seen.extend(one[0].length - new..=one[0].length - new + index);
                check(
                    HALVES,
                    &one[0],
                    &step.output,
                    (layer, new, index),
                    &seen,
                    1e-5,
                );
            }
        }
        held = window(one[0].length - 1, BUDGET);
    }
    let steps = host.pass(&mut one, 1, false);
    let held = window(one[0].length - 1, BUDGET);
    check(HALVES, &one[0], &steps[1].output, (1, 1, 0), &held, 1e-5);
    assert!(host.runtime.stats().expect("open").rebases >= 5);
}

/// Streaming heads of duo-attention see their sinks next to their window; retrieval heads, beside them, hold everything where it stood.
#[test]
fn streaming_heads_may_be_relative_beside_others() {
    let seed = common::seed();
    eprintln!("HEADROOM_SEED={seed}");
    let mut host = host(relative("duo-attention"), DType::F32, 1024, seed);
    assert!(!host.runtime.is_endless());
    let mut one = [remembered(1)];
    host.pass(&mut one, 80, true);
    for _ in 0..300 {
        let steps = host.pass(&mut one, 1, false);
        let last = one[0].length - 1;
        for (layer, step) in steps.iter().enumerate() {
            for head in 0..HEADS * GROUP {
                // The built-in profile: every other head.
                let is_retrieval = (layer + head / GROUP).is_multiple_of(2);
                let held = match is_retrieval {
                    true => (0..=last).collect(),
                    false => window(last, BUDGET),
                };
                let want = expected(HALVES, &one[0], (layer, head), last, &held);
                let error = relative_error(&step.output[head * DIM..(head + 1) * DIM], &want);
                assert!(error < 1e-5, "layer {layer}, head {head}: {error:e}");
            }
        }
    }
}

/// The engine's model has 4,096 positions: prompts, answers and conversations go on past them, with the same pages.
#[tokio::test(flavor = "multi_thread")]
async fn the_engine_reads_and_writes_past_its_context() {
    let desk = Desk::new();
    let what = format!("HEADROOM_SEED={}", desk.seed);
    let engine = desk.start(relative("streaming-llm").keep_turns(64)).await;
    let mut text = desk.text(0, 4090);
    let behind = desk.text(1, 40);
    let prompt = || Prompt::Tokens(text.clone());
    let trace = engine.trace(prompt(), 40, Some(behind.clone())).await;
    assert_eq!(trace.expect("goes on").tokens, behind, "{what}");
    settle(&engine);
    assert!(stats(&engine).rebases > 0, "{what}");
    // Without it, a text ends where the positions do.
    let original = CacheConfig::new("streaming-llm").budget(Budget::Tokens(BUDGET));
    let bounded = desk.start(original).await;
    let trace = bounded.trace(prompt(), 40, Some(behind.clone())).await;
    let trace = trace.expect("ends");
    assert!(trace.tokens.len() < 10, "{what}");
    assert_eq!(trace.answer.finish, Finish::ContextFull, "{what}");
    // The next turn, and a long one behind it, read only what is new.
    text.extend(&behind);
    text.extend(desk.text(2, 9000));
    let prompt = Prompt::Tokens(text.clone());
    let trace = engine.trace(prompt, 3, None).await.expect("goes on");
    assert!(
        trace.logits.iter().flatten().all(|x| x.is_finite()),
        "{what}"
    );
    settle(&engine);
    let after = stats(&engine);
    assert_eq!((after.reuse.hits, after.reuse.tokens), (1, 4129), "{what}");
    let geometry = engine.runtime().and_then(|runtime| runtime.geometry());
    let geometry = geometry.expect("open");
    let held = geometry.heads() * geometry.head_pages(BUDGET);
    assert!(after.pool.held <= 3 * held, "{what}: {after:?}");
    // A prompt that is new, and three times as long as the context.
    let long = engine
        .trace(Prompt::Tokens(desk.text(3, 13_000)), 3, None)
        .await;
    assert_eq!(long.expect("is read").tokens.len(), 3, "{what}");
}

/// After ten thousand evictions a whole model says what it says of a text of nothing but the sinks and the window. One layer, for in a
/// deeper one the keys of what is held remember what was evicted.
#[tokio::test(flavor = "multi_thread")]
async fn logits_are_those_of_a_text_of_what_is_held() {
    let desk = Desk::of_one_layer();
    let endless = desk.start(relative("streaming-llm")).await;
    let plain = desk.start(CacheConfig::new("keep-all")).await;
    let mut text = desk.text(5, 10_100);
    let behind = desk.text(6, 40);
    let prompt = Prompt::Tokens(text.clone());
    let trace = endless.trace(prompt, behind.len(), Some(behind.clone()));
    let trace = trace.await.expect("goes on");
    // The first row is that of the prompt's last chunk, which sees all of the chunk.
    for (token, row) in behind.iter().zip(&trace.logits[1..]) {
        text.push(*token);
        let held: Vec<u32> = window(text.len() - 1, BUDGET)
            .into_iter()
            .map(|place| text[place])
            .collect();
        let alone = plain.trace(Prompt::Tokens(held), 1, None).await;
        let alone: Vec<f64> = alone.expect("answers").logits[0]
            .iter()
            .map(|&x| f64::from(x))
            .collect();
        let error = relative_error(row, &alone);
        assert!(error < 1e-5, "HEADROOM_SEED={}: {error:e}", desk.seed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_a_chunk_share_the_models_positions() {
    let desk = Desk::new();
    let cache = relative("streaming-llm").budget(Budget::Tokens(4000));
    let error = desk
        .try_start(cache.prefill_chunk(512))
        .await
        .expect_err("too much");
    let error = format!("{error:#}");
    assert!(
        error.contains("4000 tokens") && error.contains("at most 3584"),
        "{error}"
    );
    // A request may ask for a budget of its own, and is held to the same.
    let engine = desk.start(relative("streaming-llm")).await;
    let ask = |tokens| {
        let own = RequestCache {
            budget: Some(Budget::Tokens(tokens)),
            ..RequestCache::default()
        };
        let prompt = Prompt::Tokens(desk.text(4, 6000));
        engine.generate(Request::greedy(prompt, 3).with_cache(own))
    };
    let error = ask(4095).await.expect_err("too much").to_string();
    assert!(error.contains("4095 tokens"), "{error}");
    ask(1000).await.expect("is read in chunks");
}
