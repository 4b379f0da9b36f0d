//! The builders of the crate `mistralrs` with a compressed cache.
mod common;

use common::{Weights, compressed, engine, smollm, start, tiny_folder};
use kv_core::Budget;
use mistralrs::{
    GgufModelBuilder, Model, ModelBuilder, ModelDType, RequestBuilder, TextMessageRole,
    TextModelBuilder,
};
use mistralrs_kv::{
    CacheConfig, KvDtype, KvModel, KvPolicyExt, PoolSize, Prompt, Request, StartError,
    policy::StreamingLlmConfig,
};

const QUESTION: &str = "Why is the sky blue? Answer as you would answer a child of five years.";

fn gguf() -> GgufModelBuilder {
    let path = smollm(Weights::Q8);
    let folder = path.parent().expect("a folder").display().to_string();
    let file = path.file_name().expect("a file").to_string_lossy();
    GgufModelBuilder::new(folder, vec![file])
}

fn folder(name: &str) -> TextModelBuilder {
    TextModelBuilder::new(tiny_folder(name).display().to_string()).with_dtype(ModelDType::F32)
}

fn streaming(tokens: usize) -> CacheConfig {
    CacheConfig::new("streaming-llm").budget(Budget::Tokens(tokens))
}

async fn answer(model: &Model, tokens: usize) -> String {
    let request = RequestBuilder::new()
        .set_deterministic_sampler()
        .set_sampler_max_len(tokens)
        .add_message(TextMessageRole::User, QUESTION);
    let answer = model.send_chat_request(request).await;
    let mut answer = answer.unwrap_or_else(|e| panic!("the model answers: {e:#}"));
    let choice = answer.choices.pop().expect("a choice");
    choice.message.content.expect("a text")
}

