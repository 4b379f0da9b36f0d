//! Prompts with the same text to compress: one cache, which all of them hold until they differ.
//!
//! Within a batch, a sequence takes up layer by layer what an earlier one with the same text has kept: `n` answers to one prompt, or
//! questions behind one prefix. From one batch to the next, what stays of a prefix is kept as an idle cache of its own.
use candle_core::Result;
use kv_core::{CacheError, Cadence};

use super::pass::{Backend, Pass, cache_error};

/// Has the batch's sequence `index` hold what an earlier one has kept of this layer that compresses the same `length` tokens, with the
/// same keys and values (tokens that stand for an image are alike, and it is not); `false` if there is none, or no room for the copies
/// that may become due.
pub(super) fn share_with_twin<B: Backend + ?Sized>(
    backend: &B,
    pass: &mut Pass<'_>,
    rows: &B::Rows,
    (index, length): (usize, usize),
) -> Result<bool> {
    if pass.terms(index).needs.cadence == Cadence::Cascade {
        return Ok(false); // layers are cut again while the prompt is read
    }
    let is_twin = |&earlier: &usize| {
        pass.compresses_as_much(earlier, index, length)
            && backend.has_same_rows(pass, rows, [earlier, index], length)
    };
    let Some(twin) = (0..index).find(is_twin) else {
        return Ok(false);
    };
    let (twin, seq) = (pass.seq(twin), pass.seq(index));
    match pass.ledger.share_layer(twin, seq, pass.layer) {
        Ok(()) => Ok(true),
        Err(CacheError::Full(_)) => Ok(false),
        Err(error) => Err(cache_error(error)),
    }
}

impl Pass<'_> {
    /// Whether the batch's sequence `earlier` compresses `length` tokens under the same terms as the one at `index`.
    fn compresses_as_much(&self, earlier: usize, index: usize, length: usize) -> bool {
        let span = self.span(earlier);
        (span.first, span.compressed) == (0, length)
            && !self.goes_on(earlier)
            && self.terms(earlier).keeps_as(&self.terms(index))
    }

    /// Adds what this layer keeps of a prefix of `length` tokens to the cache of that prefix, which nobody else makes. Where there is no
    /// room for the copies that may become due, no cache is kept.
    pub(super) fn share_prefix(&mut self, index: usize, length: usize) -> Result<()> {
        let (seq, terms) = (self.seq(index), self.terms(index));
        if !self.idle.is_on() || terms.prefix != Some(length) {
            return Ok(());
        }
        let Some(open) = self.open.get_mut(&seq) else {
            return Ok(());
        };
        if self.layer == 0 {
            open.prefix = Some(self.idle.begin(self.ledger, seq).map_err(cache_error)?);
        }
        let Some(prefix) = open.prefix else {
            return Ok(());
        };
        match self.ledger.share_layer(seq, prefix, self.layer) {
            Ok(()) => Ok(()),
            Err(CacheError::Full(_)) => {
                self.idle.abandon(self.ledger, prefix);
                open.prefix = None;
                Ok(())
            }
            Err(error) => Err(cache_error(error)),
        }
    }

    /// Keeps the caches of prefixes that all layers have added to.
    pub(super) fn keep_prefixes(&mut self) {
        for index in 0..self.call.batch.seq_ids.len() {
            let (seq, terms) = (self.seq(index), self.terms(index));
            let Some(open) = self.open.get_mut(&seq) else {
                continue;
            };
            if let (Some(name), Some(length)) = (open.prefix.take(), terms.prefix) {
                let tokens = open.tokens[..length].to_vec();
                self.idle.keep_prefix(self.ledger, name, (tokens, terms));
            }
        }
    }
}
