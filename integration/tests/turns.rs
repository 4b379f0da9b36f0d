//! Caches of finished turns: the next turn goes on from them as if all had been generated, and they are let go of in time.
mod common;

use std::time::Duration;

use common::{
    compressed,
    desk::{Desk, assert_same, last_report, say, settle},
};
use kv_core::Budget;
use mistralrs_kv::{
    CacheConfig, Engine, PoolSize, Prompt, Request, RequestCache, Reuse, Trace, policy,
};

const FIRST: usize = 150;
const SAID: usize = 9;
const NEW: usize = 12;
const ANSWER: usize = 5;
/// Has `tokens` said behind `text`, and then `more` of the model's own.
async fn hear(engine: &Engine, text: &[u32], tokens: &[u32], more: usize) -> Trace {
    let prompt = Prompt::Tokens(text.to_vec());
    let trace = engine.trace(prompt, tokens.len() + more, Some(tokens.to_vec()));
    let trace = trace.await.expect("answers");
    settle(engine);
    trace
}

fn reuse(engine: &Engine) -> Reuse {
    let stats = engine.runtime().expect("a policy").stats();
    stats.expect("open").reuse
}

/// Has something said, and returns the text so far with something new behind it.
async fn first_turn(desk: &Desk, engine: &Engine, stream: u64) -> Vec<u32> {
    let mut text = desk.text(2 * stream, FIRST);
    let behind = desk.text(2 * stream + 1, SAID + NEW);
    hear(engine, &text, &behind[..SAID], 0).await;
    text.extend(behind);
    text
}

/// The law: a turn that goes on from a kept cache says what is said where all that came after the first prompt was generated, and holds the
/// same.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_turn_goes_on_as_if_all_had_been_generated() {
    let desk = Desk::new();
    let policies = policy::FEATURES.iter().filter(|(_, is_there)| *is_there);
    let caches = policies.map(|(policy, _)| compressed(policy));
    for cache in std::iter::once(CacheConfig::new("keep-all")).chain(caches) {
        let what = format!("HEADROOM_SEED={}: {}", desk.seed, cache.policy_name());
        let engine = desk.start(cache.clone().keep_turns(64)).await;
        let text = first_turn(&desk, &engine, 0).await;
        let second = say(&engine, &text, ANSWER).await;
        let reuse = reuse(&engine);
        // The last token that was said was not fed back.
        let known = (FIRST + SAID - 1) as u64;
        assert_eq!((reuse.hits, reuse.tokens), (1, known), "{what}");
        let held = last_report(&engine);

        let other = desk.start(cache).await;
        let (prompt, behind) = text.split_at(FIRST);
        let expected = hear(&other, prompt, behind, ANSWER).await;
        let new = behind.len();
        let expected = (&expected.tokens[new..], &expected.logits[new..]);
        assert_same((&second.tokens, &second.logits), expected, &what);
        let report = last_report(&other);
        assert_eq!(held.kept, report.kept, "{what}");
        assert_eq!(held.cached_tokens, report.cached_tokens, "{what}");
        assert_eq!(held.prompt_tokens, text.len(), "{what}");
    }
}

/// One new token comes to the engine as a decode step.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_may_add_one_token_and_a_text_may_come_again() {
    let desk = Desk::new();
    let engine = desk.start(compressed("tova").keep_turns(64)).await;
    let mut text = desk.text(0, FIRST);
    let said = desk.text(1, SAID);
    hear(&engine, &text, &said, 0).await;
    text.extend(&said);
    let after_one = say(&engine, &text, ANSWER).await.tokens;
    assert_eq!(reuse(&engine).hits, 1);
    let whole = desk.start(compressed("tova").prompt_tail(SAID)).await;
    let expected = say(&whole, &text, ANSWER).await.tokens;
    assert_eq!(after_one, expected, "HEADROOM_SEED={}", desk.seed);
    // The cache that it went on from is still there, beside the one of the whole turn, which cannot be cut back.
    let again = say(&engine, &text, ANSWER).await.tokens;
    assert_eq!(again, after_one, "HEADROOM_SEED={}", desk.seed);
    assert_eq!(reuse(&engine).hits, 2);
}

