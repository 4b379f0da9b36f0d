//! Every rule is broken once, by hand, and the checker has to name it.
use super::*;
use crate::{Demand, Geometry, Growth, Kept, Pins, Room};

const GEOMETRY: Geometry = Geometry {
    layers: 2,
    kv_heads: 2,
    group: 1,
    head_dim: 8,
    block: 4,
    element_bytes: 4,
    max_positions: 64,
};

/// Two sequences with two pages in every head, and eight free pages of which four are promised.
fn busy() -> Replay {
    let mut replay = Replay::new(GEOMETRY, 24);
    for seq in [SeqId(0), SeqId(1)] {
        let tokens = if seq.0 == 0 { 6 } else { 12 };
        let demand = Demand {
            rooms: vec![Room::Each(usize::MAX); 2],
            together: None,
            appends: false,
            prompt: 6,
        };
        replay
            .open(seq, tokens, demand, &Pins::default())
            .expect("room");
        let kept = Kept {
            slots: vec![(0..6).collect(); 2],
            growth: vec![
                Growth::Ring {
                    sinks: 1,
                    recent: 4
                };
                2
            ],
            scores: None,
        };
        for layer in 0..2 {
            replay.write_prompt(seq, layer, 6, &kept).expect("reserved");
            replay.append(seq, layer, Position(6)).expect("overwrites");
        }
    }
    replay
}

fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot::of(busy().ledger());
    snapshot.sequences.sort_by_key(|sequence| sequence.seq);
    snapshot
}

fn broken(change: impl FnOnce(&mut Snapshot)) -> Violation {
    let mut snapshot = snapshot();
    change(&mut snapshot);
    snapshot.check().expect_err("the snapshot was broken")
}

const HEAD: HeadId = HeadId {
    seq: SeqId(0),
    layer: 0,
    head: 1,
};

fn head(snapshot: &mut Snapshot) -> &mut HeadFacts {
    &mut snapshot.sequences[0].heads[1]
}

#[test]
fn a_sound_ledger_passes() {
    assert_eq!(busy().check(), Ok(()));
    let facts = snapshot();
    assert_eq!(
        (
            facts.free.len(),
            facts.usage.promised,
            facts.sequences[1].credit
        ),
        (8, 4, 4)
    );
}

#[test]
fn pages_are_counted() {
    let lost = broken(|facts| {
        facts.free.pop();
    });
    assert!(matches!(lost, Violation::PageLost { .. }), "{lost}");

    let freed_while_held = broken(|facts| {
        let page = head(facts).pages[0].0;
        facts.free.push(page);
    });
    assert!(
        matches!(
            freed_while_held,
            Violation::PageHeldTwice {
                first: Holder::FreeList,
                ..
            }
        ),
        "{freed_while_held}"
    );

    let in_two_tables = broken(|facts| {
        let page = facts.sequences[1].heads[0].pages[0];
        let mine = head(facts);
        mine.pages[0] = page;
        for address in &mut mine.addresses[..4] {
            address.0 = page.0;
        }
    });
    assert!(
        matches!(
            in_two_tables,
            Violation::PageLost { .. } | Violation::PageHeldTwice { .. }
        ),
        "{in_two_tables}"
    );

    let unknown = broken(|facts| facts.free.push(PageId(99)));
    assert_eq!(
        unknown,
        Violation::PageOutOfRange {
            page: PageId(99),
            holder: Holder::FreeList,
            total: 24
        }
    );
    assert_eq!(
        unknown.to_string(),
        "page 99 stands in the free list, but the pool has 24 pages"
    );

    let miscounted = broken(|facts| facts.usage.held += 1);
    assert!(
        matches!(
            miscounted,
            Violation::HeldCount {
                reported: 17,
                counted: 16,
                ..
            }
        ),
        "{miscounted}"
    );
    let low_peak = broken(|facts| facts.usage.peak = 3);
    assert!(
        matches!(low_peak, Violation::HeldCount { peak: 3, .. }),
        "{low_peak}"
    );
}

