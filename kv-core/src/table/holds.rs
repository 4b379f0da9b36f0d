//! Which tokens of a head need not go: two bits for each slot up to the last one that has any.
const BITS: usize = u64::BITS as usize;

/// Why a token stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It need not.
    Free,
    /// It is of a class that the head protects.
    Protected,
    /// The request pins it.
    Pinned,
}

/// The holds of one head's slots. Slots that were never named are free, and cost nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Holds {
    pinned: Bits,
    protected: Bits,
}

impl Holds {
    pub(super) fn get(&self, slot: usize) -> Hold {
        if self.pinned.get(slot) {
            Hold::Pinned
        } else if self.protected.get(slot) {
            Hold::Protected
        } else {
            Hold::Free
        }
    }

    pub(super) fn set(&mut self, slot: usize, hold: Hold) {
        self.pinned.set(slot, hold == Hold::Pinned);
        self.protected.set(slot, hold == Hold::Protected);
    }

    /// Forgets the slots from `len` on.
    pub(super) fn truncate(&mut self, len: usize) {
        self.pinned.truncate(len);
        self.protected.truncate(len);
    }

    /// No slot is protected from here on.
    pub(super) fn unprotect(&mut self) {
        self.protected = Bits::default();
    }

    pub(super) const fn pinned(&self) -> usize {
        self.pinned.count
    }

    pub(super) const fn protected(&self) -> usize {
        self.protected.count
    }

    /// How many of the first `len` slots are not free.
    pub(super) fn count_before(&self, len: usize) -> usize {
        self.pinned.count_before(len) + self.protected.count_before(len)
    }

    /// Which of the slots from `64 * word` on are not free, the first one's bit lowest.
    pub(super) fn word(&self, word: usize) -> u64 {
        let of = |bits: &Bits| bits.words.get(word).copied().unwrap_or(0);
        of(&self.pinned) | of(&self.protected)
    }
}

/// A set of slots.
#[derive(Debug, Clone, Default)]
struct Bits {
    /// Up to the last word that ever had a bit.
    words: Vec<u64>,
    count: usize,
}

impl Bits {
    fn get(&self, slot: usize) -> bool {
        let word = self.words.get(slot / BITS);
        word.is_some_and(|word| word >> (slot % BITS) & 1 == 1)
    }

    fn set(&mut self, slot: usize, is_in: bool) {
        if self.get(slot) == is_in {
            return;
        }
        let word = slot / BITS;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] ^= 1 << (slot % BITS);
        if is_in {
            self.count += 1;
        } else {
            self.count -= 1;
        }
    }

    fn truncate(&mut self, len: usize) {
        self.words.truncate(len.div_ceil(BITS));
        if let Some(last) = self.words.get_mut(len / BITS) {
            *last &= (1 << (len % BITS)) - 1;
        }
        self.count = self
            .words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum();
    }

    fn count_before(&self, len: usize) -> usize {
        if self.count == 0 {
            return 0;
        }
        let whole = self.words.iter().take(len / BITS);
        let whole: usize = whole.map(|word| word.count_ones() as usize).sum();
        let part = self.words.get(len / BITS).copied().unwrap_or(0);
        whole + (part & ((1 << (len % BITS)) - 1)).count_ones() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_are_counted_and_forgotten() {
        let mut holds = Holds::default();
        holds.set(900, Hold::Free);
        assert!(holds.pinned.words.is_empty(), "a free slot costs nothing");
        for slot in [0, 63, 64, 130] {
            holds.set(slot, Hold::Pinned);
        }
        holds.set(65, Hold::Protected);
        holds.set(64, Hold::Protected);
        assert_eq!((holds.pinned(), holds.protected()), (3, 2));
        assert_eq!(holds.get(64), Hold::Protected);
        assert_eq!(holds.get(9999), Hold::Free);
        let before = [0, 1, 63, 64, 65, 66, 130, 131, 5000].map(|len| holds.count_before(len));
        assert_eq!(before, [0, 1, 1, 2, 3, 4, 4, 5, 5]);
        assert_eq!(
            (holds.word(0), holds.word(1), holds.word(7)),
            (1 << 63 | 1, 3, 0)
        );
        holds.truncate(65);
        assert_eq!((holds.pinned(), holds.protected()), (2, 1));
        holds.unprotect();
        assert_eq!((holds.pinned(), holds.protected()), (2, 0));
        holds.truncate(64);
        assert_eq!((holds.pinned(), holds.count_before(64)), (2, 2));
    }
}
