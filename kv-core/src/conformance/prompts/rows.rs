//! Rows of a prompt in a golden file.
use serde::Deserialize;

use super::super::geometry;
use crate::{PromptRows, Rotation, TokenClass};

/// A prompt as a plan reads it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rows {
    head_dim: usize,
    group: usize,
    scale: Option<f32>,
    softcap: Option<f32>,
    rope_base: Option<f64>,
    queries: Option<Vec<Vec<String>>>,
    keys: Option<Vec<Vec<String>>>,
    values: Option<Vec<Vec<String>>>,
    output_norms: Option<Vec<Vec<f32>>>,
    classes: Option<Vec<TokenClass>>,
}

impl Rows {
    /// Shows the rows of a prompt of `prompt` tokens.
    pub(super) fn show<R>(
        &self,
        prompt: usize,
        show: impl FnOnce(&PromptRows<'_>) -> R,
    ) -> Result<R, String> {
        let part = |part: &Option<Vec<Vec<String>>>| {
            let numbers = part.as_ref().map(|heads| self.numbers(heads, prompt));
            numbers.transpose()
        };
        let (queries, keys, values) =
            (part(&self.queries)?, part(&self.keys)?, part(&self.values)?);
        let norms = self.output_norms.as_ref().map(|heads| heads.concat());
        let rotation = |base| Rotation::of_base(base, self.head_dim, geometry(1).max_positions);
        let rotation = self.rope_base.map(rotation);
        #[expect(clippy::cast_precision_loss, reason = "a dimension is small")]
        let usual = 1.0 / (self.head_dim as f32).sqrt();
        Ok(show(&PromptRows {
            head_dim: self.head_dim,
            group: self.group,
            rows: prompt,
            scale: self.scale.unwrap_or(usual),
            softcap: self.softcap,
            queries: queries.as_deref(),
            keys: keys.as_deref(),
            values: values.as_deref(),
            rotation: rotation.as_ref(),
            output_norms: norms.as_deref(),
            classes: self.classes.as_deref(),
        }))
    }

    /// `[H, n, D]`, from a text for each token.
    fn numbers(&self, heads: &[Vec<String>], prompt: usize) -> Result<Vec<f32>, String> {
        let mut numbers = Vec::new();
        for head in heads {
            if head.len() != prompt {
                return Err(format!("{} rows of a prompt of {prompt}", head.len()));
            }
            for row in head {
                let (digits, rest) = row.as_bytes().as_chunks::<8>();
                if digits.len() != self.head_dim || !rest.is_empty() {
                    return Err(format!("`{row}` is not {} numbers", self.head_dim));
                }
                let number = |digits: &[u8; 8]| {
                    let digits = str::from_utf8(digits).ok()?;
                    u32::from_str_radix(digits, 16).ok().map(f32::from_bits)
                };
                let read: Option<Vec<f32>> = digits.iter().map(number).collect();
                numbers.extend(read.ok_or_else(|| format!("`{row}` is not hexadecimal"))?);
            }
        }
        Ok(numbers)
    }
}
