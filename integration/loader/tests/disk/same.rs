//! A policy on disk says what it says in process, to the last bit.
//!
//! A failure prints its seed; `HEADROOM_SEED=<seed>` repeats the run.
use std::{
    env, fmt,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    thread,
};

use kv_core::{
    Budget, Description, Geometry, KeepAllConfig, Policy, PolicyConfig, Reads, Registry, granted,
};
use kv_loader::load;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use crate::{
    cases::{Case, some},
    prober::{OuterConfig, ProberConfig},
    programs::program,
    reader::ReaderConfig,
};

/// Policies bound for each test; some are refused.
const BINDINGS: usize = 60;

fn budget(rng: &mut ChaCha8Rng) -> Budget {
    match rng.random_range(0..5) {
        0 => Budget::Full,
        1 | 2 => Budget::Tokens(rng.random_range(1..300)),
        3 => Budget::Ratio(rng.random::<f64>()),
        _ => Budget::Bytes(rng.random_range(1..4_000_000)),
    }
}

fn geometry(rng: &mut ChaCha8Rng) -> Geometry {
    Geometry {
        layers: rng.random_range(1..5),
        kv_heads: rng.random_range(1..4),
        group: rng.random_range(1..4),
        head_dim: 16,
        block: 16,
        element_bytes: 2,
        max_positions: 2048,
    }
}

fn seed() -> u64 {
    env::var("HEADROOM_SEED").map_or_else(
        |_| RandomState::new().hash_one("headroom"),
        |text| text.parse().expect("HEADROOM_SEED is a number"),
    )
}

fn same<T: PartialEq + fmt::Debug>(case: &str, here: &T, there: &T) {
    assert!(here == there, "{case}\n  here  {here:?}\n  there {there:?}");
}

/// Binds random configurations on both sides, and asks both the same.
fn compare<C: PolicyConfig + 'static>(
    shape: impl Fn(&mut ChaCha8Rng) -> Geometry,
    fields: impl FnMut(&mut ChaCha8Rng) -> Value,
) {
    let (mut here, mut there) = (Registry::default(), Registry::default());
    here.add::<C>();
    let loaded = load(program(C::NAME)).expect("a good program");
    loaded.register(&mut there).expect("a free name");
    assert!(there.names().eq([C::NAME]));
    same(
        "what it says of itself",
        loaded.description(),
        &Description::of::<C>(),
    );
    compare_both(C::NAME, (&here, &there), shape, fields);
    assert_eq!(loaded.failure(), None);
}

fn compare_both(
    name: &str,
    (here, there): (&Registry, &Registry),
    shape: impl Fn(&mut ChaCha8Rng) -> Geometry,
    mut fields: impl FnMut(&mut ChaCha8Rng) -> Value,
) {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut accepted = 0;
    for binding in 0..BINDINGS {
        let Value::Object(fields) = fields(&mut rng) else {
            panic!("fields are a table");
        };
        let (geometry, budget) = (shape(&mut rng), budget(&mut rng));
        let build = |registry: &Registry| registry.build(name, fields.clone(), &geometry, budget);
        let case = format!(
            "HEADROOM_SEED={seed}, binding {binding}: {fields:?}, {budget:?}, {geometry:?}"
        );
        let (one, other) = match (build(here), build(there)) {
            (Ok(one), Ok(other)) => (one, other),
            (one, other) => {
                same(&case, &one.map(drop), &other.map(drop));
                continue;
            }
        };
        accepted += 1;
        same(&case, &one.needs(), &other.needs());
        same(&case, &one.notice(), &other.notice());
        let tokens = |prompt| granted(&*one, &one.needs(), &geometry, budget, prompt);
        for _ in 0..8 {
            let asked = Case::random(&mut rng, &geometry, one.needs().reads, tokens);
            let room = |policy: &dyn Policy| policy.room(asked.layer, asked.prompt, asked.budget);
            same(&case, &room(&*one), &room(&*other));
            let plan = |policy: &dyn Policy| asked.plan(&geometry, policy);
            same(&case, &plan(&*one), &plan(&*other));
            let ranks = |policy: &dyn Policy| asked.ranks(&geometry, policy);
            same(&case, &ranks(&*one), &ranks(&*other));
        }
    }
    assert!(
        accepted > 0,
        "HEADROOM_SEED={seed} met nothing but refusals"
    );
}

#[test]
fn reads_scores_and_positions() {
    compare::<ReaderConfig>(
        geometry,
        |rng| json!({"odd": f64::from(rng.random_range(0..1100)) / 1000.0, "late": some(rng, &[json!(null), json!(2)])}),
    );
}

#[test]
fn reads_the_prompt_and_ranks_by_it() {
    compare::<ProberConfig>(geometry, |rng| json!({"parts": rng.random::<bool>()}));
}

