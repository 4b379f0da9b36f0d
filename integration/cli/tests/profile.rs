//! Profiles of heads: the model that they are learned of is the engine's, and what the program finds in a planted model is what was planted.
mod prepared;

use std::path::Path;

use candle_core::DType;
use kv_profile::Model;
use mistralrs_kv::EngineConfig;
use prepared::prepared;

/// Relative to the largest logit of the row: sums come in another order.
const BOUND: f32 = 1e-4;

async fn agrees(path: &Path, text: &str) {
    let what = path.display();
    let mut study = EngineConfig::new(path)
        .start_study(&[])
        .await
        .expect("starts");
    let tokens = study.tokens(text).await.expect("has a tokenizer");
    let engines = study.read(tokens.clone()).await.expect("reads");
    let engines: Vec<f32> = engines
        .to_dtype(DType::F32)
        .expect("no error")
        .to_vec1()
        .expect("no error");
    let model = Model::load(path).unwrap_or_else(|error| panic!("{what}: {error}"));
    let logits = model.logits(&tokens).expect("reads");
    let ours: Vec<f32> = logits
        .get(tokens.len() - 1)
        .expect("no error")
        .to_vec1()
        .expect("no error");
    let largest = engines
        .iter()
        .fold(0.0_f32, |most, logit| most.max(logit.abs()));
    let off = engines
        .iter()
        .zip(&ours)
        .map(|(one, other)| (one - other).abs());
    let off = off.fold(0.0, f32::max) / largest;
    println!("{what}: {} tokens, {off:e} off", tokens.len());
    assert!(off <= BOUND, "{what}: {off:e} of the largest logit off");
}

#[tokio::test]
async fn the_model_that_is_learned_from_is_the_engines() {
    let text = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/long-prompt.txt"
    ))
    .expect("is there");
    let text = &text[..1000];
    let smollm = prepared("models/SmolLM2-135M-Instruct-F32.gguf", "model --dtype f32");
    agrees(&smollm, text).await;
    for name in ["tiny-llama", "tiny-qwen2"] {
        agrees(&prepared(&format!("models/{name}"), "tiny-models"), text).await;
    }
}
