//! Lists to look through and to copy.
use rand::{Rng, seq::SliceRandom};

use super::{Item, Size, Turn};

const COMMON: [&str; 6] = ["bread", "water", "paper", "glass", "music", "winter"];
const CONSONANTS: [char; 12] = ['b', 'd', 'f', 'g', 'k', 'l', 'm', 'n', 'p', 'r', 's', 't'];
const VOWELS: [char; 5] = ['a', 'e', 'i', 'o', 'u'];
/// Every so many words one is the common one.
const EVERY: usize = 2;

/// What stands before the digits where they are said again.
const AGAIN: &str = "\nOnce again, these are the digits:";

/// A list of words in which one comes again and again, and nothing else twice, so that this one is the likeliest to come next. The list ends before a
/// comma.
#[must_use]
pub fn common_words(size: Size) -> Item {
    let mut rng = size.rng(6);
    let common = COMMON[rng.random_range(0..COMMON.len())];
    let mut pick = |letters: &[char]| letters[rng.random_range(0..letters.len())];
    let mut text = String::from("A list of words:");
    let mut words: Vec<String> = Vec::new();
    let mut bytes = text.len();
    while bytes < size.bytes {
        let word = if words.len().is_multiple_of(EVERY) {
            common.to_owned()
        } else {
            let syllables = [&CONSONANTS[..], &VOWELS, &CONSONANTS, &VOWELS, &CONSONANTS];
            syllables.iter().map(|letters| pick(letters)).collect()
        };
        bytes += word.len() + 2;
        words.push(word);
    }
    words.shuffle(&mut rng);
    text.push(' ');
    text.push_str(&words.join(", "));
    Item {
        task: "common-words".to_owned(),
        name: format!("{} bytes, seed {}", size.bytes, size.seed),
        depth: None,
        instruction: 0,
        text,
        turns: vec![Turn::new(",", format!(" {common}"))],
    }
}

/// Random digits that are to be said again: every one has to be looked up while the cache goes on being compressed, and counts by itself.
#[must_use]
pub fn digits(size: Size, count: usize) -> Item {
    let mut rng = size.rng(7);
    let digits: Vec<String> = (0..count)
        .map(|_| rng.random_range(0..10_u8).to_string())
        .collect();
    let turns = digits.iter().enumerate().map(|(index, digit)| {
        let question = if index == 0 { AGAIN } else { "" };
        Turn::new(question, format!(" {digit}"))
    });
    Item {
        task: "digits".to_owned(),
        name: format!("{count} digits, seed {}", size.seed),
        depth: None,
        instruction: 0,
        text: format!("These are the digits: {}.\n", digits.join(" ")),
        turns: turns.collect(),
    }
}