async fn refused<B: mistralrs_kv::Builder>(builder: mistralrs_kv::WithKvPolicy<B>) -> StartError {
    let built: Result<KvModel, StartError> = builder.build().await;
    built.expect_err("is refused")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gguf_builder_runs_a_typed_policy_in_real_pages() {
    let config = StreamingLlmConfig {
        sinks: 2,
        ..StreamingLlmConfig::default()
    };
    let cache = CacheConfig::of(&config).budget(Budget::Tokens(40));
    let model = gguf().with_kv_policy(cache).build().await;
    let model = model.unwrap_or_else(|e| panic!("is built: {e}"));
    let text = answer(&model, 40).await;
    let report = model.runtime().report(text).expect("a report");
    assert!(report.prompt_tokens > 40, "{report:?}");
    assert!(
        report.kept.iter().flatten().all(|&kept| kept == 40),
        "{report:?}"
    );
    assert!(report.pages_held_peak < report.pages_full, "{report:?}");
}

/// Two models of one process keep their own policies, and a third without one runs as the stock engine does.
#[tokio::test(flavor = "multi_thread")]
async fn models_of_one_process_do_not_mix() {
    let roomy =
        folder("tiny-llama").with_kv_policy(CacheConfig::new("keep-all").cache_dtype(KvDtype::F32));
    let tight = folder("tiny-llama").with_kv_policy(streaming(24));
    let auto = ModelBuilder::new(tiny_folder("tiny-llama").display().to_string())
        .with_dtype(ModelDType::F32)
        .with_kv_policy(CacheConfig::new("keep-all").cache_dtype(KvDtype::F32))
        .pool(PoolSize::ContextLen(2048))
        .block_size(16);
    let (roomy, tight, auto, stock) = tokio::join!(
        roomy.build(),
        tight.build(),
        auto.build(),
        folder("tiny-llama").build()
    );
    let (roomy, tight) = (roomy.expect("is built"), tight.expect("is built"));
    let (auto, stock) = (auto.expect("is built"), stock.expect("is built"));
    let whole = answer(&stock, 60).await;
    assert_eq!(answer(&roomy, 60).await, whole);
    assert_eq!(answer(&auto, 60).await, whole);
    let other = answer(&tight, 60).await;
    assert_ne!(other, whole, "24 of some 150 tokens are kept");
    let held = |model: &KvModel| model.runtime().report(String::new()).expect("a report");
    assert!(held(&tight).kept.iter().flatten().all(|&kept| kept == 24));
    let everything = held(&roomy);
    assert_eq!(everything.pages_held_peak, everything.pages_full);
    let geometry = auto.runtime().geometry().expect("open");
    assert_eq!(geometry.block, 16);
    let pages = auto.runtime().stats().expect("open").pool.total;
    assert_eq!(pages, 2048 / 16 * geometry.heads());
}

/// The builder's road and this crate's own lead to the same place.
#[tokio::test(flavor = "multi_thread")]
async fn a_builder_and_the_engine_give_the_same_text() {
    let built = folder("tiny-qwen2")
        .with_kv_policy(compressed("h2o"))
        .build()
        .await;
    let built = built.unwrap_or_else(|e| panic!("is built: {e}"));
    let started = start(mistralrs_kv::EngineConfig {
        ignore_eos: false,
        ..engine(tiny_folder("tiny-qwen2"), Some(compressed("h2o")))
    })
    .await;
    let request = Request::greedy(Prompt::chat(QUESTION), 50);
    let expected = started.generate(request).await.expect("answers");
    assert_eq!(answer(&built, 50).await, expected.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_an_error_and_no_silent_fallback() {
    let message = |error: StartError| error.to_string();
    let unknown = refused(gguf().with_kv_policy(CacheConfig::new("streming-llm"))).await;
    assert!(message(unknown).contains("`streming-llm`"));
    let field = CacheConfig::new("streaming-llm").set("sink", 4);
    let unknown = refused(folder("tiny-llama").with_kv_policy(field)).await;
    assert!(message(unknown).contains("unknown field `sink`"));
    let block = refused(gguf().with_kv_policy(streaming(64)).block_size(7)).await;
    assert!(message(block).contains("`pa-block-size` is 7"));
    let pool = refused(
        gguf()
            .with_kv_policy(streaming(64))
            .pool(PoolSize::MemoryMb(0)),
    )
    .await;
    assert!(message(pool).contains("`pa-memory-mb` is 0"));
    let none = refused(
        folder("tiny-llama")
            .with_no_kv_cache()
            .with_kv_policy(streaming(64)),
    )
    .await;
    assert!(message(none).contains("`no_kv_cache`"));
    let nowhere = TextModelBuilder::new("/nowhere/at/all").with_kv_policy(streaming(64));
    assert!(matches!(refused(nowhere).await, StartError::Engine(_)));
}

/// On a single thread the engine has no warm-up of its own; ours leaves no trace.
#[tokio::test]
async fn a_single_thread_is_enough() {
    let model = folder("tiny-qwen2")
        .with_kv_policy(streaming(24))
        .build()
        .await;
    let model = model.unwrap_or_else(|e| panic!("is built: {e}"));
    let stats = model.runtime().stats().expect("open");
    assert_eq!((stats.prompts, stats.evicted), (0, 0), "{stats:?}");
    let text = answer(&model, 30).await;
    let report = model.runtime().report(text).expect("a report");
    assert!(report.kept.iter().flatten().all(|&kept| kept == 24));
}

/// A layer that looks back over a window only cannot be served; on a single thread, too, that is known at the start.
#[tokio::test]
async fn a_sliding_window_is_refused_before_the_first_request() {
    let copy = tempfile::tempdir().expect("makes a folder");
    for entry in tiny_folder("tiny-qwen2").read_dir().expect("reads") {
        let path = entry.expect("reads").path();
        let name = path.file_name().expect("a name");
        std::fs::copy(&path, copy.path().join(name)).expect("copies");
    }
    let config = copy.path().join("config.json");
    let text = std::fs::read_to_string(&config).expect("reads");
    let text = text.replacen(
        '{',
        "{\"sliding_window\": 64, \"use_sliding_window\": true,",
        1,
    );
    std::fs::write(
        &config,
        text.replace("\"use_sliding_window\": false", "\"max_window_layers\": 0"),
    )
    .expect("writes");
    let builder = TextModelBuilder::new(copy.path().display()).with_dtype(ModelDType::F32);
    let refused = refused(builder.with_kv_policy(streaming(24))).await;
    assert!(
        refused.to_string().contains("sliding window of 64"),
        "{refused}"
    );
}

/// The engine could bring it back without its runtime only.
#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_was_unloaded_does_not_come_back_uncompressed() {
    let model = folder("tiny-llama")
        .with_kv_policy(streaming(24))
        .build()
        .await;
    let model = model.unwrap_or_else(|e| panic!("is built: {e}"));
    let names = model.list_models().expect("names");
    let name = names.first().expect("a name");
    model.unload_model(name).expect("is unloaded");
    let error = model.reload_model(name).await.expect_err("is refused");
    assert!(error.to_string().contains("KV-cache policy"), "{error}");
}
