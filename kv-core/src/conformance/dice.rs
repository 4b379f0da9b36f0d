//! A small seeded generator: the same cases on every machine, and no dependency for the sake of a test kit.

/// The seed of every case, unless `HEADROOM_SEED` names another.
const SEED: u64 = 1;

/// The seed of this run.
pub(super) fn seed() -> u64 {
    std::env::var("HEADROOM_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(SEED)
}

/// Sebastiano Vigna's `SplitMix64`.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    /// The `index`-th stream of this run's seed.
    pub(super) fn new(index: u64) -> Self {
        Self(
            seed()
                .wrapping_mul(0xD134_2543_DE82_EF95)
                .wrapping_add(index),
        )
    }

    pub(super) const fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, or 0 if there is none.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.throw() % end).unwrap_or(0)
    }

    /// A number from 0 up to and without 1.
    pub(super) fn unit(&mut self) -> f32 {
        f32::from(u16::try_from(self.throw() >> 48).unwrap_or(0)) / 65_536.0
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}
