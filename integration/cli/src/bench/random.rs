//! Numbers that look random and are the same in every run.

/// `SplitMix64`: a counter, well stirred.
#[derive(Debug, Clone)]
pub(super) struct Numbers(u64);

impl Numbers {
    /// The sequence for a seed.
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is above 0.
    pub(super) const fn below(&mut self, limit: u32) -> u32 {
        (((self.next() >> 32) * limit as u64) >> 32) as u32
    }

    /// A number from -1 to 1.
    pub(super) fn unit(&mut self) -> f32 {
        let steps = f32::from(u16::MAX);
        f32::from(u16::try_from(self.below(1 << 16)).unwrap_or(u16::MAX)) / steps * 2.0 - 1.0
    }

    /// Puts things into another order.
    pub(super) fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            let limit = u32::try_from(last + 1).unwrap_or(u32::MAX);
            things.swap(last, self.below(limit) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_are_those_of_the_algorithm() {
        let mut numbers = Numbers::new(0);
        assert_eq!(numbers.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(numbers.next(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn numbers_stay_below_their_limit_and_a_shuffle_loses_nothing() {
        let mut numbers = Numbers::new(7);
        assert!((0..1000).all(|_| numbers.below(3) < 3));
        assert!((0..1000).all(|_| numbers.unit().abs() <= 1.0));
        let mut things: Vec<u32> = (0..100).collect();
        numbers.shuffle(&mut things);
        assert!(!things.is_sorted());
        things.sort_unstable();
        assert_eq!(things, (0..100).collect::<Vec<_>>());
    }
}
