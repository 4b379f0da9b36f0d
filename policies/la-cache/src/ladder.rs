//! Which tokens a layer keeps when its cache is cut, and where the next cut begins.

/// The shape of a ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ladder {
    /// Layers of the model, `L`.
    pub(crate) layers: usize,
    /// First tokens, never cut.
    pub(crate) start: usize,
    /// Tokens of a group before a cut.
    pub(crate) before: usize,
    /// Tokens of a group after it, fewer.
    pub(crate) after: usize,
}

/// Groups side by side, of each of which a layer keeps some tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pass {
    /// Where the first group begins.
    start: usize,
    groups: usize,
    /// Tokens of a group.
    width: usize,
    /// From one kept token of a group to the next.
    stride: usize,
}

impl Ladder {
    /// The smallest capacity that can be cut: a group between the first tokens and the `L` newest.
    pub(crate) const fn least(&self) -> usize {
        self.start
            .saturating_add(self.layers)
            .saturating_add(self.after)
    }

    /// Tokens that a group loses in a cut.
    const fn loss(&self) -> usize {
        self.before - self.after
    }

    /// Groups that fit between `start` and the `L` newest tokens, once they are cut.
    const fn groups(&self, capacity: usize, start: usize) -> usize {
        capacity.saturating_sub(start + self.layers) / self.after
    }

    /// How `len` tokens are cut to `capacity`, and where the cursor is then.
    fn passes(&self, capacity: usize, cursor: usize, len: usize) -> (Vec<Pass>, usize) {
        let surplus = len.saturating_sub(capacity);
        let groups = self.groups(capacity, cursor);
        let pass = |groups| Pass {
            start: cursor,
            groups,
            width: self.before,
            stride: 1,
        };
        if surplus <= groups * self.loss() {
            let groups = surplus.div_ceil(self.loss());
            return (vec![pass(groups)], cursor + groups * self.after);
        }
        // Not enough up to the end: so again from the start, through wider groups where once would not do.
        let left = surplus - groups * self.loss();
        let times = left.div_ceil(self.groups(capacity, self.start) * self.loss());
        let width = self.before + (times - 1) * (self.before - 1);
        let again = Pass {
            start: self.start,
            groups: left.div_ceil(width - self.after),
            width,
            stride: times,
        };
        let cursor = self.start + again.groups * self.after;
        (vec![pass(groups), again], cursor)
    }

    /// What a layer keeps of its `tokens`, oldest first, when they are cut to `capacity`; the newest always.
    pub(crate) fn cut(
        &self,
        layer: usize,
        capacity: usize,
        cursor: usize,
        tokens: Vec<u32>,
    ) -> Vec<u32> {
        let (passes, _) = self.passes(capacity, cursor, tokens.len());
        passes.iter().fold(tokens, |tokens, pass| {
            let kept = pass.indices(layer, self.after, tokens.len());
            kept.map(|index| tokens[index]).collect()
        })
    }

    /// Where the next cut of a layer begins: worked out from a prompt of `prompt` tokens and a text of `seen` so far, as if
    /// nothing was pinned.
    pub(crate) fn cursor(
        &self,
        layer: usize,
        capacity: usize,
        prompt: usize,
        seen: usize,
    ) -> usize {
        let (mut len, mut cursor) = (prompt, self.start);
        if prompt > capacity + 1 {
            let (passes, next) = self.passes(capacity, cursor, prompt);
            cursor = next;
            for pass in passes {
                len = pass.indices(layer, self.after, len).count();
            }
        }
        // The head is full for the first time, and from then on whenever it has got back what a group lost.
        let generated = seen.saturating_sub(prompt);
        let cuts = generated
            .saturating_sub(capacity + 1 - len)
            .div_ceil(self.loss());
        let on = self.groups(capacity, cursor);
        if cuts <= on {
            return cursor + cuts * self.after;
        }
        let round = self.groups(capacity, self.start);
        self.start + (1 + (cuts - on - 1) % round) * self.after
    }
}

