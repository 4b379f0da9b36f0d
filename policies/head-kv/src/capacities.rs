//! How many tokens each head keeps besides the window.
use kv_core::{Pyramid, apportion};

use crate::config::{HeadGroup, Rounding};

/// The split of a budget over the heads of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Capacities {
    /// Query heads per KV head, `G`.
    group: usize,
    kv_heads: usize,
    /// Share of every query head, `[L * G * H]`, 1 in all.
    shares: Vec<f64>,
    /// Importance of every KV head, `[L * H]`.
    importance: Vec<f64>,
    /// The larger, the smaller the part of the budget that is shared by importance.
    beta: f64,
    rounding: Rounding,
    /// Splits the budget over layers first.
    pyramid: Option<Pyramid>,
}

/// What the split depends on besides the scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Options {
    pub(crate) head_group: HeadGroup,
    pub(crate) beta: f64,
    pub(crate) temp: f64,
    pub(crate) rounding: Rounding,
    pub(crate) pyramid: Option<Pyramid>,
}

impl Capacities {
    /// For the scores of all query heads, `[L * G * H]`, finite and not negative.
    pub(crate) fn new(scores: &[f64], kv_heads: usize, group: usize, options: Options) -> Self {
        let shares = shares(scores, options.temp);
        let importance = shares
            .chunks(group.max(1))
            .map(|group| match options.head_group {
                HeadGroup::Mean => group.iter().sum(),
                HeadGroup::Max => group.iter().copied().fold(0.0, f64::max),
            })
            .collect();
        Self {
            group,
            kv_heads,
            shares,
            importance,
            beta: options.beta,
            rounding: options.rounding,
            pyramid: options.pyramid,
        }
    }

    /// Whether the heads' tokens may sum to another number than the budget.
    pub(crate) fn drifts(&self) -> bool {
        self.rounding == Rounding::Authors
    }

    pub(crate) const fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    /// Tokens of each head of a layer, `[H]`, where `ranked` are there and the budget is `base` per KV head.
    pub(crate) fn of_layer(&self, layer: usize, ranked: usize, base: usize) -> Vec<usize> {
        let heads = layer * self.kv_heads..(layer + 1) * self.kv_heads;
        if base >= ranked {
            return vec![ranked; self.kv_heads];
        }
        match (self.rounding, self.pyramid) {
            (Rounding::Authors, _) => heads
                .map(|head| self.rounded(head, base).min(ranked))
                .collect(),
            (Rounding::Exact, None) => self.split(&self.importance, ranked, base)[heads].to_vec(),
            (Rounding::Exact, Some(pyramid)) => {
                let bases = pyramid.bases(ranked + pyramid.window, base + pyramid.window);
                self.split(&self.importance[heads], ranked, bases[layer])
            }
        }
    }

    /// A guaranteed part for every head; the rest in proportion, no head more than `ranked` in all. What one cannot use
    /// goes to the others, so that the sum is `base` per head. `base` is at most `ranked`.
    fn split(&self, importance: &[f64], ranked: usize, base: usize) -> Vec<usize> {
        let shared = floor_div(base, self.beta);
        let guaranteed = base - shared;
        let limits = vec![ranked - guaranteed; importance.len()];
        let mut tokens = apportion(shared * importance.len(), importance, &limits);
        for tokens in &mut tokens {
            *tokens += guaranteed;
        }
        tokens
    }

    /// As the authors round every query head, and `KVCache-Factory` their mean: both to the even neighbour at a half.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "token counts are far below 2^52"
    )]
    fn rounded(&self, head: usize, base: usize) -> usize {
        let shared = floor_div(base, self.beta);
        let pool = (shared * self.shares.len()) as f64;
        let queries = &self.shares[head * self.group..(head + 1) * self.group];
        let tokens = queries
            .iter()
            .map(|share| (share * pool + (base - shared) as f64).round_ties_even());
        (tokens.sum::<f64>() / self.group as f64).round_ties_even() as usize
    }
}

