//! Requests that share a prefix: pages are held once, and what is said does not depend on who else is there or came before.
mod common;

use common::{
    compressed,
    desk::{Desk, settle, stats},
};
use kv_core::Budget;
use mistralrs_kv::{CacheConfig, Engine, Prompt, Request, RequestCache, policy};

const PREFIX: usize = 200;
const QUESTION: usize = 7;
const ANSWER: usize = 6;
/// Policies that keep what queries attended to: a prefix under them serves its own question only.
const BY_QUERIES: [&str; 12] = [
    "ada-kv",
    "cake",
    "chunk-kv",
    "critical-kv",
    "expected-attention",
    "fast-gen",
    "h2o",
    "head-kv",
    "pyramid-kv",
    "snap-kv",
    "snap-stream",
    "tova",
];

/// The prefix with a question behind it.
fn asked(desk: &Desk, question: u64) -> Vec<u32> {
    let mut text = desk.text(0, PREFIX);
    text.extend(desk.text(1 + question, QUESTION));
    text
}

fn request(text: Vec<u32>) -> Request {
    Request::greedy(Prompt::Tokens(text), ANSWER).with_cache(RequestCache {
        shared_prefix: u32::try_from(PREFIX).ok(),
        ..RequestCache::default()
    })
}

async fn answer(engine: &Engine, text: Vec<u32>) -> String {
    let answer = engine.generate(request(text)).await.expect("answers");
    settle(engine);
    answer.text
}

fn all_policies() -> Vec<CacheConfig> {
    let policies = policy::FEATURES.iter().filter(|(_, is_there)| *is_there);
    let caches = policies.map(|(policy, _)| compressed(policy));
    std::iter::once(CacheConfig::new("keep-all"))
        .chain(caches)
        .collect()
}

/// The law: alone or together, with the prefix read or found, a question gets the same answer.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_does_not_depend_on_who_came_before_or_is_there() {
    let desk = Desk::new();
    for cache in all_policies() {
        let name = cache.policy_name().to_owned();
        if name == "cake" {
            continue; // refused, below
        }
        let what = format!("HEADROOM_SEED={}: {name}", desk.seed);
        let cache = cache.share_any_prefix(true);
        let alone = desk.start(cache.clone()).await;
        let mut expected = Vec::new();
        for question in 0..8 {
            expected.push(answer(&alone, asked(&desk, question)).await);
        }
        assert_eq!(stats(&alone).pool.held, 0, "{what}: nothing is kept");

        let keeping = desk.start(cache.clone().keep_turns(64)).await;
        for (question, expected) in (0..).zip(&expected) {
            let found = answer(&keeping, asked(&desk, question)).await;
            assert_eq!(&found, expected, "{what}, question {question}");
        }
        let reuse = stats(&keeping).reuse;
        let known = 7 * PREFIX as u64;
        assert_eq!((reuse.hits, reuse.tokens), (7, known), "{what}");
        // The same again: its turn is longer than the question, so the prefix serves it.
        let again = answer(&keeping, asked(&desk, 0)).await;
        assert_eq!(again, expected[0], "{what}, again");

        for cache in [cache.clone(), cache.keep_turns(64)] {
            let crowd = desk.start(cache).await;
            let texts = (0..8).map(|question| crowd.generate(request(asked(&desk, question))));
            let together = futures::future::try_join_all(texts).await.expect("answers");
            let together: Vec<String> = together.into_iter().map(|one| one.text).collect();
            assert_eq!(together, expected, "{what}, together");
            settle(&crowd);
        }
    }
}

