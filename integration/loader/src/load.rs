//! Starting a program, and learning what policy it is.
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime},
};

use kv_core::{Budget, Cadence, ConfigError, Description, Geometry, ProfileError, Registry};
use parking_lot::Mutex;
use serde_json::Value;

use crate::{
    error::{CallError, Failure, LoadError},
    messages::{ABI, Answer, Hello, PROTOCOL, Question, Refusal},
    policy::{Bound, DiskPolicy},
    session::Session,
    wire::Numbers,
};

/// The longest that a program may take for an answer, unless [`load_within`] says otherwise.
const LIMIT: Duration = Duration::from_secs(10);

/// A program that was started once and has said which policy it is. Every policy bound from it is a process of its own.
#[derive(Debug, Clone)]
pub struct Loaded {
    program: Arc<Program>,
    description: Description,
}

#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    limit: Duration,
    stamp: Stamp,
    hello: Hello,
    /// The first failure of a policy that was bound from it.
    pub(crate) failure: OnceLock<CallError>,
}

/// What changes when a program is built again.
type Stamp = (u64, Option<SystemTime>);

/// Starts the policy at `path`, and waits at most ten seconds for each of its answers, now and later.
///
/// # Errors
///
/// [`LoadError`] if it is no policy, or one for another version.
pub fn load(path: impl AsRef<Path>) -> Result<Loaded, LoadError> {
    load_within(path, LIMIT)
}

/// As [`load`], with another limit for each answer.
///
/// # Errors
///
/// As [`load`].
pub fn load_within(path: impl AsRef<Path>, limit: Duration) -> Result<Loaded, LoadError> {
    let path = path.as_ref();
    let start = |error: io::Error| LoadError::Start {
        program: path.to_owned(),
        reason: error.to_string(),
    };
    // A path without a slash would be looked up among the system's programs.
    let program = fs::canonicalize(path).map_err(start)?;
    let stamp = stamp(&program).map_err(start)?;
    let session = Session::start(&program, limit).map_err(start)?;
    let hello = introduce(session, &program)?;
    let description = description(&program, &hello)?;
    let program = Program {
        name: description.name,
        path: program,
        limit,
        stamp,
        hello,
        failure: OnceLock::new(),
    };
    Ok(Loaded {
        program: Arc::new(program),
        description,
    })
}

impl Loaded {
    /// The policy's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.program.name
    }

    /// Its name, summary and fields.
    #[must_use]
    pub const fn description(&self) -> &Description {
        &self.description
    }

    /// Where the program is.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program.path
    }

    /// The first failure of a policy that was bound from it, if there was one.
    #[must_use]
    pub fn failure(&self) -> Option<&CallError> {
        self.program.failure.get()
    }

    /// Itself, if that is its name: for a host whose user named both.
    ///
    /// # Errors
    ///
    /// [`LoadError::Description`] if it is called something else.
    pub fn called(self, name: &str) -> Result<Self, LoadError> {
        if self.name() == name {
            return Ok(self);
        }
        Err(self.misnamed(format!("`{name}`, as asked for")))
    }

    fn misnamed(&self, allowed: String) -> LoadError {
        LoadError::Description {
            program: self.program.path.clone(),
            field: "name",
            value: format!("`{}`", self.name()),
            allowed,
        }
    }

    /// Adds it to a registry.
    ///
    /// # Errors
    ///
    /// [`LoadError::Description`] if a policy of its name is there already.
    pub fn register(&self, registry: &mut Registry) -> Result<(), LoadError> {
        if registry.names().any(|name| name == self.name()) {
            return Err(self.misnamed("one that no other policy of this program has".into()));
        }
        let loaded = self.clone();
        registry.add_described(self.description.clone(), move |fields, geometry, budget| {
            let policy = loaded.bind(fields, geometry, budget)?;
            Ok(Box::new(policy))
        });
        Ok(())
    }

    /// Checks a table of fields against a model and a budget, and starts a policy of its own.
    ///
    /// # Errors
    ///
    /// What the policy refuses; [`ConfigError::Malformed`] if its program fails.
    pub fn bind(
        &self,
        fields: Value,
        geometry: &Geometry,
        budget: Budget,
    ) -> Result<DiskPolicy, ConfigError> {
        let question = Question::Bind {
            fields,
            geometry: *geometry,
            budget: budget.into(),
        };
        let mut session = self.program.session().map_err(malformed)?;
        let answer = session.ask(&question);
        match answer {
            Ok(Answer::Bound { needs, .. }) if needs.cadence == Cadence::Cascade => {
                Err(ConfigError::Unsupported {
                    policy: self.name().into(),
                    need: needs.cadence.to_string(),
                    offered:
                        "the other cadences to a policy on disk: reports of layers do not cross"
                            .into(),
                })
            }
            Ok(Answer::Bound {
                needs,
                notice,
                ranks,
            }) => {
                let bound = Bound {
                    geometry: *geometry,
                    needs,
                    notice,
                    ranks,
                };
                Ok(DiskPolicy::new(self.program.clone(), bound, session))
            }
            Ok(Answer::Refused(refusal)) => Err(self.refused(refusal)),
            Ok(other) => Err(malformed(self.program.failed("its needs", unfit(&other)))),
            Err(failure) => Err(malformed(self.program.failed("its needs", failure))),
        }
    }

    /// A refusal in the host's words. A field that the policy does not have is not blamed.
    fn refused(&self, refusal: Refusal) -> ConfigError {
        let policy = self.name();
        let known = |field: &str| {
            let mut fields = self.description.fields.iter();
            fields
                .any(|known| known.name == field)
                .then(|| forever(field))
        };
        match refusal {
            Refusal::OutOfRange {
                field,
                value,
                allowed,
            } => match known(&field) {
                Some(field) => ConfigError::out_of_range(policy, field, value, allowed),
                None => ConfigError::Malformed {
                    policy,
                    reason: format!("`{field}` is {value}, must be {allowed}"),
                },
            },
            Refusal::Profile {
                field,
                file,
                place,
                found,
                expected,
            } => match known(&field) {
                Some(field) => ConfigError::Profile(Box::new(ProfileError {
                    policy,
                    field,
                    file,
                    place,
                    found,
                    expected,
                })),
                None => ConfigError::Malformed {
                    policy,
                    reason: format!("`{field}` {file} {place}: found {found}, expected {expected}"),
                },
            },
            Refusal::Malformed(reason) => ConfigError::Malformed { policy, reason },
            Refusal::Budget { value, allowed } => ConfigError::Budget { value, allowed },
            Refusal::Unsupported { need, offered } => ConfigError::Unsupported {
                policy: policy.into(),
                need,
                offered,
            },
        }
    }
}

