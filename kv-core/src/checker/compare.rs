//! A replayed ledger against its model.
use std::collections::HashSet;

use super::{
    HeadId, Replay, Violation, check,
    model::{Token, pages},
    replay::Shadow,
};
use crate::{Geometry, Position, SeqId, Sequence, Slot};

impl Replay {
    /// Checks what is cheap enough for every call: that no call was answered wrongly, and the pool's totals.
    ///
    /// # Errors
    ///
    /// The first [`Violation`] found.
    pub fn check_totals(&self) -> Result<(), Violation> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let usage = self.ledger.pool().usage();
        let sequences = || self.ledger.sequences().map(|(_, sequence)| sequence);
        let mut pages: Vec<u32> = sequences()
            .flat_map(Sequence::heads)
            .flat_map(|table| table.page_ids().iter().copied())
            .collect();
        pages.sort_unstable();
        pages.dedup();
        if usage.held != pages.len() {
            return Err(Violation::HeldCount {
                reported: usage.held,
                peak: usage.peak,
                counted: pages.len(),
            });
        }
        let credits = sequences().map(Sequence::credit).sum();
        if usage.promised != credits {
            return Err(Violation::PromiseSum {
                promised: usage.promised,
                credits,
            });
        }
        Ok(())
    }

    /// Checks everything: the ledger as it stands ([`check`]), and every token, its bytes and its score against the
    /// model.
    ///
    /// # Errors
    ///
    /// The first [`Violation`] found.
    pub fn check(&self) -> Result<(), Violation> {
        self.check_totals()?;
        check(&self.ledger)?;
        for (seq, sequence) in self.ledger.sequences() {
            let Some(shadow) = self.sequences.get(&seq) else {
                return Err(Violation::Open {
                    seq,
                    in_ledger: true,
                });
            };
            self.check_promise(seq, (sequence, shadow))?;
            self.check_heads(seq, shadow)?;
            self.check_report(seq, shadow)?;
        }
        match self
            .sequences
            .keys()
            .find(|&&seq| self.ledger.sequence(seq).is_err())
        {
            Some(&seq) => Err(Violation::Open {
                seq,
                in_ledger: false,
            }),
            None => Ok(()),
        }
    }

    fn check_promise(
        &self,
        seq: SeqId,
        (sequence, shadow): (&Sequence, &Shadow),
    ) -> Result<(), Violation> {
        let (held, credit) = (sequence.pages_held(), sequence.credit());
        let (expected, holds) = if shadow.was_shared {
            // Copies that others made since leave more than is due.
            let due = shadow.wanted.map_or(0, |wanted| {
                self.due(seq, wanted) + wanted.min(shadow.pages(self.ledger.geometry().block))
            });
            (due, held + credit >= due)
        } else {
            (shadow.promise, held + credit == shadow.promise)
        };
        if holds {
            return Ok(());
        }
        Err(Violation::Promise {
            seq,
            held,
            credit,
            expected,
        })
    }

    fn check_heads(&self, seq: SeqId, shadow: &Shadow) -> Result<(), Violation> {
        let Geometry {
            kv_heads, block, ..
        } = *self.ledger.geometry();
        for (index, model) in shadow.heads.iter().enumerate() {
            let head = HeadId {
                seq,
                layer: index / kv_heads,
                head: index % kv_heads,
            };
            let Ok(table) = self.ledger.head(seq, head.layer, head.head) else {
                return Err(Violation::Open {
                    seq,
                    in_ledger: false,
                });
            };
            let held: HashSet<Position> = table.positions().iter().copied().collect();
            let missing = model
                .tokens()
                .iter()
                .find(|token| !held.contains(&token.position));
            if let Some(&Token { position, .. }) = missing {
                return Err(Violation::TokenMissing { head, position });
            }
            for (slot, &position) in table.positions().iter().enumerate() {
                let found = table.score(Slot::new(slot));
                let Some(token) = model.find(position) else {
                    return Err(Violation::TokenExtra { head, position });
                };
                let (page, offset) = table.address(Slot::new(slot));
                let bytes = self
                    .memory
                    .get(page.index() * block + offset)
                    .copied()
                    .unwrap_or(0);
                if bytes != token.payload {
                    let expected = token.payload;
                    return Err(Violation::Bytes {
                        head,
                        position,
                        page,
                        offset,
                        expected,
                        found: bytes,
                    });
                }
                if found.to_bits() != token.score.to_bits() {
                    return Err(Violation::Score {
                        head,
                        position,
                        expected: token.score,
                        found,
                    });
                }
            }
        }
        Ok(())
    }

    fn check_report(&self, seq: SeqId, shadow: &Shadow) -> Result<(), Violation> {
        let Geometry {
            layers,
            kv_heads,
            block,
            ..
        } = *self.ledger.geometry();
        let Ok(report) = self.ledger.report(seq) else {
            return Err(Violation::Open {
                seq,
                in_ledger: false,
            });
        };
        let counts = [
            ("prompt tokens", report.prompt_tokens, shadow.prompt),
            ("cached tokens", report.cached_tokens, shadow.seen),
            ("pages held", report.pages_held, shadow.pages(block)),
            (
                "pages held at its peak",
                report.pages_held_peak,
                shadow.pages_peak,
            ),
            (
                "pages of a full cache",
                report.pages_full,
                layers * kv_heads * pages(shadow.seen, block),
            ),
        ];
        for (what, reported, expected) in counts {
            if reported != expected {
                return Err(Violation::Report {
                    seq,
                    what,
                    reported: reported as u64,
                    expected: expected as u64,
                });
            }
        }
        let (reported, expected) = (report.overwrites, shadow.overwrites);
        if reported != expected {
            return Err(Violation::Report {
                seq,
                what: "overwritten tokens",
                reported,
                expected,
            });
        }
        let kept = report.kept.concat();
        for (&reported, model) in kept.iter().zip(&shadow.heads) {
            if reported != model.tokens().len() {
                let expected = model.tokens().len() as u64;
                return Err(Violation::Report {
                    seq,
                    what: "kept tokens",
                    reported: reported as u64,
                    expected,
                });
            }
        }
        Ok(())
    }
}
