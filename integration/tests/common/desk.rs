//! A random model, random texts, and engines on that model.
use std::{path::Path, time::Duration};

use kv_core::SequenceReport;
use mistralrs_kv::{
    CacheConfig, Engine, EngineConfig, KvDtype, PoolSize, Prompt, StartError, Stats, Trace,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{seed, tiny};

pub(crate) struct Desk {
    folder: tempfile::TempDir,
    pub(crate) seed: u64,
}

impl Desk {
    pub(crate) fn new() -> Self {
        Self::with(tiny::write)
    }

    /// With a model of one layer, whose keys and values depend on nothing but their own token and its position.
    pub(crate) fn of_one_layer() -> Self {
        Self::with(|path, seed| tiny::write_layers(path, seed, 1))
    }

    fn with(write: impl FnOnce(&Path, u64)) -> Self {
        let seed = seed();
        let folder = tempfile::tempdir().expect("makes a folder");
        write(&folder.path().join("model.gguf"), seed);
        Self { folder, seed }
    }

    pub(crate) fn text(&self, stream: u64, tokens: usize) -> Vec<u32> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(stream);
        // The last token of the vocabulary ends a text.
        let tokens = (0..tokens).map(|_| rng.random_range(0..tiny::VOCABULARY - 1));
        tokens.collect()
    }

    pub(crate) async fn start(&self, cache: CacheConfig) -> Engine {
        self.start_in(cache, None).await
    }

    pub(crate) async fn start_in(&self, cache: CacheConfig, pool: Option<PoolSize>) -> Engine {
        let engine = self.try_start_in(cache, pool).await;
        engine.unwrap_or_else(|e| panic!("HEADROOM_SEED={}: starts: {e:#}", self.seed))
    }

    pub(crate) async fn try_start(&self, cache: CacheConfig) -> Result<Engine, StartError> {
        self.try_start_in(cache, None).await
    }

    async fn try_start_in(
        &self,
        cache: CacheConfig,
        pool: Option<PoolSize>,
    ) -> Result<Engine, StartError> {
        let config = EngineConfig {
            // What is rounded to half precision may be rounded to its neighbour.
            cache: Some(cache.cache_dtype(KvDtype::F32)),
            pool,
            // A random model ends a text at any time, and what is then kept or shared would be a matter of luck.
            ignore_eos: true,
            ..EngineConfig::new(self.folder.path().join("model.gguf"))
        };
        config.start().await
    }
}

/// Relative to the largest logit of a row: the products are of other shapes, so their sums may come in another order.
const BOUND: f32 = 1e-4;

/// Refuses answers that differ in a token, or in a logit by more than rounding explains.
pub(crate) fn assert_same(
    (tokens, logits): (&[u32], &[Vec<f32>]),
    (expected, expected_logits): (&[u32], &[Vec<f32>]),
    what: &str,
) {
    assert_eq!(tokens, expected, "{what}");
    for (row, expected) in logits.iter().zip(expected_logits) {
        let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        for (a, b) in row.iter().zip(expected) {
            assert!((a - b).abs() <= BOUND * largest, "{what}: {a} and {b}");
        }
    }
}

/// What an engine's cache is doing.
pub(crate) fn stats(engine: &Engine) -> Stats {
    let runtime = engine.runtime().expect("a policy");
    runtime.stats().expect("open")
}

/// What the sequence held that ended last.
pub(crate) fn last_report(engine: &Engine) -> SequenceReport {
    let runtime = engine.runtime().expect("a policy");
    runtime.take_ended().pop().expect("a report")
}

/// What the model says behind `text`.
pub(crate) async fn say(engine: &Engine, text: &[u32], tokens: usize) -> Trace {
    let trace = engine.trace(Prompt::Tokens(text.to_vec()), tokens, None);
    let trace = trace.await.expect("answers");
    settle(engine);
    trace
}

/// The engine gives pages back after it has sent the last token.
pub(crate) fn settle(engine: &Engine) {
    let runtime = engine.runtime().expect("a policy");
    assert!(runtime.wait_ended(Duration::from_secs(60)));
}
