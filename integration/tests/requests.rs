//! What a request may ask of its cache, and what becomes of requests that wait, leave, or can never be served.
mod common;

use std::{sync::Arc, time::Duration};

use candle_core::DType;
use common::{
    compressed, engine,
    host::{
        DIM, GROUP, HEADS, Host, LAYERS, Machine, expected, on_each_machine, relative_error,
        remembered,
    },
    seed, start, tiny, tiny_folder,
};
use kv_core::Budget;
use kv_hook::KvRuntime;
use mistralrs_core::Response;
use mistralrs_kv::{
    CacheConfig, Engine, EngineConfig, Finish, KvDtype, PoolSize, Prompt, Request, RequestCache,
    Stats,
};
use tokio::sync::mpsc::channel;

const PATIENCE: Duration = Duration::from_secs(60);

fn window(tokens: usize) -> CacheConfig {
    CacheConfig::new("streaming-llm").budget(Budget::Tokens(tokens))
}

fn own(budget: usize, pin: u32) -> RequestCache {
    RequestCache {
        budget: Some(Budget::Tokens(budget)),
        pin_prefix: Some(pin),
        ..RequestCache::default()
    }
}

/// Positions that a window of `sinks + recent` holds when it is given the token at `newest`.
fn held(first: usize, recent: usize, newest: usize) -> Vec<usize> {
    let start = (newest + 1).saturating_sub(recent).max(first);
    (0..first.min(newest + 1)).chain(start..=newest).collect()
}

/// Two sequences of one batch, one under the engine's terms and one under its own: each attends to what its terms keep.
fn sequences_of_one_batch_keep_their_own_terms(machine: Machine) {
    const PROMPT: usize = 40;
    let seed = seed();
    let mut host = Host::on(machine, window(12), DType::F32, seed);
    let (client, _answers) = channel::<Response>(1);
    let kept = host.runtime.keep_request(&client, &own(20, 6));
    let _terms = kept.expect("the policy takes it");
    let (other, _answers) = channel::<Response>(1);
    host.runtime.enqueue(1, &other);
    host.runtime.enqueue(2, &client);
    assert_eq!(host.runtime.stats().expect("open").waiting, 2);
    let mut sequences = vec![remembered(1), remembered(2)];
    host.pass(&mut sequences, PROMPT, true);
    assert_eq!(host.runtime.stats().expect("open").waiting, 0);
    for step in 0..30 {
        let passes = host.pass(&mut sequences, 1, false);
        let newest = PROMPT + step;
        // Four sinks and 8 recent; six pinned, of which four are sinks, and 16 recent.
        let kept = [held(4, 8, newest), held(6, 16, newest)];
        for (layer, pass) in passes.iter().enumerate() {
            for (index, sequence) in sequences.iter().enumerate() {
                for head in 0..HEADS * GROUP {
                    let row = (index * HEADS * GROUP + head) * DIM;
                    let query = &pass.queries[row..row + DIM];
                    let want = expected(sequence, layer, head / GROUP, &kept[index], query);
                    let error = relative_error(&pass.output[row..row + DIM], &want);
                    assert!(
                        error <= 1e-5,
                        "sequence {index}, head {head} of layer {layer} at {newest}: {error}, HEADROOM_SEED={seed}"
                    );
                }
            }
        }
    }
    let mut reports = host.runtime.open_sequences();
    reports.sort_by_key(|report| report.seq);
    let lens = |index: usize| reports[index].kept.concat();
    assert_eq!(lens(0), vec![12; LAYERS * HEADS]);
    assert_eq!(lens(1), vec![22; LAYERS * HEADS]);
    // 40 + 30 tokens came to each head.
    let dropped = LAYERS * HEADS * ((70 - 12) + (70 - 22));
    assert_eq!(host.runtime.stats().expect("open").evicted, dropped as u64);
}

