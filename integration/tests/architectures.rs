//! More than one architecture, from folders of safetensors: the engine's own loader, the same cache.
mod common;

use common::{compressed, distance, engine, holds_less, record, seed, start, tiny_folder};
use mistralrs_kv::{CacheConfig, KvDtype, Prompt, policies};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Llama, and Qwen2, whose queries, keys and values have biases.
const FOLDERS: [&str; 2] = ["tiny-llama", "tiny-qwen2"];
const TOKENS: usize = 64;

fn bytes(rng: &mut ChaCha8Rng, length: usize) -> Prompt {
    Prompt::Tokens((0..length).map(|_| rng.random_range(32..127)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_paged_path_gives_the_eager_logits_and_tokens() {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for folder in FOLDERS {
        let eager = start(engine(tiny_folder(folder), None)).await;
        // In the type of the activations, as the engine's own cache is.
        let keep_all = Some(CacheConfig::new("keep-all").cache_dtype(KvDtype::F32));
        let paged = start(engine(tiny_folder(folder), keep_all)).await;
        for length in [1, 2, 31, 33, 200] {
            let prompt = bytes(&mut rng, length);
            let (_, expected) = record(&eager, prompt.clone(), TOKENS, None).await;
            let (_, got) = record(&paged, prompt, TOKENS, None).await;
            let what = format!("{folder}, prompt of {length} tokens, HEADROOM_SEED={seed}");
            assert_eq!(got.tokens, expected.tokens, "{what}");
            for (step, (a, b)) in got.logits.iter().zip(&expected.logits).enumerate() {
                let far = distance(a, b);
                assert!(far <= 1e-4, "step {step}: logits differ by {far}: {what}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_policy_holds_less_than_everything_and_gives_it_back() {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for folder in FOLDERS {
        for name in policies().names().filter(|name| *name != "keep-all") {
            let engine = start(engine(tiny_folder(folder), Some(compressed(name)))).await;
            let what = format!("{name} on {folder}, HEADROOM_SEED={seed}");
            let report = holds_less(&engine, bytes(&mut rng, 200), &what).await;
            let stats = engine.runtime().expect("a policy").stats().expect("open");
            let dropped = |kept: &usize| (229 - kept) as u64;
            assert_eq!(
                stats.evicted,
                report.kept.iter().flatten().map(dropped).sum::<u64>(),
                "{what}: what is not held was counted as evicted"
            );
        }
    }
}
