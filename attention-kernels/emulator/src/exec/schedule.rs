//! In which order blocks and warps run.

use super::Order;
use super::warp::Warp;

/// The order of blocks.
pub(super) struct Sequence {
    numbers: Option<Vec<u64>>,
    descending: bool,
}

impl Sequence {
    pub(super) fn number(&self, place: u64, blocks: u64) -> u64 {
        match &self.numbers {
            Some(numbers) => numbers[place as usize],
            None if self.descending => blocks - 1 - place,
            None => place,
        }
    }
}

/// Orders from a seed.
pub(super) struct Dice {
    order: Order,
    state: u64,
}

impl Dice {
    pub(super) fn new(order: Order) -> Self {
        let state = match order {
            Order::Shuffled(seed) => seed,
            _ => 0,
        };
        Self { order, state }
    }

    /// The `SplitMix64` generator.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn permute<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let other = self.next() % (at as u64 + 1);
            items.swap(at, other as usize);
        }
    }

    pub(super) fn order(&mut self, blocks: usize) -> Sequence {
        let numbers = matches!(self.order, Order::Shuffled(_)).then(|| {
            let mut numbers: Vec<u64> = (0..blocks as u64).collect();
            self.permute(&mut numbers);
            numbers
        });
        Sequence {
            numbers,
            descending: self.order == Order::Descending,
        }
    }

    pub(super) fn shuffle(&mut self, warps: &mut [Warp]) {
        match self.order {
            Order::Ascending => {}
            Order::Descending => warps.sort_by_key(|warp| std::cmp::Reverse(warp.index)),
            Order::Shuffled(_) => self.permute(warps),
        }
    }
}