/// H2O chooses by scores, so pins have to be left out of the ranking on a device, too.
fn a_pinned_prefix_comes_on_top_of_what_scores_choose(machine: Machine) {
    let config = CacheConfig::new("h2o").budget(Budget::Tokens(16));
    let mut host = Host::on(machine, config, DType::F32, seed());
    let (client, _answers) = channel::<Response>(1);
    let request = RequestCache {
        pin_prefix: Some(9),
        ..RequestCache::default()
    };
    let _terms = host.runtime.keep_request(&client, &request).expect("taken");
    host.runtime.enqueue(1, &client);
    let mut sequences = vec![remembered(1)];
    host.pass(&mut sequences, 50, true);
    for _ in 0..20 {
        host.pass(&mut sequences, 1, false);
    }
    let report = host.runtime.open_sequences().pop().expect("open");
    for &kept in report.kept.iter().flatten() {
        assert!((16..=16 + 9).contains(&kept), "{:?}", report.kept);
    }
    // That six heads of random scores choose all nine by themselves does not happen: 54 times out of a third.
    let kept: usize = report.kept.iter().flatten().sum();
    assert!(kept > 16 * LAYERS * HEADS, "{:?}", report.kept);
}

on_each_machine! {
    own_terms_in_one_batch: sequences_of_one_batch_keep_their_own_terms;
    pins_against_scores: a_pinned_prefix_comes_on_top_of_what_scores_choose;
}

#[test]
fn terms_end_with_their_guard_and_bad_ones_are_refused() {
    let mut host = Host::new(window(12), DType::F32, 1);
    let (client, _answers) = channel::<Response>(1);
    drop(
        host.runtime
            .keep_request(&client, &own(20, 0))
            .expect("taken"),
    );
    host.runtime.enqueue(1, &client);
    let mut sequences = vec![remembered(1)];
    host.pass(&mut sequences, 40, true);
    let report = host.runtime.open_sequences().pop().expect("open");
    assert_eq!(
        report.kept.concat(),
        vec![12; LAYERS * HEADS],
        "the engine's own"
    );
    let refused = host.runtime.keep_request(&client, &own(3, 0));
    let error = refused.expect_err("is refused").to_string();
    assert!(error.contains("`sinks` is 4"), "{error}");
    // A budget that keeps everything needs no more than one that does not.
    let full = RequestCache {
        budget: Some(Budget::Full),
        pin_prefix: None,
        ..RequestCache::default()
    };
    assert!(host.runtime.keep_request(&client, &full).is_ok());
    // A sequence that leaves the queue is gone from it.
    host.runtime.enqueue(7, &client);
    assert_eq!(host.runtime.stats().expect("open").waiting, 1);
    host.runtime.release(7);
    assert_eq!(host.runtime.stats().expect("open").waiting, 0);
}

/// What is observed is the same for all sequences of an engine: nothing, where the engine's budget keeps everything.
#[test]
fn a_budget_that_needs_more_than_is_observed_is_refused() {
    let (client, _answers) = channel::<Response>(1);
    let blind = Host::new(CacheConfig::new("h2o"), DType::F32, 1);
    let refused = blind.runtime.keep_request(&client, &own(16, 0));
    let error = refused.expect_err("is refused").to_string();
    assert!(
        error.contains("`budget` is 16") && error.contains("full"),
        "{error}"
    );
    let seeing = CacheConfig::new("h2o").budget(Budget::Tokens(16));
    let mut seeing = Host::new(seeing, DType::F32, 1);
    let full = RequestCache {
        budget: Some(Budget::Full),
        pin_prefix: None,
        ..RequestCache::default()
    };
    let _terms = seeing.runtime.keep_request(&client, &full).expect("taken");
    seeing.runtime.enqueue(1, &client);
    let mut sequences = vec![remembered(1)];
    seeing.pass(&mut sequences, 50, true);
    seeing.pass(&mut sequences, 1, false);
    let report = seeing.runtime.open_sequences().pop().expect("open");
    assert_eq!(report.kept.concat(), vec![51; LAYERS * HEADS]);
}

fn stats(engine: &Engine) -> Stats {
    let runtime = engine.runtime().expect("a policy");
    runtime.stats().expect("the pool is open")
}

