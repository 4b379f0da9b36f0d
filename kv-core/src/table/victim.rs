//! Who goes: the oldest token of a ring, or the lowest score. At most one pass over a head, and no allocation.
use super::{HeadTable, Hold};
use crate::{Growth, Position, rank, select::key_of};

/// Slots looked at together, as many as a word of [`Holds`](super::Holds) has.
const CHUNK: usize = 64;
/// Scores of a head to which none was given.
const ZEROS: [f32; CHUNK] = [0.0; CHUNK];

/// The newest token, and how many before it are held without a gap: what the newest tokens are, mostly without a look at them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Run {
    newest: u32,
    /// At most as many as there are; 0 if nothing is known.
    len: usize,
}

/// Where a ring begins whose slots do not stand in the order of the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sinks {
    /// The oldest token that is none.
    first: Position,
    /// Sinks that are free.
    free: usize,
}

impl HeadTable {
    /// Tokens that are neither pinned nor protected.
    pub(super) fn free(&self) -> usize {
        self.unpinned() - self.holds.protected()
    }

    /// Takes note of a token that comes; it takes the slot of `left`, or has one of its own.
    pub(super) fn note_arrival(&mut self, position: Position, left: Option<Position>) {
        let Run { newest, len } = self.run;
        if let Some(Position(left)) = left
            && len > 0
            && newest.wrapping_sub(left) < u32::try_from(len).unwrap_or(u32::MAX)
        {
            self.run.len = (newest - left) as usize;
        }
        if self.run.len > 0 && newest.checked_add(1) == Some(position.0) {
            self.run.len += 1;
            self.run.newest = position.0;
        } else if self.len() == 1 || position.0 > newest {
            self.run = Run {
                newest: position.0,
                len: 1,
            };
        } else if self.run.len == 0 {
            self.find_run();
        }
        let is_sink = |sinks: Sinks| position < sinks.first;
        if self.is_shuffled && self.sinks.is_none_or(is_sink) {
            self.find_sinks();
        }
    }

    /// Looks for the newest tokens.
    pub(super) fn find_run(&mut self) {
        let newest = self.positions.iter().max().map_or(0, |newest| newest.0);
        let mut is_held = vec![false; self.len()];
        for position in &self.positions {
            if let Some(entry) = is_held.get_mut((newest - position.0) as usize) {
                *entry = true;
            }
        }
        let len = is_held.iter().take_while(|is_held| **is_held).count();
        self.run = Run { newest, len };
    }

    /// Looks for the sinks of a ring whose slots do not stand in the order of the text.
    pub(super) fn find_sinks(&mut self) {
        self.sinks = None;
        let Growth::Ring { sinks, .. } = self.growth else {
            return;
        };
        if self.is_shuffled && sinks < self.len() {
            let first = *self.positions.clone().select_nth_unstable(sinks).1;
            let is_free =
                |&slot: &usize| self.positions[slot] < first && self.holds.get(slot) == Hold::Free;
            let free = (0..self.len()).filter(is_free).count();
            self.sinks = Some(Sinks { first, free });
        }
    }

    /// Slots that a ring counts: free, and behind its sinks.
    pub(super) fn ringed(&self, sinks: usize) -> usize {
        if self.is_shuffled {
            return self.sinks.map_or(0, |sinks| self.free() - sinks.free);
        }
        let before = sinks.min(self.len());
        self.free() - (before - self.holds.count_before(before))
    }

    /// The oldest free slot behind the sinks. Those slots are a ring: they are filled in the order of the
    /// text, and from then on the newcomer takes the oldest one's, which is the first from the cursor on.
    pub(super) fn ring_victim(&self, sinks: usize) -> Option<usize> {
        if self.is_shuffled {
            return self.oldest_behind();
        }
        let start = self.cursor.max(sinks);
        (start..self.len())
            .chain(sinks..start.min(self.len()))
            .find(|&slot| self.holds.get(slot) == Hold::Free)
    }

    /// The oldest free slot behind the sinks, where the slots do not stand in the order of the text.
    fn oldest_behind(&self) -> Option<usize> {
        let first = self.sinks?.first;
        let behind = (0..self.len())
            .filter(|&slot| self.positions[slot] >= first && self.holds.get(slot) == Hold::Free);
        behind.min_by_key(|&slot| self.positions[slot])
    }

