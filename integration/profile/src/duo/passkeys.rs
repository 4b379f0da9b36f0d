//! Long texts with lists of words in them, and a question for each behind them.
use std::ops::Range;

use rand::{Rng, SeedableRng, seq::index::sample};
use rand_chacha::ChaCha8Rng;

use super::Options;
use crate::ProfileError;

/// What the words of a list are drawn from.
pub const WORDS: [&str; 26] = [
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett",
    "kilo", "lima", "mike", "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango",
    "uniform", "victor", "whiskey", "xray", "yankee", "zulu",
];
const ORDINALS: [&str; 10] = [
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
];
/// Most lists of a text.
pub const MOST_PASSKEYS: usize = ORDINALS.len();
/// Where lists may stand: so many places between the depths of [`DEPTHS`].
const PLACES: usize = 1000;
const DEPTHS: [f64; 2] = [0.05, 0.95];
/// Different lengths of a text.
const LENGTHS: usize = 50;
/// Texts are as long as a multiple of so many tokens.
const MULTIPLE: usize = 16;

/// What texts are put together from, as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pieces {
    /// A long text, between whose words lists are put.
    text: Vec<u32>,
    words: Vec<Vec<u32>>,
    before: Vec<Vec<u32>>,
    after: Vec<u32>,
    end: Vec<u32>,
    questions: Vec<Vec<u32>>,
    answers: Vec<Vec<u32>>,
}

/// A text to learn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) tokens: Vec<u32>,
    /// Questions, answers and what is between them: what counts.
    pub(super) labelled: Range<usize>,
}

impl Pieces {
    /// Brings a long text, and what is put into it, to tokens.
    ///
    /// # Errors
    ///
    /// What `tokens` says.
    pub fn new<E>(
        text: &str,
        mut tokens: impl FnMut(&str) -> Result<Vec<u32>, E>,
    ) -> Result<Self, E> {
        let mut all = |of: &dyn Fn(&str) -> String, names: &[&str]| {
            names
                .iter()
                .map(|name| tokens(&of(name)))
                .collect::<Result<Vec<_>, E>>()
        };
        Ok(Self {
            words: all(&|word| format!(" {word}"), &WORDS)?,
            before: all(
                &|nth| format!("\n\nThe {nth} passkey to remember is:"),
                &ORDINALS,
            )?,
            questions: all(&|nth| format!("What was the {nth} passkey?"), &ORDINALS)?,
            answers: all(&|nth| format!(" The {nth} passkey was:"), &ORDINALS)?,
            after: tokens(".\n\n")?,
            end: tokens("\n\nHere the text ends.\n\n")?,
            text: tokens(text)?,
        })
    }

    /// The text of a step: with the same seed always the same.
    pub(super) fn sample(&self, options: &Options, step: usize) -> Sample {
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        rng.set_stream(step as u64);
        let hay = options.length(rng.random_range(0..LENGTHS)) - options.buffer;
        let first = rng.random_range(0..=self.text.len() - hay);
        let hay = &self.text[first..first + hay];
        let mut places = sample(&mut rng, PLACES, options.passkeys).into_vec();
        places.sort_unstable();
        let lists: Vec<Vec<u32>> = (0..options.passkeys)
            .map(|_| self.list(options.words, &mut rng))
            .collect();
        let mut tokens = Vec::new();
        let mut read = 0;
        for (nth, (place, list)) in places.into_iter().zip(&lists).enumerate() {
            let until = depth(place, hay.len());
            tokens.extend_from_slice(&hay[read..until]);
            read = until;
            for piece in [&self.before[nth], list, &self.after] {
                tokens.extend_from_slice(piece);
            }
        }
        tokens.extend_from_slice(&hay[read..]);
        tokens.extend_from_slice(&self.end);
        let start = tokens.len();
        for (nth, list) in lists.iter().enumerate() {
            for piece in [&self.questions[nth], &self.answers[nth], list, &self.after] {
                tokens.extend_from_slice(piece);
            }
        }
        let labelled = start..tokens.len();
        // Nothing looks at what fills it up.
        tokens.resize(tokens.len().next_multiple_of(MULTIPLE), 0);
        Sample { tokens, labelled }
    }

    fn list(&self, words: usize, rng: &mut ChaCha8Rng) -> Vec<u32> {
        let drawn = (0..words).flat_map(|_| &self.words[rng.random_range(0..WORDS.len())]);
        drawn.copied().collect()
    }

