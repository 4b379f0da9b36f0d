//! Needles, and the texts that they are put into.
use std::{ops::Range, path::Path};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Method, Options};
use crate::ProfileError;

/// Something to be found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needle {
    /// What stands before the answer, and all that leads to it: for [`Method::R2`], another answer too, which is wrong.
    pub before: String,
    /// What is to be said.
    pub answer: String,
    /// What stands behind it.
    #[serde(default)]
    pub after: String,
    /// What is asked behind the text: a beginning that the answer goes on from.
    pub question: String,
}

impl Needle {
    fn new(before: &str, answer: &str, after: &str, question: &str) -> Self {
        Self {
            before: before.to_owned(),
            answer: answer.to_owned(),
            after: after.to_owned(),
            question: question.to_owned(),
        }
    }

    /// Those that are there where a user brings none: three for [`Method::R`] and two for [`Method::R2`].
    #[must_use]
    pub fn all(method: Method) -> Vec<Self> {
        match method {
            Method::R => vec![
                Self::new(
                    "\n\nThe finest thing to do in Lisbon is to",
                    " ride the yellow tram up the hill and drink a small coffee above the river",
                    ".\n\n",
                    "\n\nThe finest thing to do in Lisbon is to",
                ),
                Self::new(
                    "\n\nThe old clockmaker hid his silver key",
                    " behind the third brick of the garden wall, wrapped in a piece of blue cloth",
                    ".\n\n",
                    "\n\nThe old clockmaker hid his silver key",
                ),
                Self::new(
                    "\n\nTo make the soup of the lighthouse keeper, take",
                    " seven onions, a handful of dried mushrooms, black pepper and a glass of cider",
                    ".\n\n",
                    "\n\nTo make the soup of the lighthouse keeper, take",
                ),
            ],
            Method::R2 => vec![
                Self::new(
                    "\n\nHenry lives in the stone tower, Martha in the mill. The treasure of the mill is a pair of green lamps. The treasure \
                     of the stone tower is",
                    " eleven maps of the northern sea",
                    ".\n\n",
                    "\n\nHenry is asked what he owns. The treasure of the stone tower is",
                ),
                Self::new(
                    "\n\nClara bakes the honey cake, Simon the apple pie. The prize for the apple pie is two silver spoons. The prize for the \
                     honey cake is",
                    " seven yards of crimson velvet",
                    ".\n\n",
                    "\n\nClara is asked what she has won. The prize for the honey cake is",
                ),
            ],
        }
    }
}

/// Needles of a file: JSON lines with `before`, `answer`, `after` and `question`.
///
/// # Errors
///
/// A line that is something else, by its number; a file without any.
pub fn from_lines(path: &Path, text: &str) -> Result<Vec<Needle>, ProfileError> {
    let mut needles = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let needle: Needle = serde_json::from_str(line)
            .map_err(|error| ProfileError::file(path, format!("line {}: {error}", index + 1)))?;
        if needle.answer.trim().is_empty() {
            let reason = format!("line {}: `answer` is empty; allowed: some words", index + 1);
            return Err(ProfileError::file(path, reason));
        }
        needles.push(needle);
    }
    if needles.is_empty() {
        return Err(ProfileError::file(path, "no line with a needle"));
    }
    Ok(needles)
}

/// A long text and needles as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    text: Vec<u32>,
    /// Before, answer, after, question.
    needles: Vec<[Vec<u32>; 4]>,
}

/// One text with one needle in it and a question behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What the model reads.
    pub tokens: Vec<u32>,
    /// Where in it the answer stands.
    pub answer: Range<usize>,
    /// Which needle it is.
    pub needle: usize,
}

impl Tokens {
    /// Brings all to tokens.
    ///
    /// # Errors
    ///
    /// What `tokens` says.
    pub fn new<E>(
        text: &str,
        needles: &[Needle],
        mut tokens: impl FnMut(&str) -> Result<Vec<u32>, E>,
    ) -> Result<Self, E> {
        let mut all = Vec::with_capacity(needles.len());
        for needle in needles {
            let Needle {
                before,
                answer,
                after,
                question,
            } = needle;
            all.push([
                tokens(before)?,
                tokens(answer)?,
                tokens(after)?,
                tokens(question)?,
            ]);
        }
        Ok(Self {
            text: tokens(text)?,
            needles: all,
        })
    }

