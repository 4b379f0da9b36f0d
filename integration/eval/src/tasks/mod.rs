//! Texts to compress, and questions behind them whose answers are known.
//!
//! All are made from a seed, of words of our own, so that nothing has to be fetched and no model has read them before. They ask for what
//! [RULER](https://arxiv.org/abs/2404.06654)'s tasks ask for, in a form that a small model without a chat template goes on from: a beginning
//! of a sentence whose end is the answer.
mod files;
mod haystack;
mod lists;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

pub use files::{LineError, from_lines};
pub use haystack::{instruction, multi_key, multi_value, passkey, variables};
pub use lists::{common_words, digits};

/// A text, and what is asked behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// The task, as tables name it.
    pub task: String,
    /// Tells it from the others of its task.
    pub name: String,
    /// Where in the text the answer stands, from 0 to 1, if it stands in one place.
    pub depth: Option<f64>,
    /// The part of the text that a user would pin, in bytes from its beginning; 0 for none.
    pub instruction: usize,
    /// What is compressed.
    pub text: String,
    /// What is read behind it, one after the other.
    pub turns: Vec<Turn>,
}

/// A question and its answer. The answer goes on where the question ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// The question.
    pub question: String,
    /// What is to be said.
    pub answer: String,
}

impl Turn {
    fn new(question: impl Into<String>, answer: impl Into<String>) -> Self {
        Self {
            question: question.into(),
            answer: answer.into(),
        }
    }
}

/// How a text is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Size {
    /// Bytes of the text, about.
    pub bytes: usize,
    /// Seed of everything that is chosen.
    pub seed: u64,
}

impl Size {
    /// Numbers of its own for each task.
    fn rng(self, task: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(task);
        rng
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        bytes: 4000,
        seed: 1,
    };

    fn all(size: Size) -> Vec<Item> {
        vec![
            passkey(size, 0.3),
            multi_key(size, 6),
            multi_value(size, 3),
            variables(size, 3),
            instruction(size),
            common_words(size),
            digits(size, 40),
        ]
    }

    #[test]
    fn items_are_as_long_as_asked_and_repeat_by_seed() {
        for (item, again) in all(SIZE).iter().zip(all(SIZE)) {
            assert_eq!(*item, again);
            if item.task != "digits" {
                let len = item.text.len();
                assert!((3600..=4400).contains(&len), "{}: {len} bytes", item.task);
            }
            assert!(item.turns.iter().all(|turn| !turn.answer.is_empty()));
        }
        let other = all(Size { seed: 2, ..SIZE });
        for (item, other) in all(SIZE).iter().zip(other) {
            assert_ne!(item.text, other.text, "{}", item.task);
        }
    }

    /// What is asked for can be found, once or in as many places as the task says.
    #[test]
    fn answers_stand_in_the_text() {
        let key = passkey(SIZE, 0.3);
        let answer = key.turns[0].answer.trim();
        assert_eq!((answer.len(), key.text.matches(answer).count()), (5, 2));
        let place = key.text.find(answer).expect("is there");
        assert!((place as f64 / key.text.len() as f64 - 0.3).abs() < 0.05);

        let keys = multi_key(SIZE, 6);
        assert_eq!(keys.turns.len(), 6);
        for turn in &keys.turns {
            assert_eq!(keys.text.matches(turn.answer.trim()).count(), 1, "{turn:?}");
        }
        let values = multi_value(SIZE, 3);
        assert_eq!(values.turns.len(), 3);
        let places = values.turns.iter().map(|turn| {
            let code = turn.answer.trim();
            values.text.find(code).expect("is there")
        });
        assert!(places.is_sorted(), "in the order of the text");

        let chain = variables(SIZE, 3);
        let last = chain.turns.last().expect("the number");
        assert_eq!(chain.text.matches(last.answer.trim()).count(), 1);
        assert_eq!(chain.turns.len(), 4);
        for turn in &chain.turns {
            // Each step stands in the text as it is asked for.
            let asked = turn.question.trim_start_matches(['.', '\n', ' ']);
            let fact = format!("{asked}{}.", turn.answer);
            assert_eq!(chain.text.matches(&fact).count(), 1, "{fact}");
        }
        let told = instruction(SIZE);
        assert!(told.text[..told.instruction].contains(&told.turns[0].answer));
    }

    #[test]
    fn the_most_common_word_is_the_most_common() {
        let item = common_words(SIZE);
        let answer = item.turns[0].answer.trim();
        let words: Vec<&str> = item.text.split([' ', ',', '.', '\n']).collect();
        let count = |word: &str| words.iter().filter(|&&other| other == word).count();
        let most = count(answer);
        for word in &words {
            assert!(
                *word == answer || word.is_empty() || 4 * count(word) <= most,
                "{word}"
            );
        }
    }

    #[test]
    fn digits_are_copied() {
        let item = digits(SIZE, 40);
        assert_eq!(item.turns.len(), 40);
        let said: String = item.turns.iter().map(|turn| &*turn.answer).collect();
        assert!(item.text.contains(said.trim()));
    }
}
