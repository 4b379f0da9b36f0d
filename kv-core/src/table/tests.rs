use super::*;
use crate::{PagePool, Pins};

fn table(growth: Growth, tokens: u32, pins: &Pins, room: &mut Reservation) -> HeadTable {
    let mut table = HeadTable::new(4);
    for position in 0..tokens {
        let hold = table.hold_of(pins.contains(Position(position)), TokenClass::Plain);
        let pushed = table.push(Position(position), hold, room, &mut Vec::new());
        pushed.expect("room");
    }
    table.set_growth(growth, |_| TokenClass::Plain);
    table
}

fn insert(
    head: &mut HeadTable,
    position: u32,
    pins: &Pins,
    room: &mut Reservation,
) -> Result<Slot, Full> {
    let hold = head.hold_of(pins.contains(Position(position)), TokenClass::Plain);
    let place = head.place_of(hold);
    head.insert(Position(position), place, hold, room, &mut Vec::new())
        .map(|(slot, _)| slot)
}

fn sorted(table: &HeadTable) -> Vec<u32> {
    let mut positions: Vec<u32> = table.positions().iter().map(|p| p.0).collect();
    positions.sort_unstable();
    positions
}

#[test]
fn a_ring_keeps_the_sinks_and_the_newest_and_takes_no_page() {
    let pool = PagePool::new(9);
    let mut room = pool.reservation();
    let mut head = table(
        Growth::Ring {
            sinks: 2,
            recent: 4,
        },
        5,
        &Pins::default(),
        &mut room,
    );
    for position in 5..40 {
        insert(&mut head, position, &Pins::default(), &mut room).expect("room");
        let expected: Vec<u32> = if position < 6 {
            (0..6).collect()
        } else {
            [0, 1].into_iter().chain(position - 3..=position).collect()
        };
        assert_eq!(sorted(&head), expected);
    }
    assert_eq!(
        (head.len(), head.page_ids().len(), pool.usage().held),
        (6, 2, 2)
    );
}

#[test]
fn pins_come_on_top_of_a_ring() {
    let pool = PagePool::new(9);
    let mut room = pool.reservation();
    let pins = Pins::new([3..5, 20..21]);
    let mut head = table(
        Growth::Ring {
            sinks: 1,
            recent: 5,
        },
        6,
        &pins,
        &mut room,
    );
    for position in 6..30 {
        insert(&mut head, position, &pins, &mut room).expect("room");
    }
    assert_eq!(sorted(&head), [0, 3, 4, 20, 25, 26, 27, 28, 29]);
}

#[test]
fn a_head_full_of_pins_still_has_its_whole_window() {
    let pool = PagePool::new(9);
    let mut room = pool.reservation();
    let pins = Pins::new(std::iter::once(0..10));
    for growth in [
        Growth::Ring {
            sinks: 2,
            recent: 4,
        },
        Growth::EvictLowest {
            limit: 4,
            recent: 3,
        },
    ] {
        let mut head = table(growth, 10, &pins, &mut room);
        for position in 10..30 {
            insert(&mut head, position, &pins, &mut room).expect("room");
        }
        assert_eq!(
            (head.len(), head.positions().iter().max()),
            (14, Some(&Position(29))),
            "{growth:?}"
        );
    }
}

#[test]
fn a_limit_holds_even_where_the_window_is_as_long() {
    let pool = PagePool::new(9);
    let mut room = pool.reservation();
    let mut head = table(
        Growth::EvictLowest {
            limit: 2,
            recent: 7,
        },
        2,
        &Pins::default(),
        &mut room,
    );
    for position in 2..9 {
        insert(&mut head, position, &Pins::default(), &mut room).expect("room");
        assert_eq!(sorted(&head), [position - 1, position]);
    }
}

#[test]
fn the_lowest_score_outside_the_window_gives_way() {
    let pool = PagePool::new(9);
    let mut room = pool.reservation();
    let mut head = table(
        Growth::EvictLowest {
            limit: 5,
            recent: 2,
        },
        5,
        &Pins::default(),
        &mut room,
    );
    head.scores_mut()
        .copy_from_slice(&[3.0, 1.0, 1.0, 0.0, 0.0]);
    // Equal scores: the lower position ranks higher and stays.
    assert_eq!(head.place(), Place::Overwrite(Slot(2)));
    insert(&mut head, 5, &Pins::default(), &mut room).expect("no page needed");
    assert_eq!(sorted(&head), [0, 1, 3, 4, 5]);
    head.scores_mut()[0] = f32::NAN;
    assert_eq!(head.place(), Place::Overwrite(Slot(0)), "NaN ranks lowest");
}

#[test]
fn a_full_pool_changes_nothing() {
    let pool = PagePool::new(1);
    let mut room = pool.reservation();
    let mut head = table(Growth::Append, 4, &Pins::default(), &mut room);
    let refused = insert(&mut head, 4, &Pins::default(), &mut room);
    assert_eq!(refused, Err(Full { wanted: 1, free: 0 }));
    assert_eq!((head.len(), head.page_ids().len()), (4, 1));
}
