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

use super::caches::{FULL, FULL_BUDGET};

/// Which cache.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct CacheName {
    /// The policy; `keep-all` is the full cache.
    pub(super) policy: String,
    /// The budget asked for; what was held is measured.
    pub(super) budget: String,
    /// A baseline that was given as many bytes as this policy held under that budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bytes_of: Option<String>,
    /// Which of several draws, of a policy that draws at random.
    #[serde(default, skip_serializing_if = "is_first")]
    pub(super) draw: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_first(draw: &u64) -> bool {
    *draw == 0
}

impl CacheName {
    /// The full cache.
    pub(super) fn full() -> Self {
        Self {
            policy: FULL.into(),
            budget: FULL_BUDGET.into(),
            bytes_of: None,
            draw: 0,
        }
    }

    /// A baseline under the same budget.
    pub(super) fn baseline(&self, policy: &str) -> Self {
        Self {
            policy: policy.into(),
            budget: self.budget.clone(),
            bytes_of: None,
            draw: 0,
        }
    }

    /// Whether it stands where one picture for each policy and budget is wanted.
    pub(super) const fn is_main(&self) -> bool {
        self.bytes_of.is_none() && self.draw == 0
    }

    /// For people: the policy, and whose bytes it got.
    pub(super) fn title(&self) -> String {
        match &self.bytes_of {
            None => self.policy.clone(),
            Some(other) => format!("{}, bytes of {other}", self.policy),
        }
    }
}

/// Where the question stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Question {
    /// Behind what is compressed: the method does not know it. Where there are several, one after the other.
    Outside,
    /// As that, where each of several questions stands there by itself.
    Alone,
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
            Self::Alone => "alone",
            Self::Inside => "inside",
            Self::Pinned => "pinned",
        }
    }

    /// For people.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Outside => "question behind what is compressed",
            Self::Alone => "each question by itself behind what is compressed",
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
    /// Both when the text had been compressed and one token read behind it, where much is read behind it.
    pub(super) text_bytes: Option<(usize, usize)>,
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
    /// What the results are of, and where that is written before the first of them.
    options: Option<(PathBuf, String)>,
}

impl Records {
    /// Opens a folder. What an earlier run with the same `options` left is taken over; with others it is refused.
    pub(super) fn open(folder: &Path, options: &impl Serialize) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|error| refused(folder, &error))?;
        let options = serde_json::to_string_pretty(options)?;
        let settings = folder.join("options.json");
        let options = match fs::read_to_string(&settings) {
            Ok(before) if before != options => {
                let reason = "holds results of other options: name another folder, or remove it";
                return Err(StartError::File {
                    path: folder.to_owned(),
                    reason: reason.to_owned(),
                }
                .into());
            }
            Ok(_) => None,
            Err(_) => Some((settings, options)),
        };
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
            options,
        })
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Record> {
        self.known.get(key)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Record> {
        self.known.values()
    }

    pub(super) fn add(&mut self, record: Record) -> Result<()> {
        if let Some((path, options)) = self.options.take() {
            fs::write(&path, options).map_err(|error| refused(&path, &error))?;
        }
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
                cache: CacheName {
                    policy,
                    budget,
                    bytes_of: None,
                    draw: 0,
                },
            },
            depth: Some(0.5),
            text_tokens: 100,
            cached_tokens: 110,
            pages_held: 5,
            pages_full: 20,
            held_bytes: 50,
            full_bytes: 200,
            text_bytes: None,
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