    /// Refuses a text that is shorter than what is cut out of it.
    pub(super) fn check(&self, options: &Options) -> Result<(), ProfileError> {
        let (found, least) = (self.text.len(), options.max_length - options.buffer);
        if found < least {
            let allowed = format!(
                "at most {}: the text has {found} tokens",
                found + options.buffer
            );
            return Err(ProfileError::out_of_range(
                "max_length",
                options.max_length,
                allowed,
            ));
        }
        Ok(())
    }

    /// Tokens of the longest text that is put together.
    pub(super) fn longest(&self, options: &Options) -> usize {
        let most = |all: &[Vec<u32>]| all.iter().map(Vec::len).max().unwrap_or(0);
        let list = options.words * most(&self.words) + self.after.len();
        let asked = most(&self.before) + most(&self.questions) + most(&self.answers);
        let all = options.max_length + self.end.len() + options.passkeys * (2 * list + asked);
        all.next_multiple_of(MULTIPLE)
    }

    /// Tells one text from another.
    pub(super) fn fingerprint(&self) -> u64 {
        // FNV-1a.
        let tokens = self.text.iter().chain(self.words.iter().flatten());
        tokens.fold(0xcbf2_9ce4_8422_2325, |hash, &token| {
            (hash ^ u64::from(token)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

impl Options {
    /// One of the lengths between the shortest and the longest, in equal steps.
    const fn length(&self, index: usize) -> usize {
        let more = self.max_length - self.min_length;
        self.min_length + more * index / (LENGTHS - 1)
    }
}

/// The token of `tokens` at a place.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "texts are far below 2^52 tokens"
)]
fn depth(place: usize, tokens: usize) -> usize {
    let [first, last] = DEPTHS;
    let depth = first + (last - first) * place as f64 / (PLACES - 1) as f64;
    (depth * tokens as f64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every word is a token of its own, so that texts can be read.
    fn pieces() -> (Pieces, Vec<String>) {
        let mut known: Vec<String> = vec!["pad".into()];
        let text: Vec<String> = (0..900).map(|word| format!("w{word}")).collect();
        let pieces = Pieces::new(&text.join(" "), |text| {
            let number = |word: &str| {
                let found = known.iter().position(|known| known == word);
                let index = found.unwrap_or_else(|| {
                    known.push(word.to_owned());
                    known.len() - 1
                });
                u32::try_from(index).expect("no error")
            };
            Ok::<_, std::convert::Infallible>(text.split_whitespace().map(number).collect())
        });
        (pieces.expect("no error"), known)
    }

    #[test]
    fn every_list_stands_in_the_text_and_is_asked_for() {
        let options = Options {
            min_length: 200,
            max_length: 800,
            buffer: 20,
            passkeys: 4,
            words: 6,
            ..Options::default()
        };
        let (pieces, known) = pieces();
        let mut lengths = Vec::new();
        for step in 0..40 {
            let Sample { tokens, labelled } = pieces.sample(&options, step);
            let words: Vec<&str> = tokens
                .iter()
                .map(|&token| &*known[token as usize])
                .collect();
            assert!(tokens.len().is_multiple_of(16) && tokens.len() <= pieces.longest(&options));
            let asked = words[labelled.clone()].join(" ");
            let text = words[..labelled.start].join(" ");
            for nth in &ORDINALS[..4] {
                let lead = format!("The {nth} passkey was: ");
                let (_, answer) = asked.split_once(&lead).expect("is asked for");
                let answer: Vec<&str> = answer.split(' ').take(6).collect();
                assert!(answer.iter().all(|word| WORDS.contains(word)), "{answer:?}");
                let said = format!("The {nth} passkey to remember is: {} .", answer.join(" "));
                assert!(text.contains(&said), "step {step}: {said}\n{text}");
            }
            assert!(!asked.contains("tenth") && words[labelled.end..].iter().all(|w| *w == "pad"));
            lengths.push(text.split(' ').filter(|word| word.starts_with('w')).count());
        }
        assert!(lengths.iter().min() < Some(&330) && lengths.iter().max() > Some(&620));
        assert_eq!(pieces.sample(&options, 3), pieces.sample(&options, 3));
        let other = Options { seed: 1, ..options };
        assert_ne!(pieces.sample(&other, 3), pieces.sample(&options, 3));
    }
}
