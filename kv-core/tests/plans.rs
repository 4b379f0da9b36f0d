//! Plans and splits against slow definitions of the same.
use kv_core::{KeepPlan, LayerView, Observation, Pins, Position, apportion};
use proptest::prelude::*;

/// A token of a head: its slot, its position and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Token {
    slot: u32,
    position: u32,
    score: f32,
}

/// A layer in mid-decode: heads of different lengths, in no order, with ties and NaN among the scores.
fn layers() -> impl Strategy<Value = Vec<Vec<Token>>> {
    let score = prop_oneof![
        8 => (0..5_u8).prop_map(f32::from),
        1 => Just(f32::NAN),
        1 => Just(f32::NEG_INFINITY),
        1 => Just(f32::INFINITY),
        1 => Just(-0.0_f32),
    ];
    // Short heads, where every edge is met, and long ones.
    let len = prop_oneof![8 => 0..14_usize, 1 => 100..300_usize];
    let head = len
        .prop_flat_map(move |held| {
            let positions = 0..u32::try_from(2 * held + 2).expect("small");
            let positions = Just(positions.collect::<Vec<_>>()).prop_shuffle();
            (positions, prop::collection::vec(score.clone(), held))
        })
        .prop_map(|(positions, scores)| {
            let tokens = (0..).zip(positions).zip(scores);
            tokens
                .map(|((slot, position), score)| Token {
                    slot,
                    position,
                    score,
                })
                .collect()
        });
    prop::collection::vec(head, 1..4)
}

/// A number of tokens, in most cases a small one.
fn amount() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0..9_usize, 1 => 9..250_usize]
}

fn resolve(layer: &[Vec<Token>], pins: &Pins, plan: impl FnOnce(&mut KeepPlan)) -> Vec<Vec<u32>> {
    let positions: Vec<Vec<Position>> = layer
        .iter()
        .map(|head| head.iter().map(|token| Position(token.position)).collect())
        .collect();
    let scores: Vec<Vec<f32>> = layer
        .iter()
        .map(|head| head.iter().map(|token| token.score).collect())
        .collect();
    let positions: Vec<&[Position]> = positions.iter().map(Vec::as_slice).collect();
    let scores: Vec<&[f32]> = scores.iter().map(Vec::as_slice).collect();
    let view =
        LayerView::decode(0, &positions, 1, 0).with_scores(Observation::Accumulated, &scores);
    let mut keep = KeepPlan::all(layer.len());
    plan(&mut keep);
    keep.resolve(&view, pins).slots
}

fn by_age(head: &[Token]) -> Vec<Token> {
    let mut tokens = head.to_vec();
    tokens.sort_by_key(|token| token.position);
    tokens
}

/// Better first: the score, NaN being the lowest, then the earlier position.
fn by_rank(tokens: &[Token]) -> Vec<Token> {
    let score = |token: &Token| {
        if token.score.is_nan() {
            f32::NEG_INFINITY
        } else {
            token.score
        }
    };
    let mut ranked = by_age(tokens);
    ranked.sort_by(|a, b| score(b).partial_cmp(&score(a)).expect("no NaN is left"));
    ranked
}

/// With the newest token and the pins, as ascending slots.
fn guarded(head: &[Token], kept: &[Token], pins: &Pins) -> Vec<u32> {
    let newest = by_age(head).last().copied();
    let is_kept = |token: &&Token| {
        kept.iter().any(|other| other.slot == token.slot)
            || newest.is_some_and(|newest| newest.slot == token.slot)
            || pins.contains(Position(token.position))
    };
    head.iter()
        .filter(is_kept)
        .map(|token| token.slot)
        .collect()
}

