//! What decode steps see, entered into the slots.
use super::Ledger;
use crate::{CacheError, HeadTable, Needs, Observation, SeqId};

impl Ledger {
    /// Enters what a decode step saw of a layer, the rows of its heads one after the other, by slot: as the latest observation
    /// they take the place of the scores, else they are added. Where the heads share one score, a token is given the mean over
    /// the heads that hold it.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`].
    ///
    /// # Panics
    ///
    /// If the model has no such layer, or if there are not as many numbers as the heads hold tokens.
    pub fn note_rows(
        &mut self,
        seq: SeqId,
        layer: usize,
        needs: &Needs,
        rows: &[f32],
    ) -> Result<(), CacheError> {
        let first = self.geometry.head_index(layer, 0);
        let heads = first..first + self.geometry.kv_heads;
        let sequence = self
            .sequences
            .get_mut(&seq)
            .ok_or(CacheError::UnknownSequence(seq))?;
        let tables = &mut sequence.heads[heads];
        let held: usize = tables.iter().map(HeadTable::len).sum();
        assert_eq!(rows.len(), held, "a number for each token held");
        let adds = needs.observation != Observation::Latest;
        let means = &mut self.scratch.means;
        if needs.reduction.shared {
            means.note(tables, rows, adds);
            return Ok(());
        }
        let mut rest = rows;
        for table in tables {
            let row;
            (row, rest) = rest.split_at(table.len());
            enter(table.scores_mut(), row, adds);
        }
        Ok(())
    }
}

/// What the heads that hold a token saw of it.
#[derive(Debug, Default)]
pub(super) struct Means {
    /// By slot, where all heads hold the same tokens in the same slots.
    sums: Vec<f64>,
    /// By position, where they do not: the sum and the number of heads.
    ragged: Vec<(f64, u32)>,
    means: Vec<f32>,
}

impl Means {
    /// Gives every token the mean over the heads that hold it.
    fn note(&mut self, tables: &mut [HeadTable], rows: &[f32], adds: bool) {
        let first = tables.first().map_or(&[][..], |table| &table.positions);
        if tables.iter().all(|table| table.positions == first) {
            let tokens = first.len();
            self.note_even(tables, (rows, tokens), adds);
        } else {
            self.note_ragged(tables, rows, adds);
        }
    }

    fn note_even(&mut self, tables: &mut [HeadTable], (rows, tokens): (&[f32], usize), adds: bool) {
        self.sums.clear();
        self.sums.resize(tokens, 0.0);
        for row in rows.chunks_exact(tokens.max(1)) {
            for (sum, &seen) in self.sums.iter_mut().zip(row) {
                *sum += f64::from(seen);
            }
        }
        let heads = tables.len() as f64;
        self.means.clear();
        self.means
            .extend(self.sums.iter().map(|&sum| mean(sum, heads)));
        for table in tables {
            enter(table.scores_mut(), &self.means, adds);
        }
    }

    fn note_ragged(&mut self, tables: &mut [HeadTable], rows: &[f32], adds: bool) {
        self.ragged.clear();
        let tokens = tables.iter().flat_map(|table| &table.positions);
        for (position, &seen) in tokens.zip(rows) {
            let at = position.index();
            if at >= self.ragged.len() {
                self.ragged.resize(at + 1, (0.0, 0));
            }
            let (sum, heads) = &mut self.ragged[at];
            *sum += f64::from(seen);
            *heads += 1;
        }
        for table in tables {
            self.means.clear();
            self.means.extend(table.positions.iter().map(|position| {
                let (sum, heads) = self.ragged[position.index()];
                mean(sum, f64::from(heads))
            }));
            enter(table.scores_mut(), &self.means, adds);
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a mean of a few heads, rounded once"
)]
fn mean(sum: f64, heads: f64) -> f32 {
    (sum / heads) as f32
}

/// Enters what was seen of each slot.
fn enter(scores: &mut [f32], row: &[f32], adds: bool) {
    if adds {
        let slots = scores.iter_mut().zip(row);
        slots.for_each(|(score, seen)| *score += seen);
    } else {
        scores.copy_from_slice(row);
    }
}
