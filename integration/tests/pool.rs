//! Pages: constant while a text streams, enough for many, and whole again after every kind of end.
mod common;

use std::{sync::Arc, time::Duration};

use common::{Weights, engine, record, smollm, start, tiny};
use kv_core::Budget;
use mistralrs_kv::{CacheConfig, Engine, EngineConfig, KvDtype, PoolSize, Prompt, Request, Stats};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

const PATIENCE: Duration = Duration::from_secs(60);

fn streaming(tokens: usize) -> Option<CacheConfig> {
    Some(CacheConfig::new("streaming-llm").budget(Budget::Tokens(tokens)))
}

fn stats(engine: &Engine) -> Stats {
    engine
        .runtime()
        .expect("a policy")
        .stats()
        .expect("the pool is open")
}

fn assert_whole(engine: &Engine) {
    assert!(
        engine.runtime().expect("a policy").wait_ended(PATIENCE),
        "every sequence ends"
    );
    let pool = stats(engine).pool;
    assert_eq!(
        (pool.held, pool.promised),
        (0, 0),
        "the pool is whole: {pool:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_stay_constant_over_600_tokens_and_all_come_back() {
    const BUDGET: usize = 128;
    let config = engine(smollm(Weights::Q8), streaming(BUDGET));
    let engine = start(config).await;
    let runtime = engine.runtime().expect("a policy").clone();
    let geometry = runtime.geometry().expect("the pool is open");
    let mut held = Vec::new();
    let request = Request::greedy(
        Prompt::chat("Tell me a long story about a lighthouse."),
        600,
    );
    engine
        .stream(request, |_| {
            held.extend(
                runtime
                    .open_sequences()
                    .into_iter()
                    .map(|sequence| (sequence.cached_tokens, sequence.pages_held)),
            );
            true
        })
        .await
        .expect("the engine answers");
    assert_whole(&engine);
    let expected = geometry.full_pages(BUDGET);
    let warm: Vec<_> = held
        .iter()
        .filter(|&&(cached, _)| cached > BUDGET)
        .collect();
    assert!(
        warm.len() > 400,
        "{} observations after warm-up",
        warm.len()
    );
    for (cached, pages) in warm {
        assert_eq!(*pages, expected, "pages held after {cached} tokens");
    }
    let report = runtime.take_ended().pop().expect("a report");
    assert!(
        report.kept.iter().flatten().all(|&kept| kept == BUDGET),
        "{:?}",
        report.kept
    );
    assert_eq!(report.pages_held_peak, expected);
    assert!(
        report.pages_full > 4 * expected,
        "a full cache would hold {}",
        report.pages_full
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_for_four_long_sequences_runs_sixteen_compressed_ones_with_their_own_texts() {
    let config = EngineConfig {
        pool: Some(PoolSize::ContextLen(4 * 1024)),
        ..engine(smollm(Weights::Q8), streaming(128))
    };
    let engine = Arc::new(start(config).await);
    let prompts: Vec<Prompt> = (0..16)
        .map(|i| {
            Prompt::chat(format!(
                "Tell me a fact about the number {i}.{}",
                " Take your time.".repeat(i * 2)
            ))
        })
        .collect();
    let mut alone = Vec::new();
    for prompt in &prompts {
        alone.push(
            engine
                .generate(Request::greedy(prompt.clone(), 24))
                .await
                .expect("answers"),
        );
    }
    assert_whole(&engine);
    let together: Vec<_> = prompts
        .into_iter()
        .map(|prompt| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.generate(Request::greedy(prompt, 24)).await })
        })
        .collect();
    for (index, (task, expected)) in together.into_iter().zip(alone).enumerate() {
        let got = task.await.expect("no panic").expect("answers");
        assert_eq!(got, expected, "sequence {index} in company and alone");
    }
    assert_whole(&engine);
    let stats = stats(&engine);
    assert_eq!(
        stats.peak_sequences, 16,
        "all were admitted together: {stats:?}"
    );
    assert_eq!((stats.refusals, stats.preemptions), (0, 0), "{stats:?}");
    let lengths: std::collections::BTreeSet<usize> = engine
        .runtime()
        .expect("a policy")
        .take_ended()
        .iter()
        .map(|report| report.prompt_tokens)
        .collect();
    assert!(lengths.len() >= 12, "mixed lengths: {lengths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_cancelled_requests_leave_the_pool_whole() {
    let seed: u64 = rand::random();
    let folder = tempfile::tempdir().expect("makes a folder");
    let model = folder.path().join("tiny.gguf");
    tiny::write(&model, seed);
    let config = EngineConfig {
        max_seqs: 8,
        ..engine(model, streaming(40))
    };
    let engine = Arc::new(start(config).await);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut tasks = Vec::new();
    for _ in 0..200 {
        let length = *[1, 3, 17, 40, 41, 90].choose(&mut rng).expect("a length");
        let prompt: Vec<u32> = (0..length)
            .map(|_| rng.random_range(0..tiny::VOCABULARY - 1))
            .collect();
        let mut left: u32 = rng.random_range(0..60);
        let engine = engine.clone();
        tasks.push(tokio::spawn(async move {
            let request = Request::greedy(Prompt::Tokens(prompt), 400);
            engine
                .stream(request, move |_| {
                    left = left.saturating_sub(1);
                    left > 0
                })
                .await
        }));
    }
    for task in tasks {
        task.await
            .expect("no panic")
            .unwrap_or_else(|e| panic!("cancelled, not failed: {e:#} (seed {seed})"));
    }
    assert_whole(&engine);
    let prompts = stats(&engine).prompts;
    assert!(prompts >= 200, "{prompts} prompts were read (seed {seed})");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_forward_pass_gives_its_pages_back_and_the_engine_goes_on() {
    let folder = tempfile::tempdir().expect("makes a folder");
    let model = folder.path().join("tiny.gguf");
    tiny::write(&model, 7);
    let engine = start(engine(model, streaming(64))).await;
    let failing = Request::greedy(Prompt::Tokens(vec![1, 2, 3]), 20).with_logits(
        |_: &candle_core::Tensor, context: &[u32]| match context.len() {
            8 => candle_core::bail!("a planted failure"),
            _ => Ok(candle_core::Tensor::zeros(
                tiny::VOCABULARY as usize,
                candle_core::DType::F32,
                &candle_core::Device::Cpu,
            )?),
        },
    );
    let error = engine
        .generate(failing)
        .await
        .expect_err("the request fails");
    assert!(format!("{error:#}").contains("planted"), "{error:#}");
    assert_whole(&engine);
    let (_, steps) = record(&engine, Prompt::Tokens(vec![1, 2, 3]), 12, None).await;
    assert_eq!(steps.tokens.len(), 12, "the engine still answers");
    assert_whole(&engine);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_makes_requests_wait_and_a_hopeless_one_is_told_why() {
    let folder = tempfile::tempdir().expect("makes a folder");
    let model = folder.path().join("tiny.gguf");
    tiny::write(&model, 11);
    // One MiB: 2,048 tokens in each of the four heads.
    let config = EngineConfig {
        pool: Some(PoolSize::MemoryMb(1)),
        ..engine(
            model,
            Some(CacheConfig::new("keep-all").cache_dtype(KvDtype::F32)),
        )
    };
    let engine = Arc::new(start(config).await);
    let pages = stats(&engine).pool.total;
    let prompt =
        |length: u32| Prompt::Tokens((0..length).map(|i| i % (tiny::VOCABULARY - 1)).collect());
    let hopeless = engine
        .generate(Request::greedy(prompt(2100), 4))
        .await
        .expect_err("too long for the pool");
    let text = format!("{hopeless:#}");
    assert!(
        text.contains("2100 tokens") && text.contains(&format!("{pages}")),
        "{text}"
    );
    let waiting: Vec<_> = (0..6)
        .map(|_| {
            let (engine, prompt) = (engine.clone(), prompt(700));
            tokio::spawn(async move { engine.generate(Request::greedy(prompt, 8)).await })
        })
        .collect();
    for task in waiting {
        task.await
            .expect("no panic")
            .expect("waits and then answers");
    }
    assert_whole(&engine);
    let stats = stats(&engine);
    assert!(
        stats.refusals > 0 && stats.peak_sequences < 6,
        "some had to wait: {stats:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn preempted_sequences_give_their_pages_back_and_finish() {
    let folder = tempfile::tempdir().expect("makes a folder");
    let model = folder.path().join("tiny.gguf");
    tiny::write(&model, 13);
    let config = EngineConfig {
        pool: Some(PoolSize::MemoryMb(1)),
        ..engine(
            model,
            Some(CacheConfig::new("keep-all").cache_dtype(KvDtype::F32)),
        )
    };
    let engine = Arc::new(start(config).await);
    // Six prompts of 300 tokens fit 2,048, but not with 200 more tokens each.
    let tasks: Vec<_> = (0..6)
        .map(|first| {
            let tokens = (0..300).map(|i| (first + i) % (tiny::VOCABULARY - 1));
            let prompt = Prompt::Tokens(tokens.collect());
            let engine = engine.clone();
            tokio::spawn(async move { record(&engine, prompt, 200, None).await.1.tokens.len() })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), 200, "every request finishes");
    }
    assert_whole(&engine);
    let stats = stats(&engine);
    assert!(
        stats.preemptions > 0,
        "the pool ran out on the way: {stats:?}"
    );
    assert!(stats.pool.peak <= stats.pool.total, "{stats:?}");
}