/// An engine over a tiny model with room for 2,048 tokens in full.
async fn small(folder: &tempfile::TempDir) -> Arc<Engine> {
    let model = folder.path().join("tiny.gguf");
    tiny::write(&model, 17);
    let config = EngineConfig {
        pool: Some(PoolSize::MemoryMb(1)),
        ..engine(
            model,
            Some(CacheConfig::new("keep-all").cache_dtype(KvDtype::F32)),
        )
    };
    Arc::new(start(config).await)
}

fn prompt(length: u32) -> Prompt {
    Prompt::Tokens((0..length).map(|i| i % (tiny::VOCABULARY - 1)).collect())
}

/// Starts a request that fills most of the pool for as long as it is not aborted.
async fn fill(engine: &Arc<Engine>) -> tokio::task::JoinHandle<()> {
    let runs = engine.clone();
    // Slow enough to be there for as long as the test looks.
    let slowly = |logits: &candle_core::Tensor, _: &[u32]| {
        std::thread::sleep(Duration::from_millis(20));
        Ok(logits.clone())
    };
    let task = tokio::spawn(async move {
        let request = Request::greedy(prompt(1500), 500).with_logits(slowly);
        let _ = runs.generate(request).await;
    });
    wait_until(engine, |stats| stats.sequences == 1).await;
    task
}

async fn wait_until(engine: &Engine, is_so: impl Fn(&Stats) -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_so(&stats(engine)) {
        assert!(std::time::Instant::now() < deadline, "{:?}", stats(engine));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_the_queue_is_never_served() {
    let folder = tempfile::tempdir().expect("makes a folder");
    let engine = small(&folder).await;
    let running = fill(&engine).await;
    let waits = engine.clone();
    let waiting =
        tokio::spawn(async move { waits.generate(Request::greedy(prompt(900), 4)).await });
    wait_until(&engine, |stats| stats.waiting == 1).await;
    waiting.abort();
    wait_until(&engine, |stats| stats.waiting == 0).await;
    assert_eq!(stats(&engine).sequences, 1, "the first one still runs");
    running.abort();
    assert!(engine.runtime().expect("a policy").wait_ended(PATIENCE));
    let stats = stats(&engine);
    assert_eq!(stats.prompts, 1, "the other prompt was never read");
    assert_eq!((stats.pool.held, stats.pool.promised), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_fit_is_refused_while_others_run() {
    let folder = tempfile::tempdir().expect("makes a folder");
    let engine = small(&folder).await;
    let running = fill(&engine).await;
    let hopeless = engine.generate(Request::greedy(prompt(2100), 4)).await;
    let error = format!("{:#}", hopeless.expect_err("too long for the pool"));
    assert!(error.contains("2100 tokens"), "{error}");
    assert_eq!(stats(&engine).sequences, 1, "nobody had to end for that");
    running.abort();
    assert!(engine.runtime().expect("a policy").wait_ended(PATIENCE));
}

/// A prompt and its answer end together at the last position that the model was built for, with and without a policy.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_ends_at_the_models_last_position() {
    const POSITIONS: usize = 2048;
    for cache in [None, Some(compressed("streaming-llm"))] {
        let engine = start(engine(tiny_folder("tiny-llama"), cache.clone())).await;
        assert_eq!(engine.max_positions(), POSITIONS);
        let tokens = (0..2000).map(|i| 32 + i % 90).collect();
        let mut request = Request::greedy(Prompt::Tokens(tokens), 1);
        request.sampling.max_len = None;
        let answer = engine.generate(request).await;
        let answer = answer.unwrap_or_else(|e| panic!("no failing forward pass: {e:#}"));
        assert_eq!(answer.finish, Finish::ContextFull, "{cache:?}");
        if let Some(report) = engine.report(answer.text).expect("a report") {
            assert_eq!(
                report.prompt_tokens + report.generated_tokens,
                POSITIONS + 1
            );
        }
    }
}
