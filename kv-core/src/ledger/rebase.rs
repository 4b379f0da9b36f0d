//! Texts that go on past the positions that a model knows.
use super::{Address, Ledger, Move};
use crate::{CacheError, HeadTable, SeqId, Slot};

/// What a host does so that a sequence's keys stand at earlier positions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rebased {
    /// What is copied first, in this order.
    pub moves: Vec<Move>,
    /// Where the keys are that are turned back.
    pub keys: Vec<Address>,
}

impl Ledger {
    /// Has a sequence's keys stand `by` positions earlier than they did, all but each head's front ([`HeadTable::front`]): from here on the
    /// token at position `p` of the text is stored as at `p` less [`Sequence::base`](crate::Sequence::base), and positions stay within what
    /// the model knows however long the text is. The host turns the keys.
    ///
    /// # Errors
    ///
    /// [`CacheError::UnknownSequence`]; [`CacheError::Full`] only if pages that others hold, too, have to be copied and nothing was
    /// promised for that. Nothing has changed then.
    pub fn rebase(&mut self, seq: SeqId, by: usize) -> Result<Rebased, CacheError> {
        let sequence = self.of(seq)?;
        let copies = sequence.heads.iter().map(HeadTable::shared_pages).sum();
        sequence.reservation.ensure(copies)?;
        let mut rebased = Rebased::default();
        for table in &mut sequence.heads {
            for slot in table.front()..table.len() {
                let room = &mut sequence.reservation;
                let address = table.own(Slot::new(slot), room, &mut rebased.moves)?;
                rebased.keys.push(address);
            }
        }
        sequence.base += by;
        sequence.settle();
        Ok(rebased)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Demand, Geometry, Growth, KeepPlan, LayerView, Pins, Position, Room};

    const GEOMETRY: Geometry = Geometry {
        layers: 2,
        kv_heads: 1,
        group: 1,
        head_dim: 8,
        block: 4,
        element_bytes: 4,
        max_positions: 32,
    };

    /// Two layers that hold two sinks and a ring of four, after ten tokens.
    fn streaming() -> Ledger {
        let mut ledger = Ledger::new(GEOMETRY, 12);
        let demand = Demand {
            rooms: vec![Room::Each(6); 2],
            together: None,
            appends: false,
            prompt: 8,
        };
        let (seq, pins) = (SeqId(0), Pins::default());
        ledger.open(seq, 8, demand, &pins).expect("room");
        let mut keep = KeepPlan::all(1);
        keep.window(0, 2, 4);
        let ring = Growth::Ring {
            sinks: 2,
            recent: 4,
        };
        keep.grow(0, ring);
        let kept = keep.resolve(&LayerView::prefill(0, 1, 8, 6), &pins);
        for layer in 0..2 {
            ledger.write_prompt(seq, layer, 8, &kept).expect("promised");
            for position in [8, 9] {
                let appended = ledger.append(seq, layer, Position(position));
                appended.expect("a ring");
            }
        }
        ledger
    }

    #[test]
    fn all_keys_but_the_front_are_turned() {
        let mut ledger = streaming();
        let table = ledger.head(SeqId(0), 0, 0).expect("open");
        assert_eq!((table.front(), table.len()), (2, 6));
        let rebased = ledger.rebase(SeqId(0), 4).expect("open");
        assert!(rebased.moves.is_empty());
        let table = ledger.head(SeqId(0), 1, 0).expect("open");
        let expected: Vec<(u32, u32)> = (2..6)
            .map(|slot| table.address(Slot(slot)))
            .map(|(page, offset)| (page.0, Position::new(offset).0))
            .collect();
        let places: Vec<(u32, u32)> = rebased.keys[4..]
            .iter()
            .map(|key| (key.page().0, key.offset()))
            .collect();
        assert_eq!(places, expected);
        assert_eq!(ledger.sequence(SeqId(0)).expect("open").base(), 4);
        assert_eq!(
            ledger.rebase(SeqId(7), 1),
            Err(CacheError::UnknownSequence(SeqId(7)))
        );
    }

    #[test]
    fn pages_that_others_hold_are_copied_first() {
        let mut ledger = streaming();
        let (one, two) = (SeqId(0), SeqId(1));
        ledger.fork(one, two, 10).expect("room");
        let rebased = ledger.rebase(two, 4).expect("promised");
        assert!(!rebased.moves.is_empty());
        let pages = |seq| ledger.pages_in_order(seq).expect("open");
        for key in &rebased.keys {
            assert!(!pages(one).contains(&key.page().0) && pages(two).contains(&key.page().0));
        }
        let base = |seq| ledger.sequence(seq).expect("open").base();
        assert_eq!((base(one), base(two)), (0, 4));
        assert_eq!(crate::checker::check(&ledger), Ok(()));
    }
}
