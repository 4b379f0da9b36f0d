//! Which heads are retrieval heads.
use std::cmp::Reverse;

/// What divides the heads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cut {
    /// This share of the heads streams.
    Share(f64),
    /// Heads from this quantile of all values on retrieve.
    Quantile(f64),
    /// Heads from this value on retrieve.
    Threshold(f64),
}

/// Which heads retrieve, `[L][H]`, by their values.
pub(crate) fn retrieval_heads(values: &[Vec<f64>], cut: Cut) -> Vec<Vec<bool>> {
    match cut {
        Cut::Share(sparsity) => largest(values, retained(count(values), sparsity)),
        // As in the authors' code, where a share of 1 leaves no retrieval head.
        Cut::Quantile(sparsity) if sparsity >= 1.0 => from(values, f64::INFINITY),
        Cut::Quantile(sparsity) => from(values, quantile(values, sparsity)),
        Cut::Threshold(threshold) => from(values, threshold),
    }
}

fn from(values: &[Vec<f64>], least: f64) -> Vec<Vec<bool>> {
    let row = |row: &Vec<f64>| row.iter().map(|&value| value >= least).collect();
    values.iter().map(row).collect()
}

fn count(values: &[Vec<f64>]) -> usize {
    values.iter().map(Vec::len).sum()
}

fn descending(values: &[Vec<f64>]) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.iter().flatten().copied().collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted
}

/// `N - round(sparsity * N)`.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "heads are few and the share is between 0 and 1"
)]
fn retained(heads: usize, sparsity: f64) -> usize {
    heads - ((heads as f64 * sparsity).round_ties_even() as usize).min(heads)
}

/// The `sparsity` quantile of all values, interpolated between neighbours.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "heads are few and the share is between 0 and 1"
)]
fn quantile(values: &[Vec<f64>], sparsity: f64) -> f64 {
    let mut sorted = descending(values);
    sorted.reverse();
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::INFINITY;
    };
    let place = sparsity * last as f64;
    let below = (place.floor() as usize).min(last);
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

/// The `retained` largest. Of the heads whose value is just at the cut, those in the layers with the fewest retrieval heads
/// so far come first, one at a time; then the lower layer, then the lower head.
fn largest(values: &[Vec<f64>], retained: usize) -> Vec<Vec<bool>> {
    let Some(cut) = retained.checked_sub(1).map(|last| descending(values)[last]) else {
        return from(values, f64::INFINITY);
    };
    let mut chosen: Vec<Vec<bool>> = values
        .iter()
        .map(|row| row.iter().map(|&value| value > cut).collect())
        .collect();
    let mut full: Vec<usize> = chosen.iter().map(|row| ones(row)).collect();
    for _ in full.iter().sum()..retained {
        let open = |layer: usize| {
            let heads = values[layer].iter().zip(&chosen[layer]);
            heads
                .into_iter()
                .position(|(&value, &is_chosen)| value >= cut && !is_chosen)
        };
        let candidates = (0..values.len()).filter_map(|layer| Some((layer, open(layer)?)));
        let Some((layer, head)) =
            candidates.max_by_key(|&(layer, _)| Reverse((full[layer], layer)))
        else {
            break;
        };
        chosen[layer][head] = true;
        full[layer] += 1;
    }
    chosen
}

fn ones(row: &[bool]) -> usize {
    row.iter().filter(|&&is_one| is_one).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn per_layer(values: &[Vec<f64>], cut: Cut) -> Vec<usize> {
        retrieval_heads(values, cut)
            .iter()
            .map(|row| ones(row))
            .collect()
    }

    fn share(values: &[Vec<f64>], sparsity: f64) -> Vec<usize> {
        per_layer(values, Cut::Share(sparsity))
    }

    #[test]
    fn the_largest_values_retrieve() {
        let values = vec![vec![0.9, 0.1, 0.3], vec![0.2, 0.8, 0.7]];
        let expected = vec![vec![true, false, false], vec![false, true, true]];
        assert_eq!(retrieval_heads(&values, Cut::Share(0.5)), expected);
        assert_eq!(retrieval_heads(&values, Cut::Threshold(0.7)), expected);
        assert_eq!(share(&values, 0.0), [3, 3]);
        assert_eq!(share(&values, 1.0), [0, 0]);
    }

    /// Four layers of four heads; layer 0 has two heads and layer 2 one head above all others, which are tied.
    #[test]
    fn ties_are_spread_over_layers() {
        let mut values = vec![vec![0.5; 4]; 4];
        values[0][1] = 0.9;
        values[0][3] = 0.9;
        values[2][0] = 0.9;
        // Three are above; the places left go to layers 1 and 3, which have none, then to all with one, then round again.
        for (retained, expected) in [
            (3_u8, [2, 0, 1, 0]),
            (4, [2, 1, 1, 0]),
            (5, [2, 1, 1, 1]),
            (6, [2, 2, 1, 1]),
            (7, [2, 2, 2, 1]),
            (8, [2, 2, 2, 2]),
            (9, [3, 2, 2, 2]),
            (16, [4, 4, 4, 4]),
        ] {
            let sparsity = 1.0 - f64::from(retained) / 16.0;
            assert_eq!(share(&values, sparsity), expected, "{retained} retained");
        }
        let chosen = retrieval_heads(&values, Cut::Share(0.5));
        assert_eq!(chosen[0], [false, true, false, true]);
        assert_eq!(chosen[1], [true, true, false, false]);
        assert_eq!(chosen[2], [true, true, false, false]);
    }

    /// Where many heads were left at 1, "lower layer first" would give the last layers none.
    #[test]
    fn no_layer_starves_by_its_number() {
        assert_eq!(share(&vec![vec![1.0; 8]; 32], 0.75), [2; 32]);
    }

    #[test]
    fn counts_of_the_method_page() {
        let values: Vec<Vec<f64>> = (0..32_u8)
            .map(|layer| {
                (0..8_u8)
                    .map(|head| f64::from(layer) * 8.0 + f64::from(head))
                    .collect()
            })
            .collect();
        for (sparsity, expected) in [(0.25, 192), (0.5, 128), (0.75, 64)] {
            for cut in [Cut::Share(sparsity), Cut::Quantile(sparsity)] {
                assert_eq!(
                    per_layer(&values, cut).iter().sum::<usize>(),
                    expected,
                    "{cut:?}"
                );
            }
        }
        // The authors' count, N - ceil(q * (N - 1)), is not the rounded share.
        let [exact, quantile] = [Cut::Share(0.9), Cut::Quantile(0.9)]
            .map(|cut| per_layer(&values, cut).iter().sum::<usize>());
        assert_eq!((exact, quantile), (26, 26));
        assert_eq!(per_layer(&values, Cut::Quantile(1.0)), [0; 32]);
        assert_eq!(per_layer(&values, Cut::Quantile(0.0)), [8; 32]);
    }

    #[test]
    fn a_quantile_keeps_heads_of_equal_value_together() {
        let values = vec![vec![1.0, 1.0, 1.0, 0.0]];
        assert_eq!(share(&values, 0.5), [2]);
        assert_eq!(per_layer(&values, Cut::Quantile(0.5)), [3]);
    }
}