#[test]
fn a_page_may_be_in_several_tables_if_all_share_it() {
    let share = |facts: &mut Snapshot, all: bool| {
        let page = facts.sequences[1].heads[0].pages[0].0;
        facts.sequences[1].heads[0].pages[0].1 = all;
        let mine = head(facts);
        let own = mine.pages[0].0;
        mine.pages[0] = (page, true);
        for address in &mut mine.addresses[..4] {
            address.0 = page;
        }
        facts.free.push(own);
        facts.usage.held -= 1;
    };
    let mut shared = snapshot();
    share(&mut shared, true);
    assert_eq!(shared.check(), Ok(()));
    let one_owns_it = broken(|facts| share(facts, false));
    assert!(
        matches!(one_owns_it, Violation::PageHeldTwice { .. }),
        "{one_owns_it}"
    );
}

#[test]
fn promises_are_counted() {
    let over = broken(|facts| facts.usage.promised = 9);
    assert_eq!(
        over,
        Violation::Overpromised {
            promised: 9,
            free: 8
        }
    );
    let sum = broken(|facts| facts.sequences[1].credit = 3);
    assert_eq!(
        sum,
        Violation::PromiseSum {
            promised: 4,
            credits: 3
        }
    );
}

#[test]
fn heads_are_looked_through() {
    let heads = broken(|facts| {
        facts.sequences[0].heads.pop();
    });
    assert_eq!(
        heads,
        Violation::HeadCount {
            seq: SeqId(0),
            found: 3,
            expected: 4
        }
    );
    let columns = broken(|facts| head(facts).scores = 5);
    assert_eq!(
        columns,
        Violation::Columns {
            head: HEAD,
            positions: 6,
            scores: 5
        }
    );
    let spare = broken(|facts| {
        let page = facts.free.pop().expect("free");
        head(facts).pages.push((page, false));
    });
    assert_eq!(
        spare,
        Violation::PageCount {
            head: HEAD,
            pages: 3,
            tokens: 6,
            block: 4
        }
    );
    let address = broken(|facts| head(facts).addresses.swap(1, 2));
    assert!(
        matches!(
            address,
            Violation::Address {
                slot: Slot(1),
                offset: 2,
                expected_offset: 1,
                ..
            }
        ),
        "{address}"
    );
    let twice = broken(|facts| head(facts).positions[2] = Position(4));
    assert_eq!(
        twice,
        Violation::PositionTwice {
            head: HEAD,
            position: Position(4)
        }
    );
    let ahead = broken(|facts| facts.sequences[0].seen = 6);
    assert!(
        matches!(
            ahead,
            Violation::PositionUnseen {
                position: Position(6),
                seen: 6,
                ..
            }
        ),
        "{ahead}"
    );
}

#[test]
fn a_replay_sees_bytes_scores_tokens_and_reports_go_wrong() {
    let expect = |change: fn(&mut Replay), matches: fn(&Violation) -> bool| {
        let mut replay = busy();
        change(&mut replay);
        let violation = replay.check().expect_err("the replay was broken");
        assert!(matches(&violation), "{violation}");
    };
    expect(
        |replay| {
            let (page, offset) = replay
                .ledger
                .head(SeqId(0), 0, 1)
                .expect("open")
                .address(Slot(3));
            replay.memory[page.index() * 4 + offset] += 1;
        },
        |found| {
            matches!(
                found,
                Violation::Bytes {
                    head: HEAD,
                    offset: 3,
                    ..
                }
            )
        },
    );
    expect(
        |replay| replay.ledger.scores_mut(SeqId(0), 0, 1).expect("open")[0] = 1.0,
        |found| {
            matches!(
                found,
                Violation::Score {
                    head: HEAD,
                    position: Position(0),
                    ..
                }
            )
        },
    );
    expect(
        |replay| {
            replay
                .ledger
                .append(SeqId(0), 0, Position(7))
                .expect("overwrites");
        },
        |found| {
            matches!(
                found,
                Violation::TokenMissing {
                    position: Position(2),
                    ..
                }
            )
        },
    );
    expect(
        |replay| {
            replay.ledger.release(SeqId(1));
        },
        |found| matches!(found, Violation::Open { .. }),
    );
    expect(
        |replay| {
            replay
                .sequences
                .values_mut()
                .for_each(|shadow| shadow.overwrites += 1);
        },
        |found| {
            matches!(
                found,
                Violation::Report {
                    what: "overwritten tokens",
                    ..
                }
            )
        },
    );
}