    /// The newest token that is not among the `recent` newest.
    fn last_before(&self, recent: usize) -> Option<Position> {
        let Some(before) = recent.checked_sub(1) else {
            return Some(Position(u32::MAX));
        };
        if recent >= self.len() {
            return None;
        }
        let Run { newest, len } = self.run;
        // Positions differ, so the `recent`-th newest token is at most here.
        let most = newest.checked_sub(u32::try_from(before).ok()?)?;
        if recent <= len {
            return most.checked_sub(1).map(Position);
        }
        // There are gaps among the newest. The latest position from which on there are as many tokens is theirs.
        let (mut low, mut high) = (0, most);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            let from_here = self.positions.iter().filter(|at| at.0 >= middle).count();
            if from_here >= recent {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        low.checked_sub(1).map(Position)
    }

    /// The lowest score of a free slot outside the `recent` newest tokens; of equal scores the later position goes, as
    /// [`rank`] orders them.
    pub(super) fn lowest(&self, recent: usize) -> Option<usize> {
        let last = self.last_before(recent)?;
        let mut best: Option<usize> = None;
        let mut lowest = i32::MAX;
        for (word, positions) in self.positions.chunks(CHUNK).enumerate() {
            let start = word * CHUNK;
            let scores = self.scores.get(start..start + positions.len());
            let scores = scores.unwrap_or(&ZEROS[..positions.len()]);
            let held = self.holds.word(word);
            let low = lowest_key(positions, scores, last);
            if low > lowest || low == i32::MAX {
                continue;
            }
            // Seldom: a chunk whose lowest score is the lowest so far, or would be if its token were free.
            let here = (0..positions.len())
                .filter(|&at| positions[at] <= last && held >> at & 1 == 0)
                .map(|at| start + at);
            best = here
                .chain(best)
                .max_by(|&a, &b| rank(self.key(a), self.key(b)));
            lowest = best.map_or(i32::MAX, |slot| key_of(self.key(slot).0));
        }
        best
    }

    /// What a slot is ranked by.
    fn key(&self, slot: usize) -> (f32, usize) {
        let score = self.scores.get(slot).copied().unwrap_or(0.0);
        (score, self.positions[slot].index())
    }
}

/// The lowest score of the positions up to `last`, as [`key_of`] has it.
fn lowest_key(positions: &[Position], scores: &[f32], last: Position) -> i32 {
    let keys = positions.iter().zip(scores).map(|(&position, &score)| {
        if position <= last {
            key_of(score)
        } else {
            i32::MAX
        }
    });
    keys.fold(i32::MAX, i32::min)
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use rand::{Rng, SeedableRng, seq::SliceRandom};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::{PagePool, Place, Reservation, TokenClass};

    const SCORES: [f32; 8] = [
        0.0,
        -0.0,
        1.0,
        1.5,
        -2.0,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
    ];

    /// Sorts everything.
    fn sorted_lowest(head: &HeadTable, recent: usize) -> Option<usize> {
        let mut slots: Vec<usize> = (0..head.len()).collect();
        slots.sort_by_key(|&slot| head.positions[slot]);
        slots.truncate(head.len().saturating_sub(recent));
        slots.retain(|&slot| head.holds.get(slot) == Hold::Free);
        slots.sort_by(|&a, &b| rank(head.key(a), head.key(b)));
        slots.last().copied()
    }

    /// The oldest free slot behind the sinks, and how many there are.
    fn sorted_ring(head: &HeadTable, sinks: usize) -> (Option<usize>, usize) {
        let mut slots: Vec<usize> = (0..head.len()).collect();
        slots.sort_by_key(|&slot| head.positions[slot]);
        let free = |slot: &usize| head.holds.get(*slot) == Hold::Free;
        let behind: Vec<usize> = slots.into_iter().skip(sinks).filter(free).collect();
        (behind.first().copied(), behind.len())
    }

    fn plain(_: Position) -> TokenClass {
        TokenClass::Plain
    }

    /// A head of up to three chunks, some of it pinned or protected, with few different scores, none of any in some heads; its
    /// slots stand in no order.
    fn head(rng: &mut ChaCha8Rng, growth: Growth, room: &mut Reservation) -> HeadTable {
        let mut head = HeadTable::new(16);
        let (tokens, gaps) = (rng.random_range(1..200_u32), rng.random_range(0.0..0.3));
        let mut positions: Vec<u32> = (5..5 + tokens).collect();
        positions.retain(|_| !rng.random_bool(gaps));
        if rng.random_bool(0.7) {
            positions.shuffle(rng);
        }
        let held = rng.random_range(0.0..0.2);
        for position in positions {
            let hold = match rng.random_bool(held) {
                true if rng.random_bool(0.5) => Hold::Protected,
                true => Hold::Pinned,
                false => Hold::Free,
            };
            let pushed = head.push(Position(position), hold, room, &mut Vec::new());
            pushed.expect("room");
        }
        if rng.random_bool(0.9) {
            let scores = head.scores_mut().iter_mut();
            scores.for_each(|score| *score = SCORES[rng.random_range(0..SCORES.len())]);
        }
        head.growth = growth;
        head.is_shuffled = true;
        if rng.random_bool(0.5) {
            head.find_run();
        }
        head.find_sinks();
        head
    }

    fn seed() -> u64 {
        std::env::var("HEADROOM_SEED").map_or_else(
            |_| RandomState::new().hash_one(0),
            |seed| seed.parse().expect("a number"),
        )
    }

    #[test]
    fn the_lowest_score_is_what_sorting_everything_finds() {
        let seed = seed();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut room = PagePool::new(100_000).reservation();
        let mut met = [0; 3];
        for case in 0..400 {
            let mut head = head(&mut rng, Growth::Append, &mut room);
            for step in 0..30 {
                let len = head.len();
                let recent =
                    [0, 1, len / 3, len.saturating_sub(1), len, len + 1][rng.random_range(0..6)];
                let found = head.lowest(recent);
                let wanted = sorted_lowest(&head, recent);
                assert_eq!(
                    found, wanted,
                    "the {recent} newest stay, case {case}, step {step}; repeat with HEADROOM_SEED={seed}"
                );
                met[0] += usize::from(found.is_some());
                met[1] += usize::from(recent > 0 && recent < len && recent <= head.run.len);
                met[2] += usize::from(recent < len && recent > head.run.len);
                // Mostly the next of the text; now and then a later one, or one that comes late.
                let newest = head.positions.iter().max().map_or(0, |newest| newest.0);
                let next = match rng.random_range(0..10) {
                    0 => newest + rng.random_range(2..5),
                    1 => rng.random_range(0..=newest),
                    _ => newest + 1,
                };
                if head.positions.contains(&Position(next)) {
                    continue;
                }
                let place = found.map_or(Place::Append, |slot| {
                    Place::Overwrite(crate::Slot::new(slot))
                });
                head.insert(
                    Position(next),
                    place,
                    Hold::Free,
                    &mut room,
                    &mut Vec::new(),
                )
                .expect("room");
            }
        }
        assert!(met.iter().all(|&met| met > 500), "{met:?}");
    }

    #[test]
    fn a_shuffled_ring_goes_by_age() {
        let seed = seed();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut room = PagePool::new(100_000).reservation();
        let mut found = 0;
        for case in 0..400 {
            let sinks = rng.random_range(0..20);
            let ring = Growth::Ring { sinks, recent: 50 };
            let mut head = head(&mut rng, ring, &mut room);
            for step in 0..30 {
                let (victim, count) = sorted_ring(&head, sinks);
                assert_eq!(
                    (head.ringed(sinks), head.ring_victim(sinks)),
                    (count, victim),
                    "case {case}, step {step}; repeat with HEADROOM_SEED={seed}"
                );
                found += usize::from(victim.is_some());
                let newest = head.positions.iter().max().map_or(0, |newest| newest.0);
                let next = if rng.random_bool(0.1) {
                    rng.random_range(0..=newest)
                } else {
                    newest + 1
                };
                if head.positions.contains(&Position(next)) {
                    continue;
                }
                let hold = match rng.random_range(0..8) {
                    0 => Hold::Pinned,
                    _ => Hold::Free,
                };
                let place = head.place_of(hold);
                head.insert(Position(next), place, hold, &mut room, &mut Vec::new())
                    .expect("room");
            }
        }
        assert!(found > 5000, "{found} victims");
    }

    #[test]
    fn the_newest_are_known_after_a_plan() {
        let mut room = PagePool::new(9).reservation();
        let mut head = HeadTable::new(4);
        for position in [9, 3, 7, 8, 1] {
            head.push(Position(position), Hold::Free, &mut room, &mut Vec::new())
                .expect("room");
        }
        head.set_growth(Growth::Append, plain);
        assert_eq!((head.run.newest, head.run.len), (9, 3));
    }
}
