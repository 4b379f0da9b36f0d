//! Whether a model has answered.
use std::collections::HashMap;

use super::Method;

/// A run counts where more than this share is right.
const ENOUGH: f64 = 0.5;
/// Words that SQuAD's F1 leaves out.
const ARTICLES: [&str; 3] = ["a", "an", "the"];

/// What of a text is the answer: up to the end of its first sentence or line. A model that only goes on with texts does not stop by itself.
#[must_use]
pub fn said_of(text: &str) -> &str {
    let text = text.trim_start();
    let end = text.find(['.', '\n', '!', '?']).unwrap_or(text.len());
    &text[..end]
}

/// Whether what was said is the answer: for R, more than half of the answer's words are said (ROUGE-1 recall); for R2, the
/// harmonic mean of that and of the share of right words in what is said is above one half (the F1 of question answering).
#[must_use]
pub fn is_answered(method: Method, answer: &str, said: &str) -> bool {
    match method {
        Method::R => recall(&words(answer), &words(said)) > ENOUGH,
        Method::R2 => f1(&without_articles(answer), &without_articles(said)) > ENOUGH,
    }
}

fn words(text: &str) -> Vec<String> {
    let words = text.split(|letter: char| !letter.is_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

fn without_articles(text: &str) -> Vec<String> {
    let mut words = words(text);
    words.retain(|word| !ARTICLES.contains(&word.as_str()));
    words
}

/// How many words two texts have in common, each as often as in both.
fn common(one: &[String], other: &[String]) -> usize {
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in one {
        *left.entry(word).or_default() += 1;
    }
    let takes = |word: &&String| match left.get_mut(word.as_str()) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    };
    other.iter().filter(takes).count()
}

#[expect(clippy::cast_precision_loss, reason = "a few words")]
fn recall(answer: &[String], said: &[String]) -> f64 {
    common(answer, said) as f64 / answer.len().max(1) as f64
}

fn f1(answer: &[String], said: &[String]) -> f64 {
    let (recall, precision) = (recall(answer, said), recall(said, answer));
    if recall + precision > 0.0 {
        2.0 * recall * precision / (recall + precision)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_by_hand() {
        let answer = words("ride the yellow tram, the old one");
        assert_eq!(recall(&answer, &words("The yellow TRAM")), 3.0 / 7.0);
        assert_eq!(recall(&answer, &words("the the the")), 2.0 / 7.0);
        let (answer, said) = (
            without_articles("a honey cake"),
            without_articles("the honey cake is good"),
        );
        // Both of two words, and two of four.
        assert!((f1(&answer, &said) - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(f1(&answer, &[]), 0.0);
    }

    #[test]
    fn an_answer_may_be_longer_for_one_and_not_for_the_other() {
        let answer = "a honey cake";
        let long = "a honey cake and so many other things that nobody asked for";
        assert!(is_answered(Method::R, answer, long) && !is_answered(Method::R2, answer, long));
        assert!(is_answered(Method::R2, answer, "honey cake"));
        assert!(!is_answered(Method::R, "one two", "two"), "more than half");
        assert_eq!(said_of(" a honey cake. And then"), "a honey cake");
        assert_eq!(said_of("cake\nand"), "cake");
    }
}