/// Eight conversations at once: each goes on from its own cache, beside one that is new.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_turns_goes_on_each_from_its_own() {
    let desk = Desk::new();
    let engine = desk.start(compressed("snap-kv").keep_turns(64)).await;
    let mut texts = Vec::new();
    for stream in 0..8 {
        texts.push(first_turn(&desk, &engine, stream).await);
    }
    texts.push(desk.text(99, 40));
    let answers = texts.iter().map(|text| {
        let prompt = Prompt::Tokens(text.clone());
        engine.trace(prompt, ANSWER, None)
    });
    let together: Vec<Vec<u32>> = futures::future::try_join_all(answers)
        .await
        .expect("answers")
        .into_iter()
        .map(|trace| trace.tokens)
        .collect();
    settle(&engine);
    assert_eq!(reuse(&engine).hits, 8, "HEADROOM_SEED={}", desk.seed);
    let whole = desk
        .start(compressed("snap-kv").prompt_tail(SAID + NEW))
        .await;
    for (text, together) in texts[..8].iter().zip(&together) {
        let alone = say(&whole, text, ANSWER).await.tokens;
        assert_eq!(&alone, together, "HEADROOM_SEED={}", desk.seed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_serves_only_what_it_was_kept_for() {
    let desk = Desk::new();
    let engine = desk.start(compressed("h2o").keep_turns(64)).await;
    let text = first_turn(&desk, &engine, 0).await;
    let mut other = text.clone();
    other[FIRST / 2] ^= 1;
    say(&engine, &other, 1).await;
    say(&engine, &text[..FIRST], 1).await;
    let own = RequestCache {
        budget: Some(Budget::Tokens(80)),
        pin_prefix: None,
        ..RequestCache::default()
    };
    let request = Request::greedy(Prompt::Tokens(text.clone()), 1).with_cache(own);
    engine.generate(request).await.expect("answers");
    settle(&engine);
    assert_eq!(
        reuse(&engine).hits,
        0,
        "another text, a shorter one, another budget"
    );
    say(&engine, &text, 1).await;
    assert_eq!(reuse(&engine).hits, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_being_asked_nothing_is_kept() {
    let desk = Desk::new();
    let engine = desk.start(compressed("h2o")).await;
    let text = first_turn(&desk, &engine, 0).await;
    say(&engine, &text, 1).await;
    assert_eq!(reuse(&engine), Reuse::default());
    let pool = engine
        .runtime()
        .expect("a policy")
        .stats()
        .expect("open")
        .pool;
    assert_eq!((pool.held, pool.promised), (0, 0));
}

/// The longest unused goes first, whether the limit or a running sequence wants its pages.
#[tokio::test(flavor = "multi_thread")]
async fn idle_caches_make_room() {
    let desk = Desk::new();
    let small = Some(PoolSize::MemoryMb(1));
    let cache = CacheConfig::new("keep-all").keep_turns(64);
    let engine = desk.start_in(cache, small).await;
    let mut texts = Vec::new();
    for stream in 0..15 {
        texts.push(first_turn(&desk, &engine, stream).await);
        let stats = engine.runtime().expect("a policy").stats().expect("open");
        assert_eq!((stats.sequences, stats.pool.promised), (0, 0));
    }
    let kept = reuse(&engine);
    assert!(kept.caches >= 5 && kept.evictions >= 2, "{kept:?}");
    say(&engine, &texts[0], 1).await;
    assert_eq!(reuse(&engine).hits, 0, "the first was let go of");
    say(&engine, &texts[14], 1).await;
    assert_eq!(reuse(&engine).hits, 1, "the last was not");
    // 1 MiB has room for 2,048 tokens of 512 bytes: a text that needs nearly all of it.
    let long = desk.text(50, 2000);
    say(&engine, &long, 1).await;
}

/// What goes on from a cache may be too long for the pool where the same text, compressed anew, is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_is_too_long_to_go_on_is_read_anew() {
    let desk = Desk::new();
    let small = Some(PoolSize::MemoryMb(1));
    let cache = compressed("snap-kv").keep_turns(64);
    let engine = desk.start_in(cache, small).await;
    let mut text = first_turn(&desk, &engine, 0).await;
    // Appended behind the 64 tokens that were kept, it would need more than the 2,048 tokens of 1 MiB.
    text.extend(desk.text(7, 2200));
    let answer = tokio::time::timeout(Duration::from_secs(60), say(&engine, &text, 1)).await;
    assert_eq!(answer.expect("is answered").tokens.len(), 1);
    assert_eq!(reuse(&engine).hits, 0);
}