/// Scores as shares of 1, raised to `temp` and once more as shares of 1; equal shares if all scores are 0.
#[expect(clippy::cast_precision_loss, reason = "heads are few")]
fn shares(scores: &[f64], temp: f64) -> Vec<f64> {
    let normalised = |scores: Vec<f64>| -> Vec<f64> {
        let sum: f64 = scores.iter().sum();
        if sum > 0.0 {
            scores.iter().map(|score| score / sum).collect()
        } else {
            vec![1.0 / scores.len() as f64; scores.len()]
        }
    };
    let shares = normalised(scores.to_vec());
    normalised(shares.into_iter().map(|share| share.powf(temp)).collect())
}

/// `tokens / beta`, rounded down as Python's `//` does on floats: without the error of a quotient that is rounded up to the
/// next whole number first.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "token counts are far below 2^52"
)]
fn floor_div(tokens: usize, beta: f64) -> usize {
    let exact = tokens as f64;
    ((exact - exact % beta) / beta).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_core::PyramidRounding;
    use proptest::prelude::*;

    const EXACT: Options = Options {
        head_group: HeadGroup::Mean,
        beta: 2.0,
        temp: 1.0,
        rounding: Rounding::Exact,
        pyramid: None,
    };
    const AUTHORS: Options = Options {
        rounding: Rounding::Authors,
        ..EXACT
    };

    #[test]
    fn what_is_shared_of_the_method_page() {
        assert_eq!(floor_div(120, 1.01), 118);
        assert_eq!(floor_div(120, 1.2), 100);
        assert_eq!(floor_div(120, 1.0), 120);
        assert_eq!(floor_div(120, 1e300), 0);
        assert_eq!(floor_div(0, 1.5), 0);
    }

    /// A model of the authors' size, 32 layers of 32 query heads with a base of 120, and a head with a share of 1 %.
    #[test]
    fn the_authors_formula() {
        let mut scores = vec![99.0 / 1023.0; 1024];
        scores[5] = 1.0;
        let capacities = |beta, group| {
            let options = Options { beta, ..AUTHORS };
            Capacities::new(&scores, 32 / group, group, options).of_layer(0, 5000, 120)
        };
        // 0.01 * 118 * 1024 + 2, and 0.99 / 1023 * 118 * 1024 + 2 = 118.93.
        assert_eq!(capacities(1.01, 1)[4..7], [119, 1210, 119]);
        // 0.01 * 100 * 1024 + 20, and 0.99 / 1023 * 100 * 1024 + 20 = 119.10.
        assert_eq!(capacities(1.2, 1)[4..7], [119, 1044, 119]);
        // Four query heads of a KV head: (119 + 1044 + 119 + 119) / 4 = 350.25.
        assert_eq!(capacities(1.2, 4)[..3], [119, 350, 119]);
    }

    /// The first eight heads and the largest of the authors' R2 scores for Llama-3-8B-Instruct, as shares of all scores to
    /// seven digits; the other heads share the rest evenly, on which these nine do not depend.
    #[test]
    fn the_first_eight_capacities_of_the_method_page() {
        const FIRST: [f64; 8] = [
            8e-7, 2.15e-5, 9.5e-6, 7.45e-5, 1.32e-5, 1.42e-5, 2.13e-5, 9.1e-6,
        ];
        const LARGEST: (usize, f64) = (15 * 32 + 30, 0.015_050_7);
        let rest = (1.0 - FIRST.iter().sum::<f64>() - LARGEST.1) / (1024.0 - 9.0);
        let mut scores = vec![rest; 1024];
        scores[..8].copy_from_slice(&FIRST);
        scores[LARGEST.0] = LARGEST.1;
        let capacities = |beta| {
            let options = Options { beta, ..AUTHORS };
            let capacities = Capacities::new(&scores, 32, 1, options);
            let first = capacities.of_layer(0, 8000, 120)[..8].to_vec();
            (first, capacities.of_layer(15, 8000, 120)[30])
        };
        assert_eq!(capacities(1.01), (vec![2, 5, 3, 11, 4, 4, 5, 3], 1821));
        assert_eq!(
            capacities(1.2),
            (vec![20, 22, 21, 28, 21, 21, 22, 21], 1561)
        );
    }

    #[test]
    fn what_one_head_cannot_use_goes_to_the_others() {
        let scores = [8.0, 1.0, 1.0, 0.0];
        // 10 per head: 5 guaranteed and 20 shared, 16, 2 and 2 of them, but no head has more than 12.
        let exact = Capacities::new(&scores, 4, 1, EXACT).of_layer(0, 12, 10);
        assert_eq!(exact, [12, 12, 11, 5]);
        let authors = Capacities::new(&scores, 4, 1, AUTHORS).of_layer(0, 12, 10);
        assert_eq!(authors, [12, 7, 7, 5]);
    }

    #[test]
    fn query_heads_become_kv_heads_by_mean_or_by_the_largest() {
        let scores = [4.0, 0.0, 3.0, 3.0];
        let of = |head_group| {
            let options = Options {
                head_group,
                beta: 1.0,
                ..EXACT
            };
            Capacities::new(&scores, 2, 2, options).of_layer(0, 100, 10)
        };
        assert_eq!(of(HeadGroup::Mean), [8, 12]);
        assert_eq!(of(HeadGroup::Max), [11, 9]);
    }

    #[test]
    fn a_temperature_sharpens_and_zeros_are_equal() {
        let of = |scores: &[f64], temp| {
            let options = Options {
                temp,
                beta: 1.0,
                ..EXACT
            };
            Capacities::new(scores, 2, 1, options).of_layer(0, 100, 10)
        };
        assert_eq!(of(&[3.0, 1.0], 1.0), [15, 5]);
        assert_eq!(of(&[3.0, 1.0], 2.0), [18, 2]);
        assert_eq!(of(&[3.0, 0.0], 0.0), [10, 10]);
        assert_eq!(of(&[0.0, 0.0], 1.0), [10, 10]);
        assert_eq!(of(&[1e100, 1e100], 16.0), [10, 10]);
    }

    /// No part of the budget is lost, and no head has more than there is.
    fn spends(
        options: Options,
        group: usize,
        scores: &[f64],
        ranked: usize,
        base: usize,
    ) -> Result<(), TestCaseError> {
        let kv_heads = 3;
        let layers = scores.len() / (kv_heads * group);
        let capacities = Capacities::new(
            &scores[..layers * kv_heads * group],
            kv_heads,
            group,
            options,
        );
        let tokens: Vec<usize> = (0..layers)
            .flat_map(|layer| capacities.of_layer(layer, ranked, base))
            .collect();
        let least = if options.pyramid.is_some() {
            0
        } else {
            base.min(ranked) - floor_div(base.min(ranked), options.beta)
        };
        prop_assert_eq!(
            tokens.iter().sum::<usize>(),
            layers * kv_heads * base.min(ranked)
        );
        prop_assert!(
            tokens
                .iter()
                .all(|tokens| (least..=ranked).contains(tokens)),
            "{:?}",
            tokens
        );
        Ok(())
    }

    proptest! {
        #[test]
        fn an_exact_split_spends_the_budget(
            scores in prop::collection::vec(prop_oneof![1 => Just(0.0), 4 => 0.0..1.0_f64, 1 => 50.0..1e9_f64], 12..60),
            group in 1..3_usize, ranked in 0..500_usize, base in 0..500_usize,
            beta in prop_oneof![1 => Just(1.0), 3 => 1.0..12.0_f64, 1 => Just(1e300)], temp in 0.0..16.0_f64,
            is_pyramid in any::<bool>(), is_max in any::<bool>(),
        ) {
            let layers = scores.len() / (3 * group);
            let pyramid = Pyramid { layers, window: 8, beta: 20.0, rounding: PyramidRounding::Exact };
            let options = Options {
                head_group: if is_max { HeadGroup::Max } else { HeadGroup::Mean },
                beta, temp, rounding: Rounding::Exact, pyramid: is_pyramid.then_some(pyramid),
            };
            spends(options, group, &scores, ranked, base)?;
        }
    }
}
