//! What the queries of a prompt may see.

/// The tokens that a query of a prompt attends to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sight {
    /// All tokens before it, and its own.
    #[default]
    Causal,
    /// The first tokens of the text, and the most recent ones.
    Streaming {
        /// How many of the first.
        sinks: usize,
        /// How many of the most recent, the query's own among them; at least 1.
        recent: usize,
    },
}

impl Sight {
    /// Whether `query` sees `token`.
    #[must_use]
    pub const fn sees(self, query: usize, token: usize) -> bool {
        match self {
            Self::Causal => token <= query,
            Self::Streaming { sinks, recent } => {
                token <= query && (token < sinks || query - token < recent)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streaming_sees_sinks_and_the_most_recent() {
        let seen = |sight: Sight, query| -> Vec<usize> {
            (0..10).filter(|&token| sight.sees(query, token)).collect()
        };
        let streaming = Sight::Streaming {
            sinks: 2,
            recent: 3,
        };
        assert_eq!(seen(Sight::Causal, 4), [0, 1, 2, 3, 4]);
        assert_eq!(seen(streaming, 0), [0]);
        assert_eq!(seen(streaming, 4), [0, 1, 2, 3, 4]);
        assert_eq!(seen(streaming, 7), [0, 1, 5, 6, 7]);
    }
}
