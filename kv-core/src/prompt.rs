//! What of a prompt a plan may read itself, beside scores.
use std::fmt;

use serde::{Deserialize, Serialize};

/// Which parts of a prompt [`Policy::plan`](crate::Policy::plan) reads. Each costs the host a copy to where policies run,
/// once per layer and prompt; one that is not named costs nothing, and reading it is a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reads {
    /// Queries after `RoPE`: [`LayerView::queries`](crate::LayerView::queries).
    pub queries: bool,
    /// Keys after `RoPE`: [`LayerView::keys`](crate::LayerView::keys).
    pub keys: bool,
    /// Values: [`LayerView::values`](crate::LayerView::values).
    pub values: bool,
    /// How the model turns queries and keys: [`LayerView::rotation`](crate::LayerView::rotation).
    pub rotation: bool,
    /// What the values weigh behind the output projection: [`LayerView::output_norms`](crate::LayerView::output_norms).
    pub output_norms: bool,
    /// What kind of text the tokens are: [`LayerView::classes`](crate::LayerView::classes).
    pub classes: bool,
}

impl Reads {
    /// Nothing.
    pub const NONE: Self = Self {
        queries: false,
        keys: false,
        values: false,
        rotation: false,
        output_norms: false,
        classes: false,
    };

    /// Whether anything is read.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::NONE
    }

    /// What either of two reads.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            queries: self.queries | other.queries,
            keys: self.keys | other.keys,
            values: self.values | other.values,
            rotation: self.rotation | other.rotation,
            output_norms: self.output_norms | other.output_norms,
            classes: self.classes | other.classes,
        }
    }
}

impl fmt::Display for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.queries, "queries"),
            (self.keys, "keys"),
            (self.values, "values"),
            (self.rotation, "the rotation"),
            (self.output_norms, "output norms"),
            (self.classes, "token classes"),
        ];
        let read: Vec<&str> = parts
            .iter()
            .filter(|(is_read, _)| *is_read)
            .map(|(_, name)| *name)
            .collect();
        if read.is_empty() {
            return f.write_str("nothing of the prompt");
        }
        f.write_str(&read.join(", "))
    }
}

/// One layer's prompt as a host shows it: row-major, `T` rows for each head, of which the first `n` are the prompt's.
#[derive(Debug, Clone, Copy, Default)]
pub struct PromptRows<'a> {
    /// Dimension of a row, `D`.
    pub head_dim: usize,
    /// Query heads per KV head, `G`.
    pub group: usize,
    /// Rows of each head, `T`.
    pub rows: usize,
    /// Factor on the logits.
    pub scale: f32,
    /// Cap on the logits, `cap * tanh(logit / cap)`.
    pub softcap: Option<f32>,
    /// Queries after `RoPE`, `[H * G, T, D]`.
    pub queries: Option<&'a [f32]>,
    /// Keys after `RoPE`, `[H, T, D]`.
    pub keys: Option<&'a [f32]>,
    /// Values, `[H, T, D]`.
    pub values: Option<&'a [f32]>,
    /// How the model turns queries and keys.
    pub rotation: Option<&'a Rotation>,
    /// Norms of the values behind the output projection, `[H, T]`.
    pub output_norms: Option<&'a [f32]>,
    /// What kind of text each token is, `[n]`.
    pub classes: Option<&'a [TokenClass]>,
}

/// What kind of text a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenClass {
    /// Text.
    #[default]
    Plain,
    /// A control token of the tokenizer, for example the start of the text or the end of a turn.
    Special,
    /// Punctuation and nothing else, apart from blanks.
    Punctuation,
}

/// How a model turns queries and keys by their position, `RoPE`: for each position `p` and each pair of dimensions, the
/// cosine and the sine of an angle. Dimensions behind the last pair are not turned.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    pairs: usize,
    /// `[P, pairs]`.
    cos: Vec<f32>,
    /// `[P, pairs]`.
    sin: Vec<f32>,
    is_adjacent: bool,
}