fn split(head: &[Token], recent: usize) -> (Vec<Token>, Vec<Token>) {
    let mut others = by_age(head);
    let window = others.split_off(others.len() - recent.min(others.len()));
    (others, window)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn windows(layer in layers(), sinks in amount(), recent in amount(), pin in 0..25_u32) {
        let pins = Pins::new([pin..pin + 3, pin + 1..pin + 2]);
        let found = resolve(&layer, &pins, |keep| (0..layer.len()).for_each(|head| keep.window(head, sinks, recent)));
        for (head, found) in layer.iter().zip(found) {
            let (others, window) = split(head, recent);
            let kept: Vec<Token> = others.into_iter().take(sinks).chain(window).collect();
            prop_assert_eq!(found, guarded(head, &kept, &pins));
        }
    }

    #[test]
    fn best_scores_of_a_head(layer in layers(), count in amount(), recent in amount(), pin in 0..25_u32) {
        let pins = Pins::new(std::iter::once(pin..pin + 3));
        let found = resolve(&layer, &pins, |keep| (0..layer.len()).for_each(|head| keep.top(head, count, recent)));
        for (head, found) in layer.iter().zip(found) {
            let (others, window) = split(head, recent);
            let kept: Vec<Token> = by_rank(&others).into_iter().take(count).chain(window).collect();
            prop_assert_eq!(found, guarded(head, &kept, &pins));
        }
    }

    #[test]
    fn best_scores_that_a_plan_brings(layer in layers(), count in amount(), recent in amount()) {
        let brought = |head: &[Token]| head.iter().map(|token| token.score).collect();
        let found = resolve(&layer, &Pins::default(), |keep| {
            for (head, tokens) in layer.iter().enumerate() {
                keep.top_by(head, brought(tokens), count, recent);
            }
        });
        for (head, found) in layer.iter().zip(found) {
            let (others, window) = split(head, recent);
            let kept: Vec<Token> = by_rank(&others).into_iter().take(count).chain(window).collect();
            prop_assert_eq!(found, guarded(head, &kept, &Pins::default()));
        }
    }

    #[test]
    fn best_scores_of_all_heads(
        layer in layers(), total in prop_oneof![8 => 0..40_usize, 1 => 40..400_usize], floor in 0..5_usize, recent in 0..5_usize, pin in 0..25_u32,
    ) {
        let pins = Pins::new(std::iter::once(pin..pin + 3));
        let found = resolve(&layer, &pins, |keep| keep.top_across_heads(total, floor, recent));
        let mut kept: Vec<Vec<Token>> = Vec::new();
        let mut rest: Vec<(usize, Token)> = Vec::new();
        for (index, head) in layer.iter().enumerate() {
            let (others, mut window) = split(head, recent);
            let ranked = by_rank(&others);
            window.extend(ranked.iter().take(floor));
            kept.push(window);
            rest.extend(ranked.iter().skip(floor).map(|&token| (index, token)));
        }
        // One after the other takes the best that is left; of equal ones the first met, which is the lower head's.
        while kept.iter().map(Vec::len).sum::<usize>() < total && !rest.is_empty() {
            let score = |token: &Token| if token.score.is_nan() { f32::NEG_INFINITY } else { token.score };
            let mut best = 0;
            for (index, (_, token)) in rest.iter().enumerate() {
                if score(token) > score(&rest[best].1) {
                    best = index;
                }
            }
            let (head, token) = rest.remove(best);
            kept[head].push(token);
        }
        for ((head, kept), found) in layer.iter().zip(kept).zip(found) {
            prop_assert_eq!(found, guarded(head, &kept, &pins));
        }
    }

    #[test]
    fn a_split_keeps_its_total_its_limits_and_its_order(
        total in 0..200_usize,
        parts in prop::collection::vec((prop_oneof![
            6 => (0..20_u16).prop_map(f64::from),
            2 => 0.0..1.0_f64,
            1 => Just(f64::NAN),
            1 => Just(-3.0),
        ], 0..60_usize), 0..9),
    ) {
        let (weights, limits): (Vec<f64>, Vec<usize>) = parts.into_iter().unzip();
        let split = apportion(total, &weights, &limits);
        prop_assert_eq!(split.iter().sum::<usize>(), total.min(limits.iter().sum()));
        prop_assert!(split.iter().zip(&limits).all(|(part, limit)| part <= limit));
        let weight = |index: usize| weights[index].max(0.0);
        for a in 0..split.len() {
            for b in 0..split.len() {
                if weight(a) >= weight(b) && limits[a] >= limits[b] {
                    prop_assert!(split[a] + 1 >= split[b], "{a} got {} and {b} got {}", split[a], split[b]);
                }
            }
        }
    }

    /// Where no limit binds, nobody is a whole token away from the exact share.
    #[test]
    fn a_free_split_is_within_a_token_of_the_exact_one(
        total in 0..200_u32, weights in prop::collection::vec(0.01..9.0_f64, 1..9),
    ) {
        let limits = vec![usize::MAX; weights.len()];
        let sum: f64 = weights.iter().sum();
        for (part, weight) in apportion(total as usize, &weights, &limits).into_iter().zip(&weights) {
            let exact = f64::from(total) * weight / sum;
            let part = f64::from(u32::try_from(part).expect("small"));
            prop_assert!((part - exact).abs() < 1.0 + 1e-9, "{part} of {exact}");
        }
    }
}
