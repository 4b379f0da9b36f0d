//! What a reference kept.
use crate::{
    arrays::Arrays,
    case::{Case, Granularity},
    error::Stop,
    npy::Array,
};

/// Kept positions, `[L, steps, H, T]` in bits.
#[derive(Debug)]
pub(crate) struct Mask {
    bits: Vec<u8>,
    pub(crate) layers: usize,
    /// One where a case has no steps.
    pub(crate) steps: usize,
    pub(crate) heads: usize,
    pub(crate) tokens: usize,
}

impl Mask {
    pub(crate) fn read(case: &Case, arrays: &Arrays) -> Result<Self, Stop> {
        let (layers, steps, heads, tokens) = match *case.shape {
            [layers, heads, tokens] => (layers, 1, heads, tokens),
            [layers, steps, heads, tokens] => (layers, steps, heads, tokens),
            _ => {
                return Err(Stop::case(format!(
                    "`shape` is {:?}, not [layers, heads, tokens]",
                    case.shape
                )));
            }
        };
        if case.shape.contains(&0) {
            return Err(Stop::case(format!("`shape` is {:?}", case.shape)));
        }
        let Array { values: bits, dims } = arrays.bytes(&case.keep)?;
        let mut expected = case.shape.clone();
        if let Some(last) = expected.last_mut() {
            *last = last.div_ceil(8);
        }
        if dims != expected {
            let reason = format!(
                "its shape is {dims:?}, not {expected:?} for a mask of {:?}",
                case.shape
            );
            return Err(arrays.wrong(&case.keep, reason).into());
        }
        let mask = Self {
            bits,
            layers,
            steps,
            heads,
            tokens,
        };
        mask.check(case, arrays)?;
        Ok(mask)
    }

    /// Refuses a mask that is not one of the model that the tensors are from.
    fn check(&self, case: &Case, arrays: &Arrays) -> Result<(), Stop> {
        let shape = arrays.shape();
        let heads = match case.granularity {
            Granularity::KvHead => shape.kv_heads,
            Granularity::QueryHead => shape.query_heads,
        };
        if self.heads != heads {
            return Err(Stop::case(format!(
                "`shape` names {} heads, the arrays have {heads}",
                self.heads
            )));
        }
        if self.tokens > shape.tokens {
            return Err(Stop::case(format!(
                "`shape` names {} tokens, the arrays have {}",
                self.tokens, shape.tokens
            )));
        }
        Ok(())
    }

    /// Positions kept in every head, ascending, `[H][..]`.
    pub(crate) fn kept(&self, layer: usize, step: usize) -> Vec<Vec<u32>> {
        let row_bytes = self.tokens.div_ceil(8);
        let first = (layer * self.steps + step) * self.heads;
        let rows = self.bits[first * row_bytes..(first + self.heads) * row_bytes].chunks(row_bytes);
        let is_kept = |row: &[u8], token: usize| row[token / 8] & (0x80 >> (token % 8)) != 0;
        let positions = |row| {
            (0_u32..)
                .zip(0..self.tokens)
                .filter(|&(_, token)| is_kept(row, token))
                .map(|(position, _)| position)
                .collect()
        };
        rows.map(positions).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_read_from_the_most_significant_one() {
        let mask = Mask {
            bits: vec![0b1000_0001, 0b0100_0000, 0, 0b1111_1111],
            layers: 1,
            steps: 1,
            heads: 2,
            tokens: 10,
        };
        // Padding behind the last token is not read.
        assert_eq!(mask.kept(0, 0), [vec![0, 7, 9], vec![8, 9]]);
    }
}