impl Rotation {
    /// From tables of `[P, pairs]`. `is_adjacent`: pair `i` is the dimensions `2 i` and `2 i + 1`, as in GPT-J; else `i` and
    /// `i + pairs`, as in GPT-NeoX and Llama.
    ///
    /// # Panics
    ///
    /// If `pairs` is zero, or if the tables differ in length or hold no whole number of positions.
    #[must_use]
    pub fn new(pairs: usize, cos: Vec<f32>, sin: Vec<f32>, is_adjacent: bool) -> Self {
        assert!(pairs > 0, "a rotation of no dimensions");
        assert_eq!(cos.len(), sin.len(), "as many sines as cosines");
        assert_eq!(cos.len() % pairs, 0, "whole positions of {pairs} pairs");
        Self {
            pairs,
            cos,
            sin,
            is_adjacent,
        }
    }

    /// The usual angles, `position / base^(2 i / dims)`, for `positions` positions and the first `dims` dimensions of a
    /// head, in halves as Llama's.
    ///
    /// # Panics
    ///
    /// If `dims` is odd or zero.
    #[must_use]
    pub fn of_base(base: f64, dims: usize, positions: usize) -> Self {
        assert!(
            dims > 0 && dims.is_multiple_of(2),
            "a rotation of {dims} dimensions"
        );
        let pairs = dims / 2;
        let angle = |position: usize, pair: usize| {
            let turn = as_float(2 * pair) / as_float(dims);
            as_float(position) / base.powf(turn)
        };
        let all = (0..positions).flat_map(|p| (0..pairs).map(move |pair| angle(p, pair)));
        let (sin, cos) = all
            .map(f64::sin_cos)
            .map(|(s, c)| (narrow(s), narrow(c)))
            .unzip();
        Self::new(pairs, cos, sin, false)
    }

