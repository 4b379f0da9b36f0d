//! What is written, in the formats of the methods' authors, and read again.
mod duo;
mod head_kv;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::ProfileError;
pub(crate) use duo::{SIZES, TABLE};
pub use head_kv::HeadScores;

/// A number that comes out of a file as it went in, to the last bit, which JSON's own numbers do not promise.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Exact(pub(crate) f64);

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:e}", self.0))
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

/// What a profile says of every head, whichever method it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Rows are layers, `[L]`; columns KV heads (`duo-attention`) or query heads (`head-kv`).
    pub values: Vec<Vec<f64>>,
    /// What the format says that they are.
    pub kind: Kind,
}

/// Formats of profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// DuoAttention's `full_attention_heads.tsv`: the gates of KV heads.
    Duo,
    /// HeadKV's JSON: the scores of query heads.
    HeadKv,
}

impl Profile {
    /// Reads a `full_attention_heads.tsv`, a folder that holds one, or a JSON of scores. The model's shape is taken from it.
    ///
    /// # Errors
    ///
    /// What cannot be read, and what is wrong in it.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let path = if path.is_dir() {
            path.join(TABLE)
        } else {
            path.to_owned()
        };
        let text = fs::read_to_string(&path).map_err(|error| ProfileError::file(&path, error))?;
        let parsed = if path.extension().is_some_and(|end| end == "json") {
            HeadScores::parse(&text).map(|scores| Self {
                values: scores.means(),
                kind: Kind::HeadKv,
            })
        } else {
            duo::parse(&text).map(|values| Self {
                values,
                kind: Kind::Duo,
            })
        };
        parsed.map_err(|reason| ProfileError::file(&path, reason))
    }

    /// Every value over `whole`, from 0 to 1; 0 where that is 0.
    #[must_use]
    pub fn scaled(&self, whole: f64) -> Vec<Vec<f64>> {
        let share = |&value: &f64| {
            if whole > 0.0 {
                (value / whole).clamp(0.0, 1.0)
            } else {
                0.0
            }
        };
        let row = |row: &Vec<f64>| row.iter().map(share).collect();
        self.values.iter().map(row).collect()
    }

    /// The same values, each at a head that `seed` draws.
    #[must_use]
    pub fn shuffled(&self, seed: u64) -> Self {
        let mut all: Vec<f64> = self.values.concat();
        all.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let mut rest = all.as_slice();
        let mut values = Vec::with_capacity(self.values.len());
        for row in &self.values {
            let (row, others) = rest.split_at(row.len());
            values.push(row.to_vec());
            rest = others;
        }
        Self {
            values,
            kind: self.kind,
        }
    }

    /// Writes it: DuoAttention's table into the folder `path`, HeadKV's scores into the file `path`.
    ///
    /// # Errors
    ///
    /// What cannot be written.
    pub fn write(&self, path: &Path) -> Result<PathBuf, ProfileError> {
        match self.kind {
            Kind::Duo => {
                let file = path.join(TABLE);
                write(&file, &duo::table(&self.values)).map(|()| file)
            }
            Kind::HeadKv => {
                let scores = HeadScores::of_means(&self.values);
                write(path, &scores.json()).map(|()| path.to_owned())
            }
        }
    }
}

/// Writes a file whole or not at all, and its folder where there is none.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), ProfileError> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let part = path.with_extension("part");
    let made = folder.map_or(Ok(()), fs::create_dir_all);
    let written = made
        .and_then(|()| fs::write(&part, text))
        .and_then(|()| fs::rename(&part, path));
    written.map_err(|source| ProfileError::Write {
        path: path.to_owned(),
        source,
    })
}