    /// Every needle at every depth of every length.
    ///
    /// # Errors
    ///
    /// Options that make no sense, and lengths beyond the text's or the `most` positions of the model.
    pub fn runs(&self, options: &Options, most: usize) -> Result<Vec<Run>, ProfileError> {
        options.check(self.text.len())?;
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        let mut runs = Vec::new();
        for needle in 0..self.needles.len() {
            for length in 0..options.lengths {
                let length = between(
                    options.min_length,
                    options.max_length,
                    length,
                    options.lengths,
                );
                for depth in 0..options.depths {
                    let first = rng.random_range(0..=self.text.len() - length);
                    let hay = &self.text[first..first + length];
                    let run = self.run(needle, hay, between(0, length, depth, options.depths));
                    runs.push(run);
                }
            }
        }
        let longest = runs.iter().map(|run| run.tokens.len()).max().unwrap_or(0);
        if longest + super::MOST_SAID > most {
            let allowed = format!(
                "so much that the longest text, now {longest} tokens and {} of an answer, fits the {most} positions of the model",
                super::MOST_SAID
            );
            return Err(ProfileError::out_of_range(
                "max_length",
                options.max_length,
                allowed,
            ));
        }
        Ok(runs)
    }

    fn run(&self, needle: usize, hay: &[u32], at: usize) -> Run {
        let [before, answer, after, question] = &self.needles[needle];
        let start = at + before.len();
        let (first, rest) = hay.split_at(at);
        Run {
            tokens: [first, before, answer, after, rest, question].concat(),
            answer: start..start + answer.len(),
            needle,
        }
    }
}

/// Number `index` of `count` in equal steps from `least` to `most`.
const fn between(least: usize, most: usize, index: usize, count: usize) -> usize {
    match count {
        0 | 1 => most,
        _ => least + (most - least) * index / (count - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes are tokens.
    fn tokens(text: &str, needles: &[Needle]) -> Tokens {
        let bytes =
            |text: &str| Ok::<_, std::convert::Infallible>(text.bytes().map(u32::from).collect());
        Tokens::new(text, needles, bytes).expect("no error")
    }

    #[test]
    fn every_needle_stands_at_every_depth_of_every_length() {
        for method in [Method::R, Method::R2] {
            let needles = Needle::all(method);
            let options = Options {
                method,
                min_length: 0,
                max_length: 400,
                ..Options::default()
            };
            let tokens = tokens(&"~".repeat(500), &needles);
            let runs = tokens.runs(&options, 2048).expect("fits");
            assert_eq!(runs.len(), needles.len() * 50);
            for run in &runs {
                let needle = &needles[run.needle];
                let text: Vec<u8> = run
                    .tokens
                    .iter()
                    .filter_map(|&byte| u8::try_from(byte).ok())
                    .collect();
                let text = String::from_utf8(text).expect("is text");
                assert_eq!(&text[run.answer.clone()], needle.answer);
                assert!(text[..run.answer.start].ends_with(&needle.before));
                assert!(text.ends_with(&needle.question));
            }
            let hay = |run: &Run| {
                run.tokens
                    .iter()
                    .filter(|token| **token == u32::from(b'~'))
                    .count()
            };
            assert_eq!(
                [0, 10, 20, 49].map(|run| hay(&runs[run])),
                [0, 100, 200, 400]
            );
            let depth = |run: &Run| {
                run.tokens
                    .iter()
                    .position(|token| *token != u32::from(b'~'))
            };
            assert_eq!(
                [40, 41, 49].map(|run| depth(&runs[run])),
                [0, 44, 400].map(Some)
            );
            assert_eq!(runs, tokens.runs(&options, 2048).expect("fits"));
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let tokens = tokens(&"~".repeat(500), &Needle::all(Method::R));
        let options = Options::default();
        for (options, most, wanted) in [
            (
                Options {
                    max_length: 501,
                    ..options.clone()
                },
                2048,
                "`max_length` is 501",
            ),
            (
                Options {
                    max_length: 50,
                    ..options.clone()
                },
                2048,
                "at least 100",
            ),
            (
                Options {
                    depths: 0,
                    max_length: 400,
                    ..options.clone()
                },
                2048,
                "`depths` is 0",
            ),
            (
                Options {
                    max_length: 400,
                    ..options
                },
                500,
                "500 positions",
            ),
        ] {
            let error = tokens
                .runs(&options, most)
                .expect_err("refused")
                .to_string();
            assert!(error.contains(wanted), "{error}");
        }
        let path = Path::new("needles.jsonl");
        for (text, wanted) in [
            ("", "no line with a needle"),
            ("{\"before\": \"a\"}", "line 1: missing field `answer`"),
            (
                "\n{\"before\": \"a\", \"answer\": \" \", \"question\": \"\"}",
                "line 2: `answer` is empty",
            ),
        ] {
            let error = from_lines(path, text).expect_err("refused").to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