    /// Positions that the tables cover, `P`.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.cos.len() / self.pairs
    }

    /// Pairs of dimensions that are turned.
    #[must_use]
    pub const fn pairs(&self) -> usize {
        self.pairs
    }

    /// All cosines and all sines, `[P, pairs]` each.
    #[must_use]
    pub fn tables(&self) -> (&[f32], &[f32]) {
        (&self.cos, &self.sin)
    }

    /// Whether pair `i` is the dimensions `2 i` and `2 i + 1`; else `i` and `i + pairs`.
    #[must_use]
    pub const fn is_adjacent(&self) -> bool {
        self.is_adjacent
    }

    /// Whether turning by one position and then by another is turning by both, as far as `tolerance` in every cosine and sine: then a key can be
    /// moved. Tables that scale queries and keys besides, or that are made for two ranges of positions, are not.
    #[must_use]
    pub fn adds_up(&self, tolerance: f32) -> bool {
        let last = self.positions().saturating_sub(1);
        let sums = [
            (0, 0),
            (1, 1),
            (last / 3, last / 2),
            (last / 2, last - last / 2),
        ];
        let mut sums = sums.into_iter().filter(|(one, other)| one + other <= last);
        sums.all(|(one, other)| {
            let ((cos_a, sin_a), (cos_b, sin_b)) = (self.angles(one), self.angles(other));
            let (cos, sin) = self.angles(one + other);
            (0..self.pairs).all(|pair| {
                let (ca, sa, cb, sb) = (cos_a[pair], sin_a[pair], cos_b[pair], sin_b[pair]);
                (ca * cb - sa * sb - cos[pair]).abs() <= tolerance
                    && (sa * cb + ca * sb - sin[pair]).abs() <= tolerance
            })
        })
    }

    /// The two dimensions of a pair.
    #[must_use]
    pub const fn dims(&self, pair: usize) -> (usize, usize) {
        if self.is_adjacent {
            (2 * pair, 2 * pair + 1)
        } else {
            (pair, pair + self.pairs)
        }
    }

    /// Cosines and sines of a position, one for each pair.
    ///
    /// # Panics
    ///
    /// If the tables do not cover the position.
    #[must_use]
    pub fn angles(&self, position: usize) -> (&[f32], &[f32]) {
        let row = position * self.pairs..(position + 1) * self.pairs;
        (&self.cos[row.clone()], &self.sin[row])
    }

    /// Undoes the turn of a query or key at a position: `row` is its `D` dimensions.
    ///
    /// # Panics
    ///
    /// If the tables do not cover the position, or the row is shorter than what is turned.
    pub fn turn_back(&self, position: usize, row: &mut [f32]) {
        let (cos, sin) = self.angles(position);
        for (pair, (cos, sin)) in cos.iter().zip(sin).enumerate() {
            let (a, b) = self.dims(pair);
            let (x, y) = (row[a], row[b]);
            row[a] = x * cos + y * sin;
            row[b] = y * cos - x * sin;
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "positions and dimensions are far below 2^52"
)]
const fn as_float(number: usize) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a sine or cosine, rounded once"
)]
const fn narrow(number: f64) -> f32 {
    number as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns a row as the definition says.
    fn turn(rotation: &Rotation, position: usize, row: &[f32]) -> Vec<f32> {
        let mut turned = row.to_vec();
        let (cos, sin) = rotation.angles(position);
        for pair in 0..rotation.pairs() {
            let (a, b) = rotation.dims(pair);
            turned[a] = row[a] * cos[pair] - row[b] * sin[pair];
            turned[b] = row[b] * cos[pair] + row[a] * sin[pair];
        }
        turned
    }

    #[test]
    fn plain_tables_add_up_and_others_do_not() {
        let plain = Rotation::of_base(10_000.0, 8, 2048);
        assert!(plain.adds_up(1e-5) && Rotation::of_base(10_000.0, 8, 1).adds_up(1e-5));
        let (cos, sin) = plain.tables();
        let scaled = |factor: f32| {
            let by = |table: &[f32]| table.iter().map(|x| x * factor).collect();
            Rotation::new(plain.pairs(), by(cos), by(sin), true)
        };
        assert!(!scaled(1.1).adds_up(1e-2));
        // The second half as another model's.
        let (half, slow) = (cos.len() / 2, Rotation::of_base(1_000_000.0, 8, 2048));
        let joined = |one: &[f32], other: &[f32]| [&one[..half], &other[half..]].concat();
        let (slow_cos, slow_sin) = slow.tables();
        let two = Rotation::new(4, joined(cos, slow_cos), joined(sin, slow_sin), false);
        assert!(!two.adds_up(1e-2));
    }

    #[test]
    fn what_is_turned_is_turned_back() {
        let halves = Rotation::of_base(10_000.0, 6, 50);
        let adjacent = Rotation {
            is_adjacent: true,
            ..halves.clone()
        };
        // Two dimensions are not turned.
        let row = [0.5, -1.0, 2.0, 0.25, -3.0, 1.5, 7.0, 8.0];
        for rotation in [halves, adjacent] {
            for position in [0, 1, 49] {
                let mut turned = turn(&rotation, position, &row);
                assert_eq!(position == 0, turned == row);
                assert_eq!(turned[6..], row[6..]);
                rotation.turn_back(position, &mut turned);
                for (got, expected) in turned.iter().zip(row) {
                    assert!((got - expected).abs() < 1e-5, "{turned:?}");
                }
            }
        }
    }

    #[test]
    fn the_first_pair_turns_by_one_radian_a_token() {
        let rotation = Rotation::of_base(10_000.0, 4, 8);
        let (cos, sin) = rotation.angles(3);
        assert!((cos[0] - 3.0_f32.cos()).abs() < 1e-6 && (sin[0] - 3.0_f32.sin()).abs() < 1e-6);
        assert!((cos[1] - 0.03_f32.cos()).abs() < 1e-6 && (sin[1] - 0.03_f32.sin()).abs() < 1e-6);
        assert_eq!((rotation.positions(), rotation.dims(1)), (8, (1, 3)));
    }

    #[test]
    fn reads_are_joined() {
        let keys = Reads {
            keys: true,
            ..Reads::NONE
        };
        let values = Reads {
            values: true,
            ..Reads::NONE
        };
        assert!(keys.any() && !Reads::NONE.any());
        assert_eq!(keys.or(values).to_string(), "keys, values");
        assert_eq!(Reads::NONE.to_string(), "nothing of the prompt");
        assert_eq!(
            keys.or(values),
            Reads {
                keys: true,
                values: true,
                ..Reads::NONE
            }
        );
    }
}
