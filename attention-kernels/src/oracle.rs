//! What the ops compute, said once and plainly.
//!
//! These functions are the definition that every backend is tested against. They are slow, allocate freely and work in `f64`; no
//! backend calls them.

mod observe;
mod prompt;
mod shift;

pub use observe::{attention_row, key_norm, observe_accumulated, observe_window};
pub use prompt::attend_prompt;
pub use shift::shift;

/// Attention of one query over the `T` tokens of one head, in `f64`.
///
/// With rows `k_t` of `keys` and `v_t` of `values` (row-major, `D` each) and `D = query.len()`:
///
/// ```text
/// s_t = scale * (query . k_t)
/// s_t = softcap * tanh(s_t / softcap)            only where a soft cap is given
/// out = sum_t exp(s_t) * v_t / sum_t exp(s_t)
/// ```
///
/// No token gives zeros. The order of the rows does not matter. A number in `query`, `keys` or `values` that is not finite makes
/// the result of this query unspecified, though never a panic.
///
/// # How close an implementation must be
///
/// For a store of 16-bit numbers, `keys` and `values` are the *rounded* rows. Over one query's `D` outputs, in the Euclidean norm,
///
/// ```text
/// ||got - want|| <= 1e-5 * max(||want||, max_t ||v_t|| / 10)
/// ```
///
/// while no `|s_t|` is above 16. The second term is for values that cancel: what is left of them keeps the error of what was summed.
/// Beyond 16 the bound grows in proportion to the largest `|s_t|`, since an `f32` score carries an error proportional to itself.
///
/// ```
/// use attention_kernels::oracle::attend;
///
/// // Two keys that the query cannot tell apart: the result is the mean of their values.
/// let out = attend(&[1.0, 5.0, 1.0, -5.0], &[0.0, 2.0, 4.0, 4.0], &[1.0, 0.0], 1.0, None);
/// assert_eq!(out, [2.0, 3.0]);
/// ```
///
/// # Panics
///
/// Where `keys` and `values` differ in length or do not divide into rows of `query.len()`.
#[must_use]
pub fn attend(
    keys: &[f32],
    values: &[f32],
    query: &[f32],
    scale: f32,
    softcap: Option<f32>,
) -> Vec<f64> {
    attend_with_front(keys, values, (query, query, 0), scale, softcap)
}

/// As [`attend`], where the first `count` tokens are scored by a query of their own: `(query, front, count)`.
///
/// ```text
/// s_t = scale * (front . k_t)                    for t < count
/// ```
///
/// # Panics
///
/// As [`attend`], and where the queries differ in length.
#[must_use]
pub fn attend_with_front(
    keys: &[f32],
    values: &[f32],
    (query, front, count): (&[f32], &[f32], usize),
    scale: f32,
    softcap: Option<f32>,
) -> Vec<f64> {
    let head_dim = query.len();
    assert_eq!(head_dim, front.len(), "queries of one length");
    assert_eq!(
        keys.len(),
        values.len(),
        "as many elements of keys as of values"
    );
    assert!(
        head_dim > 0 && keys.len().is_multiple_of(head_dim),
        "{} elements in rows of {head_dim}",
        keys.len()
    );
    let (first, rest) = keys.split_at(keys.len().min(count * head_dim));
    let mut all = scores(first, front, scale, softcap);
    all.extend(scores(rest, query, scale, softcap));
    let weights = softmax(&all);
    let mut out = vec![0.0; head_dim];
    for (weight, value) in weights.iter().zip(values.chunks_exact(head_dim)) {
        for (out, &value) in out.iter_mut().zip(value) {
            *out += weight * f64::from(value);
        }
    }
    out
}

/// The scores `s_t` of [`attend`], one per token.
///
/// # Panics
///
/// Where `query` is empty.
#[must_use]
pub fn scores(keys: &[f32], query: &[f32], scale: f32, softcap: Option<f32>) -> Vec<f64> {
    keys.chunks_exact(query.len())
        .map(|key| {
            let products = key.iter().zip(query);
            let dot: f64 = products.map(|(&k, &q)| f64::from(k) * f64::from(q)).sum();
            let score = f64::from(scale) * dot;
            softcap.map_or(score, |cap| {
                f64::from(cap) * (score / f64::from(cap)).tanh()
            })
        })
        .collect()
}

/// `exp(s_t) / sum_t exp(s_t)`.
fn softmax(scores: &[f64]) -> Vec<f64> {
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights = scores.iter().map(|score| (score - highest).exp());
    let total: f64 = weights.clone().sum();
    weights.map(|weight| weight / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_gives_zeros() {
        assert_eq!(attend(&[], &[], &[1.0, 2.0], 1.0, None), [0.0, 0.0]);
    }

    #[test]
    fn one_token_gives_its_value_whatever_the_score() {
        for query in [0.0, -3.0e4, 2.0e4] {
            let out = attend(&[5.0], &[7.0], &[query], 1.0, Some(30.0));
            assert_eq!(out, [7.0]);
        }
    }

    /// Scores 0 and ln 3 weigh 1 : 3.
    #[test]
    fn weights_by_hand() {
        let out = attend(&[0.0, 2.0], &[0.0, 8.0], &[3.0_f32.ln()], 0.5, None);
        assert!((out[0] - 6.0).abs() < 1e-6, "{out:?}");
    }

    /// 10 * tanh(20 / 10) = 9.640..., and the cap comes after the scale.
    #[test]
    fn softcap_by_hand() {
        let got = scores(&[4.0], &[10.0], 0.5, Some(10.0));
        assert!((got[0] - 9.640_275_800_758_169).abs() < 1e-12, "{got:?}");
    }
}
