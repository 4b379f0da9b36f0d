//! Policies that fail: always a value that says who did what, and always soon.
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::{Duration, Instant},
};

use kv_core::{Budget, ConfigError, Geometry, KeepPlan, LayerView, Policy, Room};
use kv_loader::{DiskPolicy, Failure, load, load_within};
use serde_json::{Value, json};

use crate::programs::{copy, liar, program};

pub(crate) const GEOMETRY: Geometry = Geometry {
    layers: 2,
    kv_heads: 2,
    group: 2,
    head_dim: 8,
    block: 8,
    element_bytes: 4,
    max_positions: 640,
};

/// Long enough for a busy machine to start a program, short enough for a test that waits it out.
pub(crate) const SHORT: Duration = Duration::from_secs(2);

fn bound(program: PathBuf, fields: Value) -> Result<DiskPolicy, ConfigError> {
    let loaded = load_within(program, SHORT).expect("it introduces itself");
    loaded.bind(fields, &GEOMETRY, Budget::Tokens(4))
}

fn planned(policy: &DiskPolicy) -> KeepPlan {
    let mut keep = KeepPlan::all(2);
    policy.plan(&LayerView::prefill(1, 2, 16, 4), &mut keep);
    keep
}

#[test]
fn a_failure_while_binding_is_the_users_to_mend() {
    for (at, what, words) in [
        ("bind", "panic", "panicked: it is bind's fault"),
        ("needs", "panic", "panicked: it is needs's fault"),
        ("bind", "exit", "ended without an answer (exit status: 7)"),
        ("bind", "hang", "gave no answer within 2s"),
        ("notice", "print", "wrote `I am here\u{fffd}"),
    ] {
        let error = bound(program("trickster"), json!({"at": at, "what": what})).expect_err(what);
        assert!(
            matches!(
                error,
                ConfigError::Malformed {
                    policy: "trickster",
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.to_string().contains(words), "{error}");
    }
    let stranger =
        bound(program("trickster"), json!({"at": "nowhere"})).expect_err("blames a stranger");
    assert_eq!(
        stranger.to_string(),
        "policy trickster: `somewhere` is nowhere, must be a place"
    );
    for (name, words) in [
        ("unbound", "answered another question, with `{\"rooms\":"),
        (
            "half-bound",
            "wrote `{\"bound\": {\"notice\": null}}` (missing field `needs`",
        ),
    ] {
        let error = bound(liar(name), json!({})).expect_err(name).to_string();
        assert!(
            error.starts_with("policy liar: asked for its needs, its program /")
                && error.contains(words),
            "{error}"
        );
    }
}

/// Plans with a policy that fails then, and holds that it keeps everything, says so, and is left alone.
fn fails(policy: &DiskPolicy, words: &str) {
    let (name, started) = (format!("{policy:?}"), Instant::now());
    assert_eq!(planned(policy), KeepPlan::all(2), "{name}");
    let error = policy.failure().expect(&name);
    assert_eq!(error.question, "a plan of layer 1");
    assert!(error.to_string().contains(words), "{error}");
    let notice = policy.notice().expect("it failed");
    assert!(
        notice.contains(&error.to_string()) && notice.contains("nothing is evicted since"),
        "{notice}"
    );
    assert!(
        started.elapsed() < 4 * SHORT,
        "{words}: {:?}",
        started.elapsed()
    );
    // It is not asked again: that takes no time, and changes nothing.
    let again = Instant::now();
    assert_eq!(planned(policy), KeepPlan::all(2), "{name}");
    assert_eq!(policy.room(0, 16, 4), Room::Each(4));
    assert!(
        again.elapsed() < SHORT / 4,
        "{words}: {:?}",
        again.elapsed()
    );
    assert_eq!(
        policy.failure(),
        Some(error),
        "the first failure is the one to tell"
    );
}

#[test]
fn a_plan_that_fails_keeps_everything_and_is_told() {
    for (what, words) in [
        ("panic", "panicked: it is plan's fault"),
        ("exit", "ended without an answer (exit status: 7)"),
        ("abort", "ended without an answer (signal: 6"),
        ("overflow", "ended without an answer (signal: 6"),
        ("hang", "gave no answer within 2s"),
        ("print", "wrote `I am here\u{fffd}"),
    ] {
        let policy = bound(program("trickster"), json!({"at": "plan", "what": what}));
        fails(&policy.expect("binds"), words);
    }
    let ranks = bound(program("trickster"), json!({"what": "rank"}));
    fails(
        &ranks.expect("binds"),
        "with a plan that ranks by scores, which it did not ask for",
    );
    for (name, words) in [
        ("stray", "answered with a plan for head 3 of a layer with 2"),
        (
            "brings",
            "answered with 7 scores for head 0, which has 16 tokens",
        ),
        (
            "forgets",
            "answered with 0 scores for head 1, which has 16 tokens",
        ),
        (
            "growing",
            "answered with the growth of 1 heads for a layer with 2",
        ),
        (
            "new-verb",
            "(unknown variant `merge`, expected one of `window`",
        ),
        ("rooms", "answered another question, with `{\"rooms\":"),
        ("deaf", "gave no answer within 2s"),
    ] {
        fails(&bound(liar(name), json!({})).expect(name), words);
    }
}

#[test]
fn a_room_that_fails_is_the_budget_and_is_told() {
    for (policy, words) in [
        (
            bound(program("trickster"), json!({"at": "room", "what": "panic"})),
            "panicked: it is room's fault",
        ),
        (
            bound(program("trickster"), json!({"what": "rooms"})),
            "answered with rooms of 7 heads for layers with 2",
        ),
        (
            bound(liar("rooms"), json!({})),
            "answered with rooms of 1 layers for a model with 2",
        ),
    ] {
        let policy = policy.expect("binds");
        assert_eq!(policy.room(0, 16, 4), Room::Each(4));
        let error = policy.failure().expect(words);
        assert_eq!(error.question, "rooms for a prompt of 16 tokens");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(planned(&policy), KeepPlan::all(2));
    }
}

#[test]
fn scores_are_given_once() {
    let loaded = load(program("reader")).expect("a good program");
    let policy = loaded
        .bind(json!({}), &GEOMETRY, Budget::Tokens(4))
        .expect("fits");
    // A host that has no scores for a policy that asked for them breaks its word; the program is in mid-question then.
    let blind = catch_unwind(AssertUnwindSafe(|| planned(&policy)));
    assert!(blind.is_err(), "scores that are not there cannot be read");
    assert_eq!(
        policy.failure().map(|error| error.failure),
        Some(Failure::BrokenOff)
    );
    assert_eq!(planned(&policy), KeepPlan::all(2));

    // It asks for scores that its needs do not name, and that nobody has.
    let greedy = bound(liar("greedy"), json!({})).expect("binds");
    fails(&greedy, "by asking for scores, and its needs name none");
}

#[test]
fn scores_that_fail_drop_nothing_and_are_told() {
    let view = LayerView::prefill(1, 2, 16, 4);
    for (name, words) in [
        (
            "scores",
            "answered with scores of [16, 16] tokens for heads with [16, 16]",
        ),
        ("growing", "answered another question, with `{\"plan\":"),
    ] {
        let policy = bound(liar(name), json!({})).expect(name);
        let scorer = policy.scorer().expect("it says that it ranks");
        assert_eq!(scorer.scores(&view), vec![vec![f32::INFINITY; 16]; 2]);
        let error = policy.failure().expect(words);
        assert_eq!(error.question, "scores of layer 1");
        assert!(error.to_string().contains(words), "{error}");
    }
    let quiet = bound(program("trickster"), json!({})).expect("binds");
    assert!(quiet.scorer().is_none(), "it does not rank");
}

#[test]
fn one_policy_that_fails_is_no_other() {
    let loaded = load(program("trickster")).expect("it introduces itself");
    let good = loaded
        .bind(json!({}), &GEOMETRY, Budget::Tokens(4))
        .expect("fits");
    let bad = loaded
        .bind(
            json!({"at": "plan", "what": "exit"}),
            &GEOMETRY,
            Budget::Tokens(4),
        )
        .expect("fits");
    assert_eq!((loaded.failure(), planned(&bad)), (None, KeepPlan::all(2)));
    assert_eq!(
        loaded.failure(),
        bad.failure().as_ref(),
        "the first failure of all that were bound"
    );
    assert_ne!(planned(&good), KeepPlan::all(2));
    assert_eq!(good.failure(), None);
}

#[test]
fn a_program_that_was_built_again_is_another() {
    let path = copy("reader", "rebuilt");
    let loaded = load(&path).expect("a good program");
    assert!(loaded.bind(json!({}), &GEOMETRY, Budget::Tokens(4)).is_ok());
    fs::remove_file(&path).expect("it is there");
    copy("trickster", "rebuilt");
    let error = loaded
        .bind(json!({}), &GEOMETRY, Budget::Tokens(4))
        .expect_err("another program")
        .to_string();
    assert!(
        error.ends_with("has changed since it was loaded (its file differs); load it again"),
        "{error}"
    );
    assert_eq!(load(&path).expect("a program").name(), "trickster");
}

#[cfg(target_os = "linux")]
#[test]
fn no_process_is_left_behind() {
    let lives = |id: &str| PathBuf::from("/proc").join(id).exists();
    let policy = bound(program("trickster"), json!({})).expect("binds");
    let id = policy.notice().expect("its process");
    assert!(lives(&id));
    drop(policy);
    assert!(!lives(&id), "{id} lives on");
    let policy = bound(program("trickster"), json!({"at": "plan", "what": "hang"})).expect("binds");
    let id = policy.notice().expect("its process");
    planned(&policy);
    assert!(!lives(&id), "{id} lives on");
}