/// A failed call where there is no policy yet.
fn malformed(error: CallError) -> ConfigError {
    ConfigError::Malformed {
        policy: error.policy,
        reason: format!(
            "asked for {}, its program {} {}",
            error.question,
            error.program.display(),
            error.failure
        ),
    }
}

impl Program {
    /// Starts the program once more.
    fn session(&self) -> Result<Session, CallError> {
        let changed = |what: &str| Failure::Changed(format!("its {what} differs"));
        let start = || {
            if stamp(&self.path).ok() != Some(self.stamp) {
                return Err(changed("file"));
            }
            let mut session = Session::start(&self.path, self.limit)
                .map_err(|error| Failure::NotStarted(error.to_string()))?;
            match session.ask(&hello())? {
                Answer::Hello(hello) if hello == self.hello => Ok(session),
                Answer::Hello(_) => Err(changed("description")),
                other => Err(unfit(&other)),
            }
        };
        start().map_err(|failure| self.failed("its name", failure))
    }

    pub(crate) fn failed(&self, question: impl Into<String>, failure: Failure) -> CallError {
        CallError {
            policy: self.name,
            program: self.path.clone(),
            question: question.into(),
            failure,
        }
    }
}

/// The answer to another question.
pub(crate) fn unfit(answer: &Answer) -> Failure {
    let text = serde_json::to_string(answer).unwrap_or_default();
    Failure::Unfit(format!(
        "another question, with {}",
        kv_core::ProfileFile::quoted(&text)
    ))
}

fn hello() -> Question {
    Question::Hello {
        protocol: PROTOCOL,
        abi: ABI,
    }
}

fn stamp(program: &Path) -> io::Result<Stamp> {
    let file = fs::metadata(program)?;
    if file.is_dir() {
        return Err(io::Error::other("it is a folder"));
    }
    Ok((file.len(), file.modified().ok()))
}

/// The first exchange, whose text is understood across versions as far as the numbers of the versions.
fn introduce(mut session: Session, program: &Path) -> Result<Hello, LoadError> {
    let failed = |failure: Failure| LoadError::Hello {
        program: program.to_owned(),
        failure,
    };
    let frame = session
        .ask_raw(&hello(), &Numbers::default())
        .map_err(failed)?;
    let text: Value = frame
        .message()
        .map_err(|text| failed(Failure::Garbage(text)))?;
    let number = |field: &str| text["hello"][field].as_u64();
    let ours = (u64::from(PROTOCOL), u64::from(ABI));
    match (number("protocol"), number("abi")) {
        (Some(protocol), Some(abi)) if (protocol, abi) != ours => {
            return Err(LoadError::Version {
                program: program.to_owned(),
                theirs: (protocol, abi),
                ours,
            });
        }
        _ => {}
    }
    match frame.message() {
        Ok(Answer::Hello(hello)) => Ok(hello),
        Ok(Answer::Panicked(text)) => Err(failed(Failure::Panicked(text))),
        Ok(other) => Err(failed(unfit(&other))),
        Err(text) => Err(failed(Failure::Garbage(text))),
    }
}

/// What the program says of itself, if it can be registered.
fn description(program: &Path, hello: &Hello) -> Result<Description, LoadError> {
    let refuse = |field, value: &str, allowed: &str| {
        Err(LoadError::Description {
            program: program.to_owned(),
            field,
            value: kv_core::ProfileFile::quoted(value),
            allowed: allowed.into(),
        })
    };
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    if !hello.name.split('-').all(is_word) {
        return refuse("name", &hello.name, "in kebab case, such as `my-policy`");
    }
    if hello.summary.trim().is_empty() || hello.summary.lines().count() != 1 {
        return refuse("summary", &hello.summary, "one line of text");
    }
    Ok(Description {
        name: forever(&hello.name),
        summary: forever(&hello.summary),
        fields: hello.fields.clone(),
    })
}

/// A text that lasts as long as the host, as the names of compiled policies do. The same text is kept once.
fn forever(text: &str) -> &'static str {
    static KEPT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut kept = KEPT.lock();
    if let Some(known) = kept.get(text) {
        return known;
    }
    let text: &'static str = Box::leak(text.into());
    kept.insert(text);
    text
}
