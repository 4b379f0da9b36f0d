//! What a program on disk can do wrong.
use std::{path::PathBuf, time::Duration};

/// What a program did instead of answering.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The system did not start it.
    #[error("could not be started: {0}")]
    NotStarted(String),
    /// It is no longer there, or closed its pipes.
    #[error("ended without an answer ({0})")]
    Ended(String),
    /// It did not answer in time.
    #[error("gave no answer within {0:?}")]
    Silent(Duration),
    /// It wrote something that is no answer; most often a policy that prints.
    #[error("wrote {0} to its standard output, which is for answers alone")]
    Garbage(String),
    /// The policy panicked; the text is the panic's.
    #[error("panicked: {0}")]
    Panicked(String),
    /// It answered another question, or what cannot be carried out.
    #[error("answered {0}")]
    Unfit(String),
    /// It is no longer the program that was loaded.
    #[error("has changed since it was loaded ({0}); load it again")]
    Changed(String),
    /// The host's own panic left a question open.
    #[error("was left without the end of a question, for its host panicked")]
    BrokenOff,
}

/// A question to a policy on disk that was not answered. The policy is not asked again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy {policy}: asked for {question}, its program {} {failure}", program.display())]
pub struct CallError {
    /// The policy's name.
    pub policy: &'static str,
    /// Its program.
    pub program: PathBuf,
    /// What it was asked for.
    pub question: String,
    /// What it did.
    pub failure: Failure,
}

/// Why a program is no policy for this host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// There is no such program, or it cannot be started.
    #[error("the policy {} cannot be started: {reason}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// It did not introduce itself.
    #[error("{} is no policy: asked for its name, it {failure}", program.display())]
    Hello {
        /// The program.
        program: PathBuf,
        /// What it did.
        failure: Failure,
    },
    /// It was built for another version.
    #[error(
        "the policy {} speaks protocol {} with ABI {}, this program speaks protocol {} with ABI {}: build it with \
         the `kv-loader` of this program",
        program.display(), theirs.0, theirs.1, ours.0, ours.1
    )]
    Version {
        /// The program.
        program: PathBuf,
        /// Its [`PROTOCOL`](crate::PROTOCOL) and [`ABI`](crate::ABI).
        theirs: (u64, u64),
        /// Ours.
        ours: (u64, u64),
    },
    /// What it says of itself cannot be registered.
    #[error("the policy {} says that its `{field}` is {value}, must be {allowed}", program.display())]
    Description {
        /// The program.
        program: PathBuf,
        /// `name` or `summary`.
        field: &'static str,
        /// What it says.
        value: String,
        /// What is allowed, in words that follow "must be".
        allowed: String,
    },
}
