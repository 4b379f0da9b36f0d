//! The method by hand, and a cascade through a ledger.
//!
//! A failure prints its seed; `HEADROOM_SEED=<seed>` repeats the run.
use std::hash::{BuildHasher, RandomState};

use kv_core::{
    Budget, CacheError, Demand, Geometry, KeepPlan, LayerView, Pins, Policy, PolicyConfig,
    Position, PromptRows, SeqId, checker::Replay, top,
};
use kv_policy_cake::{Cake, CakeConfig};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const fn geometry(layers: usize, kv_heads: usize) -> Geometry {
    Geometry {
        layers,
        kv_heads,
        group: 2,
        head_dim: 1,
        block: 4,
        element_bytes: 4,
        max_positions: 512,
    }
}

fn bound(config: CakeConfig, geometry: &Geometry, budget: usize) -> Cake {
    config
        .bind(geometry, Budget::Tokens(budget))
        .expect("a good configuration")
}

/// The third of four queries gives the first token four times what it gives the others, the last gives all the same.
const QUERIES: [f32; 8] = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0];
const WINDOW_OF_TWO: CakeConfig = CakeConfig {
    window: 2,
    kernel: 1,
    gamma: 200.0,
    tau1: 1.0,
    tau2: 1.0,
};

fn with_example<R>(show: impl FnOnce(&LayerView<'_>) -> R) -> R {
    let keys = [4.0_f32.ln(), 0.0, 0.0, 0.0];
    let rows = PromptRows {
        head_dim: 1,
        group: 2,
        rows: 4,
        scale: 1.0,
        queries: Some(&QUERIES),
        keys: Some(&keys),
        ..PromptRows::default()
    };
    show(&LayerView::prefill(0, 1, 4, 3).with_rows(&rows))
}

fn near(found: f64, expected: f64) {
    let off = (found - expected).abs() / expected.abs();
    assert!(off < 1e-5, "{found} is not {expected}");
}

#[test]
fn spread_and_shift_by_hand() {
    // The window's rows over the two tokens before it: 4/6 and 1/6, then 1/4 and 1/4; both query heads see the same.
    let spread = 2.0 * (1.5_f64.ln() * 2.0 / 3.0 + 6.0_f64.ln() / 6.0 + 4.0_f64.ln() / 2.0);
    let shift = 2.0 * (25.0 / 288.0 + 1.0 / 288.0);
    let report = |tau1, tau2| {
        let config = CakeConfig {
            tau1,
            tau2,
            ..WINDOW_OF_TWO
        };
        with_example(|view| bound(config, &geometry(1, 1), 3).report(view))
    };
    near(report(1.0, 1.0), spread * shift);
    near(report(2.0, 0.5), spread.sqrt() * shift * shift);
}

#[test]
fn scores_by_hand() {
    let scores = |kernel| {
        let config = CakeConfig {
            kernel,
            ..WINDOW_OF_TWO
        };
        let policy = bound(config, &geometry(1, 1), 3);
        let scorer = policy.scorer().expect("it ranks");
        with_example(|view| scorer.scores(view)).remove(0)
    };
    let (first, second) = (11.0 / 24.0 + 5000.0 / 288.0, 5.0 / 24.0 + 200.0 / 288.0);
    let alone = scores(1);
    near(alone[0].into(), first);
    near(alone[1].into(), second);
    assert_eq!(alone[2..], [f32::INFINITY; 2]);
    // Pooled over three: each has one neighbour and one zero.
    let pooled = scores(3);
    near(pooled[0].into(), (first + second) / 3.0);
    near(pooled[1].into(), (first + second) / 3.0);
}

#[test]
fn a_layer_shrinks_when_the_next_one_reports_more() {
    // Two layers of 5 tokens per head share 6 beside their windows of 2. The first may have all 6, then 1.5 of them;
    // 1 and 4 leave one over, which is the first layer's.
    let policy = bound(WINDOW_OF_TWO, &geometry(2, 1), 5);
    let positions: Vec<Position> = (0..8).map(Position::new).collect();
    let scores = [5.0, 1.0, 6.0, 2.0, 4.0, 3.0, f32::INFINITY, f32::INFINITY];
    let (heads, rows) = ([positions.as_slice()], [scores.as_slice()]);
    let kept = |reports: &[f64], heads: &[&[Position]], rows: &[&[f32]]| {
        let view = LayerView::decode(0, heads, 8, 5)
            .with_scores(policy.needs().observation, rows)
            .with_reports(reports);
        let mut keep = KeepPlan::all(1);
        policy.plan(&view, &mut keep);
        keep.resolve(&view, &Pins::default()).slots.remove(0)
    };
    assert_eq!(kept(&[1.0], &heads, &rows), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(kept(&[1.0, 3.0], &heads, &rows), [0, 2, 6, 7]);
    // A token that was read through the cache meanwhile stays on top.
    let later: Vec<Position> = (0..9).map(Position::new).collect();
    let mut zero = scores.to_vec();
    zero.push(0.0);
    assert_eq!(kept(&[1.0, 3.0], &[&later], &[&zero]), [0, 2, 6, 7, 8]);
}

/// Random prompts of all layers.
struct Prompt {
    tokens: usize,
    /// Queries and keys of each layer.
    layers: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Prompt {
    fn random(geometry: &Geometry, tokens: usize, rng: &mut impl Rng) -> Self {
        let mut floats = |rows: usize, size: f32| -> Vec<f32> {
            (0..rows * tokens)
                .map(|_| rng.random_range(-size..size))
                .collect()
        };
        let heads = geometry.kv_heads;
        // Layers attend more or less sharply.
        let layer = |layer: usize| {
            let sharp = [0.5, 4.0, 1.0, 8.0][layer % 4];
            (floats(heads * geometry.group, sharp), floats(heads, 2.0))
        };
        Self {
            tokens,
            layers: (0..geometry.layers).map(layer).collect(),
        }
    }

    fn rows(&self, layer: usize) -> PromptRows<'_> {
        let (queries, keys) = &self.layers[layer];
        PromptRows {
            head_dim: 1,
            group: 2,
            rows: self.tokens,
            scale: 1.0,
            queries: Some(queries),
            keys: Some(keys),
            ..PromptRows::default()
        }
    }
}

/// Reads a prompt as a host does, and returns the fewest tokens that each layer was to keep beside its window.
fn cascade(
    replay: &mut Replay,
    policy: &Cake,
    prompt: &Prompt,
    budget: usize,
    pins: &Pins,
) -> Result<Vec<Vec<usize>>, CacheError> {
    let Geometry {
        layers, kv_heads, ..
    } = *replay.ledger().geometry();
    let seq = SeqId(0);
    let needs = policy.needs();
    let geometry = *replay.ledger().geometry();
    let demand = Demand::new(policy, &needs, &geometry, prompt.tokens, budget);
    replay.open(seq, prompt.tokens, demand, pins)?;
    let (mut reports, mut lens) = (Vec::new(), Vec::new());
    for layer in 0..layers {
        let rows = prompt.rows(layer);
        let view = LayerView::prefill(layer, kv_heads, prompt.tokens, budget).with_rows(&rows);
        reports.push(policy.report(&view));
        for earlier in 0..layer {
            let ledger = replay.ledger();
            let kept = ledger.plan_again(seq, earlier, policy, budget, Some(&reports))?;
            replay.shrink(seq, earlier, &kept)?;
        }
        let view = view.with_reports(&reports);
        let mut keep = KeepPlan::all(kv_heads);
        policy.plan(&view, &mut keep);
        replay.write_prompt(seq, layer, prompt.tokens, &keep.resolve(&view, pins))?;
        replay.check().expect("sound");
        let held = replay.ledger().report(seq)?.kept;
        lens.push(held.iter().map(|heads| heads[0]).collect());
        let total: usize = held.iter().flatten().sum();
        assert!(total <= geometry.heads() * (budget + pins.count_below(prompt.tokens)));
    }
    Ok(lens)
}

#[test]
fn a_cascade_keeps_the_best_of_every_layer_within_the_budget() {
    let fresh = || RandomState::new().hash_one("headroom");
    let seed: u64 = std::env::var("HEADROOM_SEED").map_or_else(
        |_| fresh(),
        |text| text.parse().expect("HEADROOM_SEED is a number"),
    );
    eprintln!("HEADROOM_SEED={seed} repeats this run");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for run in 0..40 {
        let geometry = geometry(rng.random_range(2..7), rng.random_range(1..3));
        let (tokens, budget) = (rng.random_range(40..90), rng.random_range(8..40));
        let config = CakeConfig {
            window: rng.random_range(2..8),
            kernel: 5,
            ..CakeConfig::default()
        };
        let policy = bound(config, &geometry, budget);
        let prompt = Prompt::random(&geometry, tokens, &mut rng);
        let pins = Pins::new(std::iter::once(0..u32::from(rng.random_bool(0.5)) * 3));
        // Just the pages that such a sequence is promised.
        let demand = Demand::new(&policy, &policy.needs(), &geometry, tokens, budget);
        let pages = demand.pages(&geometry, tokens, pins.count_below(tokens));
        let mut replay = Replay::new(geometry, pages);
        let lens = cascade(&mut replay, &policy, &prompt, budget, &pins)
            .unwrap_or_else(|error| panic!("run {run}: {error}"));
        if pins.count_below(tokens) > 0 {
            continue;
        }
        // Layers only ever shrink, and what they hold in the end is the best of what they read.
        let last = lens.last().expect("layers");
        for layer in 0..geometry.layers {
            let rows = prompt.rows(layer);
            let view =
                LayerView::prefill(layer, geometry.kv_heads, tokens, budget).with_rows(&rows);
            let scores = policy.scorer().expect("it ranks").scores(&view);
            let falls = lens[layer..]
                .windows(2)
                .all(|pair| pair[0][layer] >= pair[1][layer]);
            assert!(falls, "run {run}: {lens:?}");
            for (head, scores) in scores.iter().enumerate() {
                let table = replay.ledger().head(SeqId(0), layer, head).expect("open");
                let mut held: Vec<usize> = table.positions().iter().map(|p| p.index()).collect();
                held.sort_unstable();
                let before = tokens - config.window;
                let mut best = top(&scores[..before], last[layer] - config.window);
                best.extend(before..tokens);
                best.sort_unstable();
                assert_eq!(held, best, "run {run}, layer {layer}, head {head}");
            }
        }
    }
}
