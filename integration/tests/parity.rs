//! The paged path against the engine's own, and policies with room against `keep-all`.
#![expect(
    clippy::print_stdout,
    reason = "disagreements are shown with `--nocapture`"
)]

mod common;

use common::{PROMPTS, Weights, distance, engine, record, seed, smollm, start, tiny, top_two};
use kv_core::Budget;
use mistralrs_kv::{CacheConfig, KvDtype, Prompt, Request, policies};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const TOKENS: usize = 64;

fn keep_all() -> Option<CacheConfig> {
    // In the type of the activations, as the engine's own cache is.
    Some(CacheConfig::new("keep-all").cache_dtype(KvDtype::F32))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_holds_the_whole_text_changes_no_token_of_any_policy() {
    let reference = start(engine(smollm(Weights::Q8), keep_all())).await;
    let names: Vec<&str> = policies()
        .names()
        .filter(|&name| name != "keep-all")
        .collect();
    assert!(!names.is_empty(), "there is a policy to test");
    let mut expected = Vec::new();
    for prompt in PROMPTS {
        expected.push(record(&reference, Prompt::chat(prompt), TOKENS, None).await);
    }
    // A prompt for each policy in turn: all of them for all would take as long as a tenth of all tests.
    for (index, name) in names.into_iter().enumerate() {
        let cache = match name {
            // Its size is its own business.
            "duo-attention" => CacheConfig::new(name).set("recent", 1024),
            _ => CacheConfig::new(name).budget(Budget::Tokens(1024)),
        }
        .cache_dtype(KvDtype::F32);
        let roomy = start(engine(smollm(Weights::Q8), Some(cache))).await;
        let (prompt, (expected, tokens)) = (
            PROMPTS[index % PROMPTS.len()],
            &expected[index % PROMPTS.len()],
        );
        let (got, roomy_tokens) = record(&roomy, Prompt::chat(prompt), TOKENS, None).await;
        assert_eq!(roomy_tokens.tokens, tokens.tokens, "{name} on {prompt:?}");
        assert_eq!(
            roomy_tokens.logits, tokens.logits,
            "{name} on {prompt:?}: same kernels, same bits"
        );
        assert_eq!(got.text, expected.text, "{name} on {prompt:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_random_model_gives_the_eager_logits_and_tokens() {
    let seed = seed();
    let folder = tempfile::tempdir().expect("makes a folder");
    let model = folder.path().join("tiny.gguf");
    tiny::write(&model, seed);
    let eager = start(engine(model.clone(), None)).await;
    let paged = start(engine(model, keep_all())).await;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for length in [1, 2, 31, 32, 33, 200] {
        let prompt: Vec<u32> = (0..length)
            .map(|_| rng.random_range(0..tiny::VOCABULARY - 1))
            .collect();
        let (_, expected) = record(&eager, Prompt::Tokens(prompt.clone()), TOKENS, None).await;
        let (_, got) = record(&paged, Prompt::Tokens(prompt.clone()), TOKENS, None).await;
        assert_eq!(
            got.tokens, expected.tokens,
            "prompt of {length} tokens, HEADROOM_SEED={seed}"
        );
        for (step, (a, b)) in got.logits.iter().zip(&expected.logits).enumerate() {
            let far = distance(a, b);
            assert!(
                far <= 1e-4,
                "step {step} of {length} + {TOKENS}: logits differ by {far}, HEADROOM_SEED={seed}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn smollm_in_32_bits_gives_the_eager_text() {
    let eager = start(engine(smollm(Weights::F32), None)).await;
    let paged = start(engine(smollm(Weights::F32), keep_all())).await;
    for prompt in PROMPTS {
        let expected = eager
            .generate(Request::greedy(Prompt::chat(prompt), TOKENS))
            .await
            .expect("eager answers");
        let got = paged
            .generate(Request::greedy(Prompt::chat(prompt), TOKENS))
            .await
            .expect("paged answers");
        assert_eq!(got, expected, "{prompt:?}");
        assert!(got.text.len() > 40, "a real text: {:?}", got.text);
    }
}

/// candle multiplies 8-bit weights with activations that it rounds to 8 bits, so a last-bit difference in attention can
/// move an activation by a whole step. The bound is on the mean over steps of the largest difference of a row; every
/// disagreement about the top token must be a near tie, and is printed.
#[tokio::test(flavor = "multi_thread")]
async fn smollm_in_8_bits_stays_near_the_eager_logits() {
    const MEAN_DISTANCE: f32 = 1.5;
    const NEAR_TIE: f32 = 0.5;
    let eager = start(engine(smollm(Weights::Q8), None)).await;
    let paged = start(engine(smollm(Weights::Q8), keep_all())).await;
    let (mut sum, mut steps, mut agree) = (0.0, 0_u16, 0_u16);
    for prompt in PROMPTS {
        let (_, expected) = record(&eager, Prompt::chat(prompt), TOKENS, None).await;
        let length = expected.tokens.len();
        let (_, got) = record(
            &paged,
            Prompt::chat(prompt),
            length,
            Some(expected.tokens.clone()),
        )
        .await;
        for (step, (a, b)) in got.logits.iter().zip(&expected.logits).enumerate() {
            sum += distance(a, b);
            steps += 1;
            let ((ours, our_gap), (theirs, their_gap)) = (top_two(a), top_two(b));
            if ours == theirs {
                agree += 1;
            } else {
                println!(
                    "{prompt:?} step {step}: top {ours} (gap {our_gap}) against eager's {theirs} (gap {their_gap})"
                );
                assert!(
                    our_gap.min(their_gap) < NEAR_TIE,
                    "{prompt:?} step {step} is no near tie: {our_gap}, {their_gap}"
                );
            }
        }
    }
    let mean = sum / f32::from(steps);
    println!(
        "top-1 agreement {agree} of {steps}; mean of the largest logit difference per step {mean}"
    );
    assert!(mean <= MEAN_DISTANCE, "mean distance {mean}");
    assert!(
        u32::from(agree) * 100 >= u32::from(steps) * 90,
        "top-1 agreement {agree} of {steps}"
    );
}
