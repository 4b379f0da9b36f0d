//! Files that a configuration names: profiles of a model's heads.
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{ConfigError, ProfileError};

/// A file that a field of a policy names, for reading it whatever it turns out to be and for errors that name it.
#[derive(Debug, Clone)]
pub struct ProfileFile {
    policy: &'static str,
    field: &'static str,
    path: PathBuf,
    largest: u64,
}

impl ProfileFile {
    /// The file at `path`, named by `field` of `policy`; more than `largest` bytes are no such profile.
    #[must_use]
    pub fn new(
        policy: &'static str,
        field: &'static str,
        path: impl Into<PathBuf>,
        largest: u64,
    ) -> Self {
        Self {
            policy,
            field,
            path: path.into(),
            largest,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Another file of the same profile, beside this one.
    #[must_use]
    pub fn beside(&self, name: &str) -> Self {
        Self {
            path: self.path.with_file_name(name),
            ..self.clone()
        }
    }

    /// An error at a place in the file; an empty place for the whole of it.
    #[must_use]
    pub fn wrong(
        &self,
        place: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Profile(Box::new(ProfileError {
            policy: self.policy,
            field: self.field,
            file: self.path.display().to_string(),
            place: place.into(),
            found: found.into(),
            expected: expected.into(),
        }))
    }

    /// An error where a JSON text stops making sense.
    #[must_use]
    pub fn malformed(&self, error: &serde_json::Error, expected: &str) -> ConfigError {
        let place = format!("line {}, column {}", error.line(), error.column());
        // The message ends with the place once more.
        let message = error.to_string();
        let what = message.split(" at line ").next().unwrap_or_default();
        self.wrong(place, format!("an error ({what})"), expected)
    }

    /// The whole text; `expected` says what the file should have been.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Profile`] if there is no such file, it cannot be read, it is too large, or it is no UTF-8.
    pub fn read(&self, expected: &str) -> Result<String, ConfigError> {
        let failed = |error: io::Error| {
            let found = match error.kind() {
                io::ErrorKind::NotFound => "no such file".into(),
                _ => format!("an error ({error})"),
            };
            self.wrong("", found, expected)
        };
        let metadata = self.path.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(self.wrong("", "something that is no file", expected));
        }
        let mut bytes = Vec::new();
        if metadata.len() <= self.largest {
            // A file may grow while it is read.
            let file = File::open(&self.path).map_err(failed)?;
            file.take(self.largest + 1)
                .read_to_end(&mut bytes)
                .map_err(failed)?;
        }
        let size = metadata.len().max(bytes.len() as u64);
        if size > self.largest {
            return Err(self.wrong(
                "",
                format!("{size} bytes or more"),
                format!("at most {}", self.largest),
            ));
        }
        String::from_utf8(bytes).map_err(|error| {
            let byte = error.utf8_error().valid_up_to();
            self.wrong(format!("byte {byte}"), "bytes that are not UTF-8", "text")
        })
    }

    /// A piece of the file for an error: quoted, without control characters, and not too long.
    #[must_use]
    pub fn quoted(text: &str) -> String {
        const LONGEST: usize = 40;
        let printable = |c: char| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        };
        let start: String = text.chars().take(LONGEST).map(printable).collect();
        let dots = if text.chars().nth(LONGEST).is_some() {
            "..."
        } else {
            ""
        };
        format!("`{start}{dots}`")
    }
}
