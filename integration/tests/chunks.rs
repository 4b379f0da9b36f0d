//! Prompts that are read in chunks: what each token attends to, what stays, how many pages that takes, and what is refused.
mod common;

use candle_core::DType;
use common::{
    compressed,
    desk::{Desk, assert_same, last_report, say, settle},
    host::{DIM, GROUP, HEADS, Host, LAYERS, Remembered, expected, relative_error, remembered},
};
use kv_core::Budget;
use kv_hook::KvRuntime;
use mistralrs_kv::{CacheConfig, PoolSize, Prompt, Request, RequestCache, policy};

const BUDGET: usize = 20;
const CHUNKS: [usize; 4] = [50, 33, 2, 40];
/// Of the tokens held, oldest first, those that stay in one head of a layer.
type Rule = fn(&[usize], &[f32]) -> Vec<usize>;

fn key(keys: &[f32], token: usize) -> Vec<f64> {
    let row = &keys[token * DIM..(token + 1) * DIM];
    row.iter().map(|&x| f64::from(x)).collect()
}

fn length(row: &[f64]) -> f64 {
    row.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The newest token, and of the others the `count` with the highest scores.
fn best(held: &[usize], count: usize, score: impl Fn(usize) -> f64) -> Vec<usize> {
    let (newest, others) = held.split_last().expect("some");
    let mut ranked = others.to_vec();
    ranked.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
    ranked.truncate(count);
    ranked.push(*newest);
    ranked.sort_unstable();
    ranked
}

fn everything(held: &[usize], _: &[f32]) -> Vec<usize> {
    held.to_vec()
}

fn sinks_and_recent(held: &[usize], _: &[f32]) -> Vec<usize> {
    let recent = held.len().saturating_sub(BUDGET - 4).max(4);
    [&held[..4], &held[recent..]].concat()
}

fn short_keys(held: &[usize], keys: &[f32]) -> Vec<usize> {
    if held.len() <= BUDGET {
        return held.to_vec();
    }
    best(held, BUDGET - 1, |token| -length(&key(keys, token)))
}

fn different_keys(held: &[usize], keys: &[f32]) -> Vec<usize> {
    if held.len() <= BUDGET {
        return held.to_vec();
    }
    let unit = |token| {
        let row = key(keys, token);
        let length = length(&row);
        row.into_iter().map(|x| x / length).collect::<Vec<f64>>()
    };
    let mut mean = vec![0.0; DIM];
    for &token in held {
        for (sum, x) in mean.iter_mut().zip(unit(token)) {
            *sum += x;
        }
    }
    let cosine = |token| -> f64 { unit(token).iter().zip(&mean).map(|(a, b)| a * b).sum() };
    best(held, BUDGET - 1, |token| -cosine(token))
}

/// Compares the attention of every new token of a pass with the oracle over what its head held and the chunk up to it.
fn check_pass(
    sequence: &Remembered,
    output: &[f32],
    layer: usize,
    new: usize,
    held: &[Vec<usize>],
) {
    let first = sequence.length - new;
    for head in 0..HEADS * GROUP {
        for token in 0..new {
            let mut seen = held[head / GROUP].clone();
            seen.extend(first..=first + token);
            let at = (first + token) * DIM;
            let query = &sequence.queries[layer][head][at..at + DIM];
            let want = expected(sequence, layer, head / GROUP, &seen, query);
            let at = (head * new + token) * DIM;
            let error = relative_error(&output[at..at + DIM], &want);
            assert!(
                error < 1e-5,
                "layer {layer}, head {head}, token {token}: {error}"
            );
        }
    }
}

/// Every token of a chunk attends to what stayed of those before, and to its own chunk; then the rule says what stays.
#[test]
fn a_chunk_attends_to_what_stayed_and_to_itself() {
    let seed = common::seed();
    let cases: [(&str, Rule); 4] = [
        ("keep-all", everything),
        ("streaming-llm", sinks_and_recent),
        ("k-norm", short_keys),
        ("key-diff", different_keys),
    ];
    for (policy, rule) in cases {
        eprintln!("HEADROOM_SEED={seed}: {policy}");
        let budget = match policy {
            "keep-all" => Budget::Full,
            _ => Budget::Tokens(BUDGET),
        };
        let cache = CacheConfig::new(policy).budget(budget).prefill_chunk(50);
        let mut host = Host::new(cache, DType::F32, seed);
        let mut sequence = [remembered(3)];
        let mut held = vec![vec![Vec::new(); HEADS]; LAYERS];
        host.to_come = CHUNKS.iter().sum();
        for new in CHUNKS {
            host.to_come -= new;
            let steps = host.pass(&mut sequence, new, true);
            for (layer, step) in steps.iter().enumerate() {
                check_pass(&sequence[0], &step.output, layer, new, &held[layer]);
                for (head, held) in held[layer].iter_mut().enumerate() {
                    held.extend(sequence[0].length - new..sequence[0].length);
                    *held = rule(held, &sequence[0].keys[layer][head]);
                }
            }
        }
        if policy == "streaming-llm" {
            // A newcomer takes the place of the oldest recent token.
            held.iter_mut().flatten().for_each(|held| {
                held.remove(4);
            });
        }
        let steps = host.pass(&mut sequence, 1, false);
        for (layer, step) in steps.iter().enumerate() {
            check_pass(&sequence[0], &step.output, layer, 1, &held[layer]);
        }
        host.runtime.release(3);
        let report = host.runtime.take_ended().pop().expect("a report");
        let lens = |heads: &Vec<Vec<usize>>| -> Vec<usize> {
            heads.iter().map(|held| held.len() + 1).collect()
        };
        let expected: Vec<Vec<usize>> = held.iter().map(lens).collect();
        assert_eq!(report.kept, expected, "{policy}");
        assert_eq!(report.prompt_tokens, CHUNKS.iter().sum::<usize>());
        let stats = host.runtime.stats().expect("open");
        assert_eq!((stats.pool.held, stats.pool.promised), (0, 0), "{policy}");
    }
}

/// Those that compress after each chunk.
const EACH: [&str; 6] = [
    "duo-attention",
    "k-norm",
    "key-diff",
    "la-cache",
    "lag-kv",
    "streaming-llm",
];

/// A policy that plans when the whole prompt is there keeps what it keeps of a prompt that is read at once; one that plans after each chunk
/// never holds more than its budget and a chunk; one that can do neither is refused by its name.
#[tokio::test(flavor = "multi_thread")]
async fn every_policy_reads_in_chunks_or_says_why_not() {
    const CHUNK: usize = 48;
    let desk = Desk::new();
    let text = desk.text(0, 230);
    let policies = policy::FEATURES.iter().filter(|(_, is_there)| *is_there);
    let names = std::iter::once("keep-all").chain(policies.map(|(name, _)| *name));
    let mut refused = Vec::new();
    for name in names {
        let what = format!("HEADROOM_SEED={}: {name}", desk.seed);
        let cache = match name {
            "keep-all" => CacheConfig::new(name),
            _ => compressed(name),
        };
        let engine = match desk.try_start(cache.clone().prefill_chunk(CHUNK)).await {
            Ok(engine) => engine,
            Err(error) => {
                let error = format!("{error:#}");
                assert!(
                    error.contains("prefill-chunk") && error.contains(name),
                    "{what}: {error}"
                );
                refused.push(name);
                continue;
            }
        };
        let is_same = !EACH.contains(&name);
        // What differs from there on may end the text.
        let tokens = if is_same { 5 } else { 1 };
        let trace = say(&engine, &text, tokens).await;
        let report = last_report(&engine);
        let runtime = engine.runtime().expect("a policy");
        let geometry = runtime.geometry().expect("open");
        let stats = runtime.stats().expect("open");
        assert_eq!(stats.prompts, 1, "{what}");
        assert_eq!((stats.pool.held, stats.pool.promised), (0, 0), "{what}");
        assert_eq!(report.prompt_tokens, text.len(), "{what}");
        let passes = (text.len().div_ceil(CHUNK) * geometry.layers) as u64;
        assert_eq!(stats.kernels.attend_prompt, passes, "{what}");
        let at_once = desk.start(cache).await;
        let expected = say(&at_once, &text, tokens).await;
        let whole = last_report(&at_once);
        assert_eq!(report.kept, whole.kept, "{what}");
        if is_same {
            let at_once = (&expected.tokens[..], &expected.logits[..]);
            assert_same((&trace.tokens, &trace.logits), at_once, &what);
        } else {
            let chunk = geometry.kv_heads * (CHUNK.div_ceil(geometry.block) + 1);
            let most = whole.pages_held_peak + chunk;
            assert!(report.pages_held_peak <= most, "{what}: {report:?}");
        }
    }
    assert_eq!(refused, ["cake", "expected-attention", "fast-gen", "h2o"]);
}

/// A question behind a shared prefix, and the turn after it, are read through the cache: in chunks or not, the same is said.
#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_from_a_cache_is_the_same_in_chunks() {
    let desk = Desk::new();
    let text = desk.text(1, 200);
    let mut said = Vec::new();
    for chunk in [0, 64] {
        let cache = compressed("snap-kv").keep_turns(64).share_any_prefix(true);
        let engine = desk.start(cache.prefill_chunk(chunk)).await;
        let own = RequestCache {
            shared_prefix: Some(120),
            ..RequestCache::default()
        };
        for _ in 0..2 {
            let prompt = Prompt::Tokens(text.clone());
            let request = Request::greedy(prompt, 4).with_cache(own);
            let answer = engine.generate(request).await.expect("answers");
            settle(&engine);
            said.push(answer.text);
        }
        let mut turn = text.clone();
        turn.extend(desk.text(2, 150));
        said.push(format!("{:?}", say(&engine, &turn, 4).await.tokens));
        let stats = engine.runtime().expect("a policy").stats().expect("open");
        assert_eq!(stats.reuse.hits, 1, "HEADROOM_SEED={}", desk.seed);
    }
    let (at_once, in_chunks) = said.split_at(3);
    assert_eq!(at_once, in_chunks, "HEADROOM_SEED={}", desk.seed);
    assert_eq!(at_once[0], at_once[1], "HEADROOM_SEED={}", desk.seed);
}

