//! How much a cache may hold, and how an amount is split.
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ConfigError, Geometry};

/// How many tokens a KV head may hold, as an average over the heads of a layer.
///
/// Written as `256` (tokens), `25%` (of the prompt), `64MiB` (pages of one sequence, all layers together) or `full`.
///
/// ```
/// use kv_core::Budget;
/// assert_eq!("256".parse(), Ok(Budget::Tokens(256)));
/// assert_eq!("25%".parse(), Ok(Budget::Ratio(0.25)));
/// assert_eq!("1.5 MiB".parse(), Ok(Budget::Bytes(1_572_864)));
/// assert_eq!(Budget::Bytes(1_572_864).to_string(), "1.5MiB");
/// assert!("0%".parse::<Budget>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Budget {
    /// No limit.
    #[default]
    Full,
    /// So many tokens.
    Tokens(usize),
    /// This share of the prompt, above 0 and at most 1.
    Ratio(f64),
    /// So many bytes of pages for one sequence.
    Bytes(u64),
}

/// The text does not describe a budget.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`budget` is `{0}`, must be tokens per KV head from 1 (`256`), a share of the prompt above 0% and at most 100% \
         (`25%`), bytes per sequence (`64MiB`) or `full`"
)]
pub struct ParseBudgetError(String);

const UNITS: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

impl FromStr for Budget {
    type Err = ParseBudgetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseBudgetError(text.to_owned());
        let trimmed = text.trim();
        if trimmed == "full" {
            return Ok(Self::Full);
        }
        if let Some(percent) = trimmed.strip_suffix('%') {
            let share = percent.trim().parse::<f64>().map_err(|_| refuse())? / 100.0;
            return if share > 0.0 && share <= 1.0 {
                Ok(Self::Ratio(share))
            } else {
                Err(refuse())
            };
        }
        for (unit, size) in UNITS {
            if let Some(amount) = trimmed.strip_suffix(unit) {
                let amount: f64 = amount.trim().parse().map_err(|_| refuse())?;
                return bytes(amount, size).map(Self::Bytes).ok_or_else(refuse);
            }
        }
        match trimmed.parse() {
            Ok(tokens) if tokens > 0 => Ok(Self::Tokens(tokens)),
            _ => Err(refuse()),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be a positive amount below 2^53"
)]
fn bytes(amount: f64, unit: u64) -> Option<u64> {
    let bytes = amount * unit as f64;
    (bytes >= 1.0 && bytes < (1_u64 << 53) as f64).then_some(bytes as u64)
}

impl fmt::Display for Budget {
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Full => f.write_str("full"),
            Self::Tokens(tokens) => write!(f, "{tokens}"),
            Self::Ratio(share) => write!(f, "{}%", share * 100.0),
            Self::Bytes(bytes) => {
                let (unit, size) = UNITS
                    .into_iter()
                    .find(|&(_, size)| bytes >= size)
                    .unwrap_or(("B", 1));
                write!(f, "{}{unit}", bytes as f64 / size as f64)
            }
        }
    }
}

impl TryFrom<String> for Budget {
    type Error = ParseBudgetError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Budget> for String {
    fn from(budget: Budget) -> Self {
        budget.to_string()
    }
}

impl Budget {
    /// Tokens per KV head for a prompt of `prompt` tokens, at least 1. [`Budget::Full`] is `usize::MAX`.
    ///
    /// A share is rounded down. Bytes buy whole pages for every head, so that heads of equal length stay within them; heads
    /// that split a layer's tokens may begin a page more each.
    #[must_use]
    pub fn tokens(&self, geometry: &Geometry, prompt: usize) -> usize {
        match *self {
            Self::Full => usize::MAX,
            Self::Tokens(tokens) => tokens,
            Self::Ratio(share) => share_of(prompt, share).max(1),
            Self::Bytes(bytes) => Self::tokens_for(bytes, geometry).max(1),
        }
    }

    /// The number of tokens if it is the same for every prompt.
    #[must_use]
    pub fn fixed_tokens(&self, geometry: &Geometry) -> Option<usize> {
        match self {
            Self::Tokens(_) | Self::Bytes(_) => Some(self.tokens(geometry, 0)),
            Self::Full | Self::Ratio(_) => None,
        }
    }

    fn tokens_for(bytes: u64, geometry: &Geometry) -> usize {
        let pages = usize::try_from(bytes).unwrap_or(usize::MAX) / geometry.page_bytes();
        pages / geometry.heads() * geometry.block
    }

