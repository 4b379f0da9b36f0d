//! What a property says when it does not hold.
use std::fmt;

use super::dice::seed;

/// A property that does not hold, and the case that shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    policy: &'static str,
    case: String,
    reason: String,
}

impl Failure {
    pub(super) fn new(
        policy: &'static str,
        case: impl fmt::Display,
        reason: impl fmt::Display,
    ) -> Self {
        Self {
            policy,
            case: case.to_string(),
            reason: reason.to_string(),
        }
    }

    /// What is wrong, without the case.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            policy,
            case,
            reason,
        } = self;
        write!(
            f,
            "policy {policy} {reason}\n  with {case}\n  HEADROOM_SEED={}",
            seed()
        )
    }
}

impl std::error::Error for Failure {}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)")
}
