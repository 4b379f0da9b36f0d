//! `HeadKV`'s scores: where heads look while a model says what it has found in a long text.
//!
//! Fu et al., *Not All Heads Matter: A Head-Level KV Cache Compression Method with Integrated Retrieval and Reasoning*, ICLR 2025,
//! <https://arxiv.org/abs/2410.19258>. Retrieval heads (R) are scored as in Wu et al., *Retrieval Head Mechanistically Explains
//! Long-Context Factuality*, <https://arxiv.org/abs/2404.15574>.
mod answers;
mod scores;
mod texts;

use crate::ProfileError;
pub use answers::{is_answered, said_of};
pub use scores::Seen;
pub use texts::{Needle, Run, Tokens, from_lines};

/// Most tokens that the model says.
pub const MOST_SAID: usize = 50;

/// Which score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// How often a head looks most at the very token that the model says next: retrieval heads.
    R,
    /// How much attention a head has for the right answer, whatever is said: retrieval-reasoning heads.
    R2,
}

impl Method {
    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::R => "r",
            Self::R2 => "r2",
        }
    }
}

/// Which texts are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Which score.
    pub method: Method,
    /// Tokens of the shortest text, needle and question aside (the authors: 0).
    pub min_length: usize,
    /// Tokens of the longest text, needle and question aside (the authors: 10,000).
    pub max_length: usize,
    /// Different lengths, in equal steps (the authors: 5).
    pub lengths: usize,
    /// Different depths of a needle, from the beginning to the end in equal steps (the authors: 10).
    pub depths: usize,
    /// Of where the text is cut out.
    pub seed: u64,
}

impl Default for Options {
    /// The authors' numbers, with texts of a length that a small model answers.
    fn default() -> Self {
        Self {
            method: Method::R2,
            min_length: 100,
            max_length: 1500,
            lengths: 5,
            depths: 10,
            seed: 42,
        }
    }
}

impl Options {
    /// Refuses numbers that make no sense, or that ask for more than a text of `found` tokens has.
    fn check(&self, found: usize) -> Result<(), ProfileError> {
        ProfileError::below(&[
            ("lengths", self.lengths, 1),
            ("depths", self.depths, 1),
            ("max_length", self.max_length, self.min_length),
        ])?;
        if self.max_length > found {
            let allowed = format!("at most {found}, the tokens of the text");
            return Err(ProfileError::out_of_range(
                "max_length",
                self.max_length,
                allowed,
            ));
        }
        Ok(())
    }
}