impl Pass {
    /// The places that a layer keeps of `len`, ascending. Offsets go from layer to layer, as far as the group is wide.
    fn indices(self, layer: usize, rungs: usize, len: usize) -> impl Iterator<Item = usize> {
        let Self {
            start,
            groups,
            width,
            stride,
        } = self;
        let offset = layer % (width - rungs + 1);
        let end = (start + width * groups).min(len);
        let rung =
            move |group| (0..rungs).map(move |rung| start + group * width + offset + rung * stride);
        let kept = (0..groups).flat_map(rung);
        // Strides may lead out of the last group, to a token that is kept anyway; and where the groups are wider than what
        // is left of the text, the newest token stands in one.
        let newest = len - 1;
        (0..start.min(len))
            .chain(kept.filter(move |&index| index < newest.min(end)))
            .chain(end.min(newest)..len)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::LaCacheConfig;

    /// The authors' ladder of 32 layers: pairs, of which one stays.
    const PAIRS: Ladder = Ladder {
        layers: 32,
        start: 4,
        before: 2,
        after: 1,
    };

    #[test]
    fn even_layers_keep_the_first_of_each_pair_and_odd_ones_the_second() {
        // 50 tokens into 46: four pairs behind the start are cut, and nothing else.
        let all: Vec<u32> = (0..50).collect();
        let kept = |layer| PAIRS.cut(layer, 46, 4, all.clone());
        let rest = || 12..50;
        let even: Vec<u32> = [0, 1, 2, 3, 4, 6, 8, 10]
            .into_iter()
            .chain(rest())
            .collect();
        let odd: Vec<u32> = [0, 1, 2, 3, 5, 7, 9, 11]
            .into_iter()
            .chain(rest())
            .collect();
        assert_eq!((kept(0), kept(1), kept(30)), (even.clone(), odd, even));
    }

    #[test]
    fn the_cursor_goes_on_and_starts_over() {
        let cursor = |seen| PAIRS.cursor(0, 40, 30, seen);
        // Full at 41 tokens; four pairs fit before the 32 newest, then it starts over.
        let cursors: Vec<usize> = (41..51).map(cursor).collect();
        assert_eq!(cursors, [4, 5, 6, 7, 8, 5, 6, 7, 8, 5]);
        // A prompt of 42 tokens is cut at once, by two pairs.
        assert_eq!(PAIRS.cursor(0, 40, 42, 43), 6);
    }

    /// Where the cuts leave the cursor, one by one.
    fn replayed(
        ladder: Ladder,
        layer: usize,
        capacity: usize,
        prompt: usize,
        seen: usize,
    ) -> usize {
        let mut cursor = ladder.start;
        let mut tokens: Vec<u32> = (0..).take(prompt).collect();
        let mut cut = |tokens: &mut Vec<u32>| {
            let (_, next) = ladder.passes(capacity, cursor, tokens.len());
            *tokens = ladder.cut(layer, capacity, cursor, std::mem::take(tokens));
            cursor = next;
        };
        if prompt > capacity + 1 {
            cut(&mut tokens);
        }
        for next in (0..).take(seen).skip(prompt) {
            if tokens.len() > capacity {
                cut(&mut tokens);
            }
            tokens.push(next);
        }
        cursor
    }

    #[test]
    fn the_cursor_is_where_the_cuts_leave_it_and_every_cut_fits() {
        let fresh = || RandomState::new().hash_one("headroom");
        let seed: u64 = std::env::var("HEADROOM_SEED").map_or_else(
            |_| fresh(),
            |text| text.parse().expect("HEADROOM_SEED is a number"),
        );
        eprintln!("HEADROOM_SEED={seed} repeats this run");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut ladders = 0;
        while ladders < 2000 {
            let layers = rng.random_range(2..40);
            let span = rng.random_range(1..layers);
            let config = LaCacheConfig {
                start: rng.random_range(0..9),
                span: Some(span),
                overlap: rng.random_range(0..span),
            };
            let Ok(ladder) = config.ladder(layers) else {
                continue;
            };
            ladders += 1;
            let layer = rng.random_range(0..layers);
            let capacity = ladder.least() + rng.random_range(0..60);
            let prompt = rng.random_range(1..5 * capacity);
            let seen = prompt + rng.random_range(0..3 * capacity);
            let case = format!("{ladder:?}, layer {layer}, {capacity}, {prompt}, {seen}");
            let tokens: Vec<u32> = (0..).take(capacity + prompt).collect();
            let kept = ladder.cut(layer, capacity, ladder.start, tokens.clone());
            assert!(kept.len() <= capacity, "{case}: {}", kept.len());
            assert!(kept.is_sorted_by(|a, b| a < b), "{case}: {kept:?}");
            assert_eq!(kept.last(), tokens.last(), "{case}");
            assert_eq!(kept[..ladder.start], tokens[..ladder.start], "{case}");
            assert_eq!(
                ladder.cursor(layer, capacity, prompt, seen),
                replayed(ladder, layer, capacity, prompt, seen),
                "{case}"
            );
        }
    }
}