/// The pool has room for 1,000 tokens and the text has 3,000; several such texts are read one after the other and beside each other.
#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_may_be_longer_than_the_pool() {
    let desk = Desk::new();
    let pool = || Some(PoolSize::MemoryMb(1));
    let cache = compressed("streaming-llm").prefill_chunk(128);
    let engine = desk.start_in(cache, pool()).await;
    let long = desk.text(3, 3000);
    let texts = (0..6).map(|_| engine.trace(Prompt::Tokens(long.clone()), 3, None));
    let traces = futures::future::try_join_all(texts).await.expect("answers");
    settle(&engine);
    assert!(traces.iter().all(|trace| trace.tokens == traces[0].tokens));
    let stats = engine.runtime().expect("a policy").stats().expect("open");
    let geometry = engine.runtime().and_then(|runtime| runtime.geometry());
    assert!(stats.pool.total < geometry.expect("open").full_pages(3000));
    // What has to hold all of the text until its end says that it cannot.
    let cache = compressed("snap-kv").prefill_chunk(128);
    let engine = desk.start_in(cache, pool()).await;
    let answer = engine.trace(Prompt::Tokens(long), 3, None).await;
    let error = answer.expect_err("does not fit").to_string();
    assert!(error.contains("pages"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_has_room_for_what_is_observed() {
    let desk = Desk::new();
    for (name, chunk, least) in [
        ("snap-kv", 5, "at least 32"),
        ("streaming-llm", 1, "at least 2"),
    ] {
        let cache = compressed(name).prefill_chunk(chunk);
        let error = desk.try_start(cache).await.expect_err("refused");
        let error = format!("{error:#}");
        assert!(
            error.contains("prefill-chunk") && error.contains(least),
            "{error}"
        );
    }
}