/// The outer method, the inner one, or both are programs.
#[test]
fn works_over_another() {
    let (mut here, mut inner, mut outer) = <(Registry, Registry, Registry)>::default();
    here.add::<OuterConfig>()
        .add::<ProberConfig>()
        .add::<KeepAllConfig>();
    inner.add::<OuterConfig>().add::<KeepAllConfig>();
    let prober = load(program("prober")).expect("a good program");
    prober.register(&mut inner).expect("a free name");
    let both = load(program("outer")).expect("a good program");
    both.register(&mut outer).expect("a free name");
    for there in [inner, outer] {
        let over =
            |rng: &mut ChaCha8Rng| json!({"over": some(rng, &["prober", "prober", "keep-all"])});
        compare_both("outer", (&here, &there), geometry, over);
    }
    assert_eq!((prober.failure(), both.failure()), (None, None));
}

#[test]
fn ranks_across_heads() {
    compare::<kv_policy_ada_kv::AdaKvConfig>(geometry, |rng| {
        json!({
            "window": rng.random_range(0..20), "kernel": some(rng, &[1, 4, 5]), "normalize": rng.random::<bool>(),
            "alpha": f64::from(rng.random_range(0..110)) / 100.0, "safeguard": some(rng, &["mix", "floor"]),
            "layers": some(rng, &["uniform", "uniform", "pyramid"]), "score": some(rng, &["window", "accumulated"]),
        })
    });
}

#[test]
fn evicts_while_decoding() {
    compare::<kv_policy_h2o::H2oConfig>(geometry, |rng| {
        json!({
            "heavy_share": f64::from(rng.random_range(0..11)) / 10.0, "decode": some(rng, &["evict", "append"]),
            "recent": some(rng, &[json!(null), json!(1), json!(40)]), "group": some(rng, &["mean", "sum", "max"]),
        })
    });
}

#[test]
fn tells_what_to_know_before_trusting_it() {
    compare::<kv_policy_head_kv::HeadKvConfig>(
        geometry,
        |rng| json!({"window": rng.random_range(1..20), "temp": rng.random_range(0..20), "rounding": some(rng, &["exact", "authors"])}),
    );
}

#[test]
fn reads_files_and_names_what_is_wrong_with_them() {
    let model = |_: &mut ChaCha8Rng| Geometry {
        layers: 30,
        kv_heads: 3,
        group: 3,
        head_dim: 64,
        block: 32,
        element_bytes: 2,
        max_positions: 2048,
    };
    compare::<kv_policy_duo_attention::DuoAttentionConfig>(model, |rng| {
        json!({
            "profile": if rng.random_ratio(1, 9) { "no-such-folder" } else { "neutral-alternating" },
            "sparsity": f64::from(rng.random_range(0..11)) / 10.0, "sinks": rng.random_range(0..64),
        })
    });
}

/// What is wrong with the fields is found before the program is asked, or by it; in the same words.
#[test]
fn refuses_what_is_no_field_and_what_is_no_value_in_the_same_words() {
    let (mut here, mut there) = (Registry::default(), Registry::default());
    here.add::<ReaderConfig>();
    let loaded = load(program("reader")).expect("a good program");
    loaded.register(&mut there).expect("a free name");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let geometry = geometry(&mut rng);
    for fields in [
        json!({"even": 1}),
        json!({"odd": "half"}),
        json!({"late": -1}),
        json!({"odd": 2}),
    ] {
        let Value::Object(fields) = fields else {
            unreachable!("a table of fields");
        };
        let refusal = |registry: &Registry, fields: Map<String, Value>| {
            let built = registry.build("reader", fields, &geometry, Budget::Tokens(64));
            built.expect_err("nonsense is refused").to_string()
        };
        let (one, other) = (refusal(&here, fields.clone()), refusal(&there, fields));
        assert_eq!(one, other);
    }
}

#[test]
fn several_threads_ask_one_policy() {
    let loaded = load(program("reader")).expect("a good program");
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let geometry = geometry(&mut rng);
    let budget = Budget::Tokens(48);
    let policy = loaded.bind(json!({}), &geometry, budget).expect("fits");
    let twin = ReaderConfig::default()
        .bind(&geometry, budget)
        .expect("fits");
    let policy = Arc::new(policy);
    let ask = |mut rng: ChaCha8Rng| {
        let (policy, twin) = (policy.clone(), &twin);
        move || {
            for _ in 0..100 {
                let case = Case::random(&mut rng, &geometry, Reads::NONE, |_| 48);
                let plan = |policy: &dyn Policy| case.plan(&geometry, policy);
                same("in a thread", &plan(twin), &plan(&*policy));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(ask(ChaCha8Rng::from_rng(&mut rng)));
        }
    });
}
