//! Figures of one item under one cache, one line of a file each, so that a run that was cut off goes on where it was.
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use mistralrs_kv::StartError;
use serde::{Deserialize, Serialize};

use super::caches::FULL;

/// Which cache.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct CacheName {
    /// The policy; `keep-all` is the full cache.
    pub(super) policy: String,
    /// The budget asked for; what was held is measured.
    pub(super) budget: String,
}

impl CacheName {
    /// The full cache.
    pub(super) fn full() -> Self {
        Self {
            policy: FULL.into(),
            budget: "full".into(),
        }
    }
}

/// Where the question stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Question {
    /// Behind what is compressed: the method does not know it.
    Outside,
    /// In what is compressed, at its end.
    Inside,
    /// Behind what is compressed, of which the instruction at the beginning is pinned.
    Pinned,
}

impl Question {
    /// In files.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::Inside => "inside",
            Self::Pinned => "pinned",
        }
    }

    /// For people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Outside => "question behind what is compressed",
            Self::Inside => "question in what is compressed",
            Self::Pinned => "question behind, the rule pinned",
        }
    }
}

/// What one figure is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Key {
    pub(super) task: String,
    pub(super) item: String,
    pub(super) question: Question,
    #[serde(flatten)]
    pub(super) cache: CacheName,
}

impl Key {
    /// The same of the full cache.
    pub(super) fn of_full(&self) -> Self {
        Self {
            cache: CacheName::full(),
            ..self.clone()
        }
    }
}

/// Figures of one item under one cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(flatten)]
    pub(super) key: Key,
    pub(super) depth: Option<f64>,
    /// Tokens of the text that was compressed.
    pub(super) text_tokens: usize,
    /// Tokens that went through the cache, those behind the text included.
    pub(super) cached_tokens: usize,
    /// Pages held at the end, and by the full cache at the same length.
    pub(super) pages_held: usize,
    pub(super) pages_full: usize,
    /// The same in bytes.
    pub(super) held_bytes: usize,
    pub(super) full_bytes: usize,
    /// Whether all tokens of an answer were the most likely ones, for each answer.
    pub(super) exact: Vec<bool>,
    /// Of each scored token, its negative log-likelihood in nats.
    pub(super) nll: Vec<f64>,
    /// Of each, the divergence from the full cache's distribution in nats.
    pub(super) divergence: Vec<f64>,
    /// Of each, whether the most likely token is the full cache's.
    pub(super) agrees: Vec<bool>,
    /// Tokens held at the end, `[L][H]`.
    pub(super) kept: Vec<Vec<usize>>,
}

/// What has been measured, in memory and in a file.
#[derive(Debug)]
pub(super) struct Records {
    known: BTreeMap<Key, Record>,
    file: File,
}

impl Records {
    /// Opens a folder. What an earlier run with the same `options` left is taken over; with others it is refused.
    pub(super) fn open(folder: &Path, options: &impl Serialize) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|error| refused(folder, &error))?;
        let options = serde_json::to_string_pretty(options)?;
        let settings = folder.join("options.json");
        match fs::read_to_string(&settings) {
            Ok(before) if before != options => {
                let reason = "holds results of other options: name another folder, or remove it";
                return Err(StartError::File {
                    path: folder.to_owned(),
                    reason: reason.to_owned(),
                }
                .into());
            }
            Ok(_) => (),
            Err(_) => fs::write(&settings, options).map_err(|error| refused(&settings, &error))?,
        }
        let path = folder.join("results.jsonl");
        let mut known = BTreeMap::new();
        if let Ok(file) = File::open(&path) {
            for line in BufReader::new(file).lines() {
                // The last line of a run that was cut off may be half a line.
                if let Ok(record) = serde_json::from_str::<Record>(&line?) {
                    known.insert(record.key.clone(), record);
                }
            }
            rewrite(&path, known.values())?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        Ok(Self {
            known,
            file: file.map_err(|error| refused(&path, &error))?,
        })
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Record> {
        self.known.get(key)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Record> {
        self.known.values()
    }

    pub(super) fn add(&mut self, record: Record) -> Result<()> {
        let mut line = serde_json::to_string(&record)?;
        line.push('\n');
        self.file
            .write_all(line.as_bytes())
            .context("cannot write the results")?;
        self.known.insert(record.key.clone(), record);
        Ok(())
    }
}

/// Leaves whole lines only.
fn rewrite<'a>(path: &PathBuf, records: impl Iterator<Item = &'a Record>) -> Result<()> {
    let lines = records.map(serde_json::to_string);
    let mut text = lines.collect::<Result<Vec<_>, _>>()?.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    let whole = path.with_extension("jsonl.whole");
    fs::write(&whole, text).map_err(|error| refused(&whole, &error))?;
    fs::rename(&whole, path).map_err(|error| refused(path, &error).into())
}

fn refused(path: &Path, error: &std::io::Error) -> StartError {
    StartError::File {
        path: path.to_owned(),
        reason: format!("cannot be written: {error}"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn record(policy: &str, budget: &str, item: &str, exact: bool) -> Record {
        let [policy, budget] = [policy, budget].map(str::to_owned);
        Record {
            key: Key {
                task: "passkey".into(),
                item: item.into(),
                question: Question::Outside,
                cache: CacheName { policy, budget },
            },
            depth: Some(0.5),
            text_tokens: 100,
            cached_tokens: 110,
            pages_held: 5,
            pages_full: 20,
            held_bytes: 50,
            full_bytes: 200,
            exact: vec![exact],
            nll: vec![0.5, 1.5],
            divergence: vec![0.0, 0.25],
            agrees: vec![true, exact],
            kept: vec![vec![3, 4]],
        }
    }

    #[test]
    fn what_was_measured_is_there_again_and_half_a_line_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, two) = (
            record("h2o", "25%", "1", true),
            record("h2o", "25%", "2", false),
        );
        {
            let mut records = Records::open(folder.path(), &["a"]).expect("opens");
            records.add(one.clone()).expect("writes");
            records.add(two.clone()).expect("writes");
        }
        let path = folder.path().join("results.jsonl");
        let text = fs::read_to_string(&path).expect("results");
        fs::write(&path, &text[..text.len() - 10]).expect("writes");
        let mut records = Records::open(folder.path(), &["a"]).expect("opens");
        assert_eq!(records.get(&one.key), Some(&one));
        assert_eq!(records.get(&two.key), None);
        records.add(two.clone()).expect("writes");
        drop(records);
        let records = Records::open(folder.path(), &["a"]).expect("opens");
        assert_eq!(records.all().collect::<Vec<_>>(), [&one, &two]);
        let error = Records::open(folder.path(), &["b"]).expect_err("other options");
        assert!(error.to_string().contains("other options"), "{error}");
    }
}
