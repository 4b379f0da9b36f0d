//! Which strategy a head gets: the leanest that recovers enough of its attention on the prompt.
use std::ops::Range;

use kv_core::{LayerView, PromptAttention, TokenClass};
use rayon::prelude::*;

use crate::{
    FastGenConfig,
    rule::{Rule, Strategy, best},
};

/// Queries that a thread takes at once.
const PIECE: usize = 64;

/// The strategy of a head after its prompt.
pub(crate) fn strategy(config: &FastGenConfig, view: &LayerView<'_>, head: usize) -> Strategy {
    let recovered = recovered(config, view, head);
    // NaN recovers nothing.
    let is_enough = |&(_, share): &(Strategy, f64)| share >= config.recovery;
    let lean = Strategy::ALL.into_iter().zip(recovered);
    lean.into_iter()
        .find(is_enough)
        .map_or(Strategy::Full, |(strategy, _)| strategy)
}

/// Share of the attention that each strategy but the full one recovers: over all queries of the group, the mean of what lies
/// on tokens that it keeps. Query `i` sees the window that ends at `i`, and all heavy hitters of the prompt before it.
fn recovered(config: &FastGenConfig, view: &LayerView<'_>, head: usize) -> [f64; 4] {
    let local = Rule::new(config, Strategy::Local, view.prompt).local();
    let first = first_keepers(config, view, head);
    let prompt = view.prompt;
    let mut mass = [0.0; 5];
    for query_head in head * view.group()..(head + 1) * view.group() {
        let attention = view.attention(query_head);
        let pieces: Vec<[f64; 5]> = (0..prompt.div_ceil(PIECE))
            .into_par_iter()
            .map(|piece| {
                let end = prompt.min((piece + 1) * PIECE);
                mass_of(&attention, piece * PIECE..end, &first, local)
            })
            .collect();
        // In their order, so that the sum does not depend on the threads.
        for piece in pieces {
            for (sum, more) in mass.iter_mut().zip(piece) {
                *sum += more;
            }
        }
    }
    let queries = rows(view.group() * view.prompt);
    let mut sum = 0.0;
    std::array::from_fn(|strategy| {
        sum += mass[strategy] / queries;
        sum
    })
}

/// Attention of some queries, by the first strategy that keeps what it lies on.
fn mass_of(
    attention: &PromptAttention<'_>,
    queries: Range<usize>,
    first: &[Strategy],
    local: usize,
) -> [f64; 5] {
    let mut mass = [0.0; 5];
    for query in queries {
        let window = (query + 1).saturating_sub(local);
        for (token, weight) in attention.row(query).into_iter().enumerate() {
            let last = if token < window {
                Strategy::Full
            } else {
                Strategy::Local
            };
            mass[first[token].min(last) as usize] += f64::from(weight);
        }
    }
    mass
}

/// The first strategy that keeps each token for every query that can see it.
fn first_keepers(config: &FastGenConfig, view: &LayerView<'_>, head: usize) -> Vec<Strategy> {
    let of_class = |class: &TokenClass| match class {
        TokenClass::Special => Strategy::Special,
        TokenClass::Punctuation => Strategy::Punctuation,
        TokenClass::Plain => Strategy::Full,
    };
    let mut first: Vec<Strategy> = view.classes().iter().map(of_class).collect();
    let plain: Vec<usize> = (0..view.prompt)
        .filter(|&token| first[token] == Strategy::Full)
        .collect();
    for strategy in [Strategy::Local, Strategy::Heavy] {
        let rule = Rule::new(config, strategy, view.prompt);
        let window = view.prompt.saturating_sub(rule.local());
        let others = &plain[..plain.partition_point(|&token| token < window)];
        for token in best(view, head, others, rule.heavy()) {
            first[token] = strategy;
        }
    }
    first
}

#[expect(
    clippy::cast_precision_loss,
    reason = "query counts are far below 2^52"
)]
const fn rows(count: usize) -> f64 {
    count as f64
}
