//! Kinds of text that a head holds on to while it grows.
use crate::TokenClass;

/// Token classes that a head protects, see [`Growth::Protect`](crate::Growth::Protect).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize,
)]
pub struct Protected {
    /// [`TokenClass::Special`].
    pub special: bool,
    /// [`TokenClass::Punctuation`].
    pub punctuation: bool,
}

impl Protected {
    /// Whether a token of this class is protected.
    ///
    /// ```
    /// use kv_core::{Protected, TokenClass};
    /// let special = Protected { special: true, punctuation: false };
    /// assert!(special.names(TokenClass::Special) && !special.names(TokenClass::Punctuation));
    /// ```
    #[must_use]
    pub const fn names(self, class: TokenClass) -> bool {
        match class {
            TokenClass::Plain => false,
            TokenClass::Special => self.special,
            TokenClass::Punctuation => self.punctuation,
        }
    }
}
