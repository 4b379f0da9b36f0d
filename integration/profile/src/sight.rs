//! What a head sees while it is trained.

/// Queries that are worked out at a time.
const AT_ONCE: usize = 64;

/// What a head sees of the tokens up to its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// All of them.
    Full,
    /// The first and the latest.
    Streaming(Window),
}

/// Sinks and window of streaming heads, in blocks as the authors' kernel has them: a query sees the first `sinks` tokens, and
/// of its own block and those before it so many that they make `recent` tokens. With blocks of one token, just `recent` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// First tokens of the text, a multiple of `block`.
    pub(crate) sinks: usize,
    /// Latest tokens, a multiple of `block`, at least one block.
    pub(crate) recent: usize,
    /// Tokens of a block, from 1.
    pub(crate) block: usize,
}

impl Window {
    /// Whether query `query` sees token `token`.
    pub(crate) const fn sees(&self, query: usize, token: usize) -> bool {
        let (at, of) = (query / self.block, token / self.block);
        token <= query && (token < self.sinks || (at - of) * self.block < self.recent)
    }

    /// The first of the latest tokens that query `query` sees.
    const fn first_recent(&self, query: usize) -> usize {
        let end = (query / self.block + 1) * self.block;
        end.saturating_sub(self.recent)
    }
}

/// A few queries in a row.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) first: usize,
    pub(crate) queries: usize,
    /// The tokens that any of them sees.
    pub(crate) tokens: Vec<u32>,
    /// What is added to their scores, `[queries, tokens]`: 0, or negative infinity where one is not seen.
    pub(crate) mask: Vec<f32>,
}

impl Sight {
    /// Whether query `query` sees token `token`.
    pub(crate) const fn sees(self, query: usize, token: usize) -> bool {
        match self {
            Self::Full => token <= query,
            Self::Streaming(window) => window.sees(query, token),
        }
    }

    /// A text of `tokens` tokens, a few queries at a time.
    pub(crate) fn blocks(self, tokens: usize) -> impl Iterator<Item = Block> {
        let firsts = (0..tokens).step_by(AT_ONCE);
        firsts.map(move |first| self.block(first, AT_ONCE.min(tokens - first)))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a text has fewer than 2^32 tokens"
    )]
    fn block(self, first: usize, queries: usize) -> Block {
        let end = first + queries;
        let tokens: Vec<u32> = match self {
            Self::Full => (0..end as u32).collect(),
            Self::Streaming(window) => {
                let recent = window.first_recent(first);
                let sinks = window.sinks.min(recent);
                (0..sinks as u32).chain(recent as u32..end as u32).collect()
            }
        };
        let sees = |query: usize, token: u32| self.sees(query, token as usize);
        let mask = (first..end).flat_map(|query| {
            let row = tokens.iter().map(move |&token| sees(query, token));
            row.map(|sees| if sees { 0.0 } else { f32::NEG_INFINITY })
        });
        Block {
            mask: mask.collect(),
            first,
            queries,
            tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(sight: Sight, query: usize) -> Vec<usize> {
        (0..=query + 3)
            .filter(|&token| sight.sees(query, token))
            .collect()
    }

    #[test]
    fn the_window_of_the_method_page() {
        let window = Window {
            sinks: 2,
            recent: 3,
            block: 1,
        };
        assert_eq!(seen(Sight::Streaming(window), 6), [0, 1, 4, 5, 6]);
        assert_eq!(seen(Sight::Streaming(window), 1), [0, 1]);
        assert_eq!(seen(Sight::Full, 2), [0, 1, 2]);
    }

    #[test]
    fn a_window_of_blocks() {
        let window = Sight::Streaming(Window {
            sinks: 4,
            recent: 8,
            block: 4,
        });
        // Its own block and the one before it.
        assert_eq!(seen(window, 17), [0, 1, 2, 3, 12, 13, 14, 15, 16, 17]);
        assert_eq!(seen(window, 16), [0, 1, 2, 3, 12, 13, 14, 15, 16]);
        assert_eq!(seen(window, 9), (0..=9).collect::<Vec<_>>());
    }

    /// Blocks of queries hold what each of them sees, and nothing that none of them sees.
    #[test]
    fn blocks_cover_what_is_seen() {
        for (sinks, recent, block) in [(2, 3, 1), (4, 8, 4), (32, 64, 32), (0, 100, 50)] {
            let window = Window {
                sinks,
                recent,
                block,
            };
            for sight in [Sight::Full, Sight::Streaming(window)] {
                let mut next = 0;
                for few in sight.blocks(300) {
                    assert_eq!(few.first, next);
                    next += few.queries;
                    for index in 0..few.queries {
                        let row = &few.mask[index * few.tokens.len()..][..few.tokens.len()];
                        let shown = few.tokens.iter().zip(row).filter(|(_, mask)| **mask == 0.0);
                        let shown: Vec<usize> = shown.map(|(&token, _)| token as usize).collect();
                        assert_eq!(shown, seen(sight, few.first + index), "{sight:?}");
                    }
                }
                assert_eq!(next, 300);
            }
        }
    }
}
