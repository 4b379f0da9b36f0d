//! A text that is read once says, under every cache, what it says where each cache reads it by itself.
mod common;

use candle_core::DType;
use common::{compressed, seed, tiny};
use kv_core::SequenceReport;
use mistralrs_kv::{CacheConfig, EngineConfig, KvDtype, Prompt, RequestCache, Study, policy};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const TEXT: usize = 200;
const BEHIND: usize = 12;

/// Relative to the largest logit of a row. The products are of other shapes, so their sums may come in another order.
const BOUND: f32 = 1e-4;

fn caches() -> Vec<CacheConfig> {
    let policies = policy::FEATURES
        .iter()
        .filter(|(_, is_there)| *is_there)
        .map(|(policy, _)| compressed(policy));
    std::iter::once(CacheConfig::new("keep-all"))
        .chain(policies)
        // What is rounded to half precision may be rounded to its neighbour.
        .map(|cache| cache.cache_dtype(KvDtype::F32))
        .collect()
}

struct Desk {
    _folder: tempfile::TempDir,
    config: EngineConfig,
    tokens: Vec<u32>,
    seed: u64,
}

impl Desk {
    fn new() -> Self {
        let seed = seed();
        let folder = tempfile::tempdir().expect("makes a folder");
        let path = folder.path().join("model.gguf");
        tiny::write(&path, seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let tokens = (0..TEXT + BEHIND).map(|_| rng.random_range(0..tiny::VOCABULARY));
        Self {
            tokens: tokens.collect(),
            config: EngineConfig::new(path),
            _folder: folder,
            seed,
        }
    }

    async fn study(&self, caches: &[CacheConfig]) -> Study {
        let study = self.config.start_study(caches).await;
        study.unwrap_or_else(|e| panic!("HEADROOM_SEED={}: starts: {e:#}", self.seed))
    }
}

/// The last token's logits, and what was held, where one cache reads everything.
async fn alone(desk: &Desk, cache: &CacheConfig) -> (Vec<f32>, SequenceReport) {
    let config = EngineConfig {
        cache: Some(cache.clone().prompt_tail(BEHIND)),
        ..desk.config.clone()
    };
    let engine = config.start().await.expect("starts");
    let prompt = Prompt::Tokens(desk.tokens.clone());
    let mut trace = engine.trace(prompt, 1, None).await.expect("answers");
    let runtime = engine.runtime().expect("a policy");
    assert!(runtime.wait_ended(std::time::Duration::from_secs(30)));
    let report = runtime.take_ended().pop().expect("a report");
    (trace.logits.pop().expect("logits"), report)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cache_goes_on_as_if_it_had_read_the_text() {
    let desk = Desk::new();
    let caches = caches();
    let mut study = desk.study(&caches).await;
    study
        .read(desk.tokens[..TEXT].to_vec())
        .await
        .expect("reads");
    for (index, cache) in caches.iter().enumerate() {
        let what = format!("HEADROOM_SEED={}: {}", desk.seed, cache.policy_name());
        let gone_on = study.go_on(index, &desk.tokens[TEXT..]).await;
        let gone_on = gone_on.unwrap_or_else(|e| panic!("{what} goes on: {e:#}"));
        let logits = gone_on.logits.to_dtype(DType::F32).expect("numbers");
        let logits: Vec<Vec<f32>> = logits.to_vec2().expect("rows");
        assert_eq!(logits.len(), BEHIND, "{what}");
        let (expected, report) = alone(&desk, cache).await;
        assert_eq!(gone_on.report.kept, report.kept, "{what}");
        assert_eq!(gone_on.report.pages_held, report.pages_held, "{what}");
        assert_eq!(gone_on.report.prompt_tokens, report.prompt_tokens, "{what}");
        let largest = expected
            .iter()
            .fold(0.0_f32, |largest, x| largest.max(x.abs()));
        for (a, b) in logits[BEHIND - 1].iter().zip(&expected) {
            assert!((a - b).abs() <= BOUND * largest, "{what}: {a} and {b}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_may_be_gone_on_from_again_and_another_takes_its_place() {
    let desk = Desk::new();
    let caches = [compressed("h2o"), CacheConfig::new("keep-all")];
    let mut study = desk.study(&caches).await;
    assert!(study.go_on(0, &[1, 2]).await.is_err(), "nothing was read");
    assert!(study.read(vec![1]).await.is_err(), "nothing to compress");
    let (text, behind) = desk.tokens.split_at(TEXT);
    study.read(text.to_vec()).await.expect("reads");
    assert!(study.go_on(2, behind).await.is_err(), "there are two");
    assert!(study.go_on(0, &[]).await.is_err(), "no tokens");
    let mut rows = Vec::new();
    for tokens in [behind, &behind[..1], behind] {
        let gone_on = study.go_on(0, tokens).await.expect("goes on");
        assert_eq!(gone_on.logits.dim(0).expect("rows"), tokens.len());
        rows.push(gone_on.logits.to_vec2::<f32>().expect("rows"));
    }
    assert_eq!(rows[0], rows[2], "HEADROOM_SEED={}: again", desk.seed);
    study.read(text[..50].to_vec()).await.expect("reads");
    let shorter = study.go_on(1, behind).await.expect("goes on");
    assert_eq!(shorter.report.cached_tokens, 50 + BEHIND);
    for cache in study.caches() {
        let pool = cache.stats().expect("open").pool;
        assert_eq!((pool.held, pool.promised), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_prefix_stays() {
    let desk = Desk::new();
    let mut study = desk.study(&[compressed("tova")]).await;
    let (text, behind) = desk.tokens.split_at(TEXT);
    study.read(text.to_vec()).await.expect("reads");
    let held = async |study: &mut Study, pin| {
        let request = RequestCache {
            budget: None,
            pin_prefix: pin,
            ..RequestCache::default()
        };
        let gone_on = study.go_on_under(0, &request, behind).await;
        gone_on.expect("goes on").report.kept
    };
    let free = held(&mut study, None).await;
    let pinned = held(&mut study, Some(100)).await;
    let more = pinned.iter().flatten().zip(free.iter().flatten());
    for (pinned, free) in more {
        // The budget is 64 tokens for what is not pinned, or for all.
        assert!(*pinned >= 100 && *free <= 64, "{pinned} and {free}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_the_models() {
    let desk = Desk::new();
    let study = desk.study(&[]).await;
    let tokens = study.tokens("bcd").await.expect("tokens");
    assert_eq!(tokens.len(), 3, "the tiny model knows letters");
}