/// Sixteen requests behind one prefix: its pages are there once, while they run and when they have ended.
#[tokio::test(flavor = "multi_thread")]
async fn sixteen_requests_hold_one_prefix() {
    let desk = Desk::new();
    for name in ["keep-all", "key-diff", "k-norm", "lag-kv"] {
        let what = format!("HEADROOM_SEED={}: {name}", desk.seed);
        let cache = if name == "keep-all" {
            CacheConfig::new(name)
        } else {
            CacheConfig::new(name).budget(Budget::Ratio(0.25))
        };
        let engine = desk.start(cache.keep_turns(64)).await;
        let one = answer(&engine, asked(&desk, 0)).await;
        assert!(!one.is_empty(), "{what}");
        let texts = (0..16).map(|question| engine.generate(request(asked(&desk, question))));
        futures::future::try_join_all(texts).await.expect("answers");
        settle(&engine);
        let stats = stats(&engine);
        assert_eq!(stats.reuse.hits, 16, "{what}");
        // The prefix' own cache, and seventeen that have ended behind it, two of them with the same text.
        assert_eq!(stats.reuse.caches, 17, "{what}");
        let geometry = engine.runtime().expect("a policy").geometry();
        let geometry = geometry.expect("open");
        let tokens = if name == "keep-all" {
            PREFIX
        } else {
            PREFIX / 4
        };
        let prefix = geometry.heads() * geometry.head_pages(tokens);
        // All but the last page of each head, which is copied where a token comes behind it.
        let whole = geometry.heads() * (tokens / geometry.block);
        assert!(
            stats.pages_shared >= 16 * whole,
            "{what}: {} of {} pages are held once",
            stats.pages_shared,
            16 * prefix
        );
        assert_eq!(
            stats.reuse.bytes,
            stats.pool.held * stats.page_bytes,
            "{what}"
        );
    }
}

/// Two prompts that are the same, in one batch, hold one cache until they differ.
#[tokio::test(flavor = "multi_thread")]
async fn answers_to_one_prompt_share_it() {
    let desk = Desk::new();
    let engine = desk.start(CacheConfig::new("keep-all")).await;
    let text = desk.text(0, PREFIX);
    let ask = || engine.generate(Request::greedy(Prompt::Tokens(text.clone()), ANSWER));
    let alone = ask().await.expect("answers").text;
    settle(&engine);
    let pages = stats(&engine).pool.peak;
    let all = futures::future::try_join_all((0..4).map(|_| ask())).await;
    for one in all.expect("answers") {
        assert_eq!(one.text, alone, "HEADROOM_SEED={}", desk.seed);
    }
    settle(&engine);
    let pool = stats(&engine).pool;
    assert_eq!((pool.held, pool.promised), (0, 0));
    // The engine reads what waits when it looks: at least two come together.
    assert!(
        pool.peak < 4 * pages,
        "{} pages for four, {pages} for one; HEADROOM_SEED={}",
        pool.peak,
        desk.seed
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_that_serves_its_own_question_only_is_refused_by_name() {
    let desk = Desk::new();
    let mut refused = Vec::new();
    for cache in all_policies() {
        let name = cache.policy_name().to_owned();
        let engine = desk.start(cache).await;
        let Err(error) = engine.generate(request(asked(&desk, 0))).await else {
            continue;
        };
        let said = format!("{error:#}");
        assert!(
            said.contains("shared_prefix") && said.contains(&name) && said.contains("200"),
            "{said}"
        );
        refused.push(name);
    }
    refused.sort_unstable();
    let known = |name: &&str| policy::FEATURES.contains(&(*name, true));
    let expected: Vec<&str> = BY_QUERIES.into_iter().filter(known).collect();
    assert_eq!(refused, expected);

    let engine = desk.start(compressed("cake").share_any_prefix(true)).await;
    let error = engine.generate(request(asked(&desk, 0))).await;
    let said = format!("{:#}", error.expect_err("is refused"));
    assert!(said.contains("cake") && said.contains("budget"), "{said}");
    let none = RequestCache {
        shared_prefix: Some(0),
        ..RequestCache::default()
    };
    let engine = desk.start(CacheConfig::new("keep-all")).await;
    let request = Request::greedy(Prompt::Tokens(asked(&desk, 0)), 1).with_cache(none);
    let said = format!(
        "{:#}",
        engine.generate(request).await.expect_err("is refused")
    );
    assert!(
        said.contains("shared_prefix") && said.contains("at least 1"),
        "{said}"
    );
}
