//! What [`shift`](crate::shift()) computes.

use crate::{RopeStyle, ShiftArgs};

/// A key moved by `by` positions, `D` numbers in `f64`. The rows of `args` are not looked at.
///
/// With the elements `a_i`, `b_i` of pair `i` of `R / 2`, as [`RopeStyle`] says, and the tables' row `|by|`:
///
/// ```text
/// s_i  = sin_i, or -sin_i where by < 0
/// a_i' = a_i * cos_i - b_i * s_i
/// b_i' = a_i * s_i   + b_i * cos_i
/// ```
///
/// The elements from `R` on stay, and all do where `by` is 0.
///
/// # How close an implementation must be
///
/// `key` is the row as it is in the store. For both elements of a pair,
///
/// ```text
/// |got - want| <= (2^-22 + u) * sqrt(a_i^2 + b_i^2) + t
/// ```
///
/// while nothing overflows, for the store rounds the result once more: `u` is 0 for `f32`, `2^-11` for `f16` and `2^-8` for `bf16`;
/// `t`, for numbers below the type's normal range, is `2^-148`, `2^-25` and `2^-133`. What is said to stay keeps every bit.
///
/// ```
/// use attention_kernels::{RopeStyle, ShiftArgs, oracle};
///
/// // Two pairs, turned by a quarter and by a half per position.
/// let args = ShiftArgs {
///     rows: &[],
///     cos: &[1.0, 1.0, 0.0, -1.0],
///     sin: &[0.0, 0.0, 1.0, 0.0],
///     rotary_dim: 4,
///     style: RopeStyle::Interleaved,
/// };
/// assert_eq!(oracle::shift(&[1.0, 2.0, 3.0, 4.0, 5.0], 1, &args), [-2.0, 1.0, -3.0, -4.0, 5.0]);
/// ```
///
/// # Panics
///
/// Where the op refuses the arguments' shapes or `by`.
#[must_use]
pub fn shift(key: &[f32], by: i32, args: &ShiftArgs<'_>) -> Vec<f64> {
    let mut moved: Vec<f64> = key.iter().copied().map(f64::from).collect();
    if by == 0 {
        return moved;
    }
    let pairs = args.rotary_dim / 2;
    let row = by.unsigned_abs() as usize * pairs;
    for pair in 0..pairs {
        let (first, second) = match args.style {
            RopeStyle::Halves => (pair, pairs + pair),
            RopeStyle::Interleaved => (2 * pair, 2 * pair + 1),
        };
        let (a, b) = (moved[first], moved[second]);
        let cos = f64::from(args.cos[row + pair]);
        let sin = f64::from(args.sin[row + pair]) * f64::from(by.signum());
        moved[first] = a * cos - b * sin;
        moved[second] = a * sin + b * cos;
    }
    moved
}
