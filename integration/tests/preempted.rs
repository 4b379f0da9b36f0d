//! Sequences that lose their pages to others go on from what they held.
mod common;

use common::{
    compressed,
    desk::{Desk, assert_same, settle, stats},
};
use mistralrs_kv::{CacheConfig, PoolSize, Prompt};

const SEQUENCES: u64 = 8;
const PROMPT: usize = 120;
const SAID: usize = 420;
const ANSWER: usize = 4;

/// Under methods that append what is generated the pool runs out while eight answers grow. Whoever has to wait says in the end what it says
/// where nobody else is.
#[tokio::test(flavor = "multi_thread")]
async fn who_lost_its_pages_goes_on_as_if_nothing_had_been() {
    let desk = Desk::new();
    let keeping = [0, 64].map(|mib| CacheConfig::new("keep-all").keep_turns(mib));
    let policies = ["snap-kv", "key-diff", "duo-attention", "tova"].map(|name| match name {
        "tova" => compressed(name).set("decode", "append"),
        _ => compressed(name),
    });
    for cache in keeping.into_iter().chain(policies) {
        let what = format!("HEADROOM_SEED={}: {}", desk.seed, cache.policy_name());
        let small = Some(PoolSize::MemoryMb(1));
        let engine = desk.start_in(cache.clone(), small).await;
        let said = |stream| (desk.text(stream, PROMPT), desk.text(100 + stream, SAID));
        let answers = (0..SEQUENCES).map(|stream| {
            let (prompt, behind) = said(stream);
            engine.trace(Prompt::Tokens(prompt), SAID + ANSWER, Some(behind))
        });
        let together = futures::future::try_join_all(answers).await;
        let together = together.expect("answers");
        settle(&engine);
        let seen = stats(&engine);
        assert!(seen.preemptions > 0 && seen.resumed > 0, "{what}: {seen:?}");
        assert_eq!(seen.pages_parked, 0, "{what}");
        assert_eq!(seen.prompts, SEQUENCES, "{what}: no prompt was read again");
        if cache.policy_name() != "keep-all" {
            assert_eq!((seen.pool.held, seen.pool.promised), (0, 0), "{what}");
        }
        let alone = desk.start(cache).await;
        for (stream, together) in (0..).zip(&together) {
            let (prompt, behind) = said(stream);
            let prompt = Prompt::Tokens(prompt);
            let trace = alone.trace(prompt, SAID + ANSWER, Some(behind)).await;
            let trace = trace.expect("answers");
            let expected = (&trace.tokens[..], &trace.logits[..]);
            assert_same((&together.tokens, &together.logits), expected, &what);
        }
    }
}

/// A client that leaves while its sequence waits leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_who_leaves_while_it_waits() {
    let desk = Desk::new();
    let small = Some(PoolSize::MemoryMb(1));
    let engine = desk.start_in(compressed("snap-kv"), small).await;
    let answers = (0..SEQUENCES).map(|stream| {
        let prompt = Prompt::Tokens(desk.text(stream, PROMPT));
        engine.trace(prompt, SAID, Some(desk.text(100 + stream, SAID)))
    });
    let mut all = Box::pin(futures::future::join_all(answers));
    while stats(&engine).pages_parked == 0 {
        let patience = std::time::Duration::from_millis(2);
        let done = tokio::time::timeout(patience, &mut all).await;
        assert!(done.is_err(), "HEADROOM_SEED={}: nobody waited", desk.seed);
    }
    drop(all);
    settle(&engine);
    // The engine notices at its next step, which another request brings.
    let next = engine
        .trace(Prompt::Tokens(desk.text(9, 40)), 3, None)
        .await;
    assert_eq!(next.expect("answers").tokens.len(), 3);
    settle(&engine);
    let left = stats(&engine);
    assert_eq!((left.pages_parked, left.sequences, left.waiting), (0, 0, 0));
    assert_eq!((left.pool.held, left.pool.promised), (0, 0));
}