    /// Checks that the budget buys at least a token per head of this model.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Budget`] with the smallest amount that would do.
    pub fn check(&self, geometry: &Geometry) -> Result<(), ConfigError> {
        let refuse = |allowed: String| {
            Err(ConfigError::Budget {
                value: self.to_string(),
                allowed,
            })
        };
        match *self {
            Self::Tokens(0) => refuse("at least 1 token per KV head".into()),
            Self::Ratio(share) if !(share > 0.0 && share <= 1.0) => {
                refuse("above 0% and at most 100% of the prompt".into())
            }
            Self::Bytes(bytes) if Self::tokens_for(bytes, geometry) == 0 => {
                let least = geometry.heads() * geometry.page_bytes();
                refuse(format!(
                    "at least {least}B: one page of {} bytes for each of {} KV heads",
                    geometry.page_bytes(),
                    geometry.heads()
                ))
            }
            _ => Ok(()),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "token counts are far below 2^52 and the share is between 0 and 1"
)]
fn share_of(prompt: usize, share: f64) -> usize {
    // A share written in percent is rarely a binary fraction: 29 % of 100 must be 29, not 28.999.
    (prompt as f64 * share + 1e-9) as usize
}

/// Splits `total` in proportion to `weights`, at most `limits[i]` for the `i`-th, by largest remainder.
///
/// What a limit leaves over goes to the others, again in proportion to their weights. Equal remainders go to the lower
/// index. NaN and negative weights count as 0; if every weight is 0 the split is even. The result sums to `total`, or
/// to the sum of the limits if that is less.
///
/// ```
/// assert_eq!(kv_core::apportion(10, &[1.0, 1.0, 1.0], &[10, 10, 10]), [4, 3, 3]);
/// assert_eq!(kv_core::apportion(10, &[8.0, 1.0, 1.0], &[4, 10, 10]), [4, 3, 3]);
/// ```
///
/// # Panics
///
/// If `weights` and `limits` differ in length.
#[must_use]
pub fn apportion(total: usize, weights: &[f64], limits: &[usize]) -> Vec<usize> {
    assert_eq!(weights.len(), limits.len(), "one limit for each weight");
    let mut parts = vec![0; weights.len()];
    let mut left = total.min(
        limits
            .iter()
            .fold(0, |sum: usize, &limit| sum.saturating_add(limit)),
    );
    let mut open: Vec<usize> = (0..weights.len()).filter(|&i| limits[i] > 0).collect();
    while left > 0 && !open.is_empty() {
        let shares = quotas(left, &open, weights);
        // Whoever would exceed the limit gets just the limit; the rest is split anew among the others.
        let (full, others): (Vec<_>, Vec<_>) = open
            .iter()
            .zip(&shares)
            .partition(|&(&i, &share)| share >= limits[i]);
        if full.is_empty() {
            for (&i, share) in open.iter().zip(shares) {
                parts[i] = share;
            }
            return parts;
        }
        for (&i, _) in full {
            parts[i] = limits[i];
            left -= limits[i];
        }
        open = others.into_iter().map(|(&i, _)| i).collect();
    }
    parts
}

/// Largest-remainder split of `total` among the indices in `open`, without limits.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "token counts are far below 2^52"
)]
fn quotas(total: usize, open: &[usize], weights: &[f64]) -> Vec<usize> {
    let weight = |i: usize| if weights[i] > 0.0 { weights[i] } else { 0.0 };
    let sum: f64 = open.iter().map(|&i| weight(i)).sum();
    let exact: Vec<f64> = open
        .iter()
        .map(|&i| {
            let share = if sum > 0.0 && sum.is_finite() {
                weight(i) / sum
            } else {
                1.0 / open.len() as f64
            };
            total as f64 * share
        })
        .collect();
    let mut parts: Vec<usize> = exact.iter().map(|&quota| quota.floor() as usize).collect();
    let given: usize = parts.iter().sum();
    let mut order: Vec<usize> = (0..open.len()).collect();
    order.sort_by(|&a, &b| {
        (exact[b].fract())
            .total_cmp(&exact[a].fract())
            .then(a.cmp(&b))
    });
    for &i in order.iter().cycle().take(total.saturating_sub(given)) {
        parts[i] += 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry = Geometry {
        layers: 2,
        kv_heads: 3,
        group: 3,
        head_dim: 64,
        block: 32,
        element_bytes: 4,
        max_positions: 2048,
    };

    #[test]
    fn what_is_written_is_read_back() {
        for text in [
            "full", "1", "256", "25%", "12.5%", "100%", "64MiB", "1.5MiB", "3GiB", "17B",
        ] {
            let budget: Budget = text.parse().expect(text);
            assert_eq!(budget.to_string(), text);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_text() {
        for text in [
            "",
            "0",
            "-1",
            "0%",
            "101%",
            "nan%",
            "inf%",
            "0MiB",
            "-3MiB",
            "many",
            "1e99GiB",
            "25 percent",
        ] {
            let error = text.parse::<Budget>().expect_err(text);
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn a_share_is_rounded_down_and_bytes_buy_whole_pages() {
        assert_eq!(Budget::Ratio(0.29).tokens(&GEOMETRY, 100), 29);
        assert_eq!(Budget::Ratio(0.25).tokens(&GEOMETRY, 1003), 250);
        assert_eq!(Budget::Ratio(0.1).tokens(&GEOMETRY, 3), 1);
        let page = GEOMETRY.page_bytes() as u64;
        assert_eq!(
            Budget::Bytes(page * 6 * 4 + page).tokens(&GEOMETRY, 0),
            4 * 32
        );
        assert!(Budget::Bytes(page * 6 - 1).check(&GEOMETRY).is_err());
        assert!(Budget::Bytes(page * 6).check(&GEOMETRY).is_ok());
    }

    #[test]
    fn apportion_keeps_the_total_and_the_limits() {
        assert_eq!(apportion(7, &[0.0, 0.0], &[9, 9]), [4, 3]);
        assert_eq!(apportion(7, &[f64::NAN, 1.0], &[9, 9]), [0, 7]);
        assert_eq!(apportion(7, &[1.0, 2.0, 3.0], &[0, 1, 2]), [0, 1, 2]);
        assert_eq!(apportion(100, &[1e300, 1e300], &[60, 60]), [50, 50]);
        assert_eq!(apportion(0, &[1.0], &[1]), [0]);
        assert_eq!(apportion(5, &[], &[]), [0; 0]);
    }
}
