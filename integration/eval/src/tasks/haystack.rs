//! Facts hidden in sentences that say nothing.
use rand::{Rng, seq::IndexedRandom, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::{Item, Size, Turn};

/// Said over and over.
const FILLER: [&str; 5] = [
    "The grass is green.",
    "The sky is blue.",
    "The road is long.",
    "The rain is over.",
    "The day goes on.",
];
const COLOURS: [&str; 8] = [
    "red", "black", "white", "yellow", "brown", "grey", "silver", "golden",
];
const ANIMALS: [&str; 8] = [
    "horse", "fox", "bear", "cat", "dog", "sheep", "wolf", "goat",
];
const NAMES: [&str; 8] = [
    "apple", "river", "stone", "cloud", "lamp", "garden", "wheel", "coat",
];

/// Facts in their order, each behind its share of the filler.
struct Haystack {
    text: String,
    bytes: usize,
    filler: usize,
}

impl Haystack {
    /// Begins with `intro`; in the end there will be about `bytes` bytes.
    fn new(intro: &str, bytes: usize, rng: &mut ChaCha8Rng) -> Self {
        Self {
            text: intro.to_owned(),
            bytes,
            filler: rng.random_range(0..FILLER.len()),
        }
    }

    fn say(&mut self, sentence: &str) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.text.push_str(sentence);
    }

    /// Fills the text up to `depth` of its length.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "texts are short"
    )]
    fn fill(&mut self, depth: f64) {
        let until = (depth.clamp(0.0, 1.0) * self.bytes as f64) as usize;
        while self.text.len() < until {
            self.say(FILLER[self.filler % FILLER.len()]);
            self.filler += 1;
        }
    }

    /// All of it, with facts spread evenly.
    fn spread(mut self, facts: &[String]) -> String {
        #[expect(clippy::cast_precision_loss, reason = "a few facts")]
        let depth = |index: usize| (index as f64 + 0.5) / facts.len() as f64;
        for (index, fact) in facts.iter().enumerate() {
            self.fill(depth(index));
            self.say(fact);
        }
        self.fill(1.0);
        self.text
    }
}

fn item(task: &str, size: Size, text: String, turns: Vec<Turn>) -> Item {
    Item {
        task: task.to_owned(),
        name: format!("{} bytes, seed {}", size.bytes, size.seed),
        depth: None,
        instruction: 0,
        text,
        turns,
    }
}

/// Different numbers of `digits` digits.
fn codes(count: usize, digits: u32, rng: &mut ChaCha8Rng) -> Vec<String> {
    let mut codes: Vec<String> = Vec::with_capacity(count);
    while codes.len() < count {
        let code = rng
            .random_range(10_u32.pow(digits - 1)..10_u32.pow(digits))
            .to_string();
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    codes
}

/// One number at a depth between 0 and 1 ([Mohtashami and Jaggi 2023](https://arxiv.org/abs/2305.16300)).
#[must_use]
pub fn passkey(size: Size, depth: f64) -> Item {
    let mut rng = size.rng(1);
    let key = codes(1, 5, &mut rng).remove(0);
    let intro = "Somewhere in this long text stands a pass key. Find it and keep it in mind. You will be asked for it.";
    let mut hay = Haystack::new(intro, size.bytes, &mut rng);
    hay.fill(depth);
    hay.say(&format!(
        "The pass key is {key}. Remember it. {key} is the pass key."
    ));
    hay.fill(1.0);
    let turn = Turn::new(
        "\n\nWhat is the pass key? The pass key is",
        format!(" {key}"),
    );
    Item {
        name: format!("{} bytes, depth {depth}, seed {}", size.bytes, size.seed),
        depth: Some(depth),
        ..item("passkey", size, hay.text, vec![turn])
    }
}

/// Animals of some colours, without repetition.
fn animals(count: usize, rng: &mut ChaCha8Rng) -> Vec<String> {
    let all = COLOURS
        .iter()
        .flat_map(|colour| ANIMALS.map(|animal| format!("{colour} {animal}")));
    let mut all: Vec<String> = all.collect();
    all.shuffle(rng);
    all.truncate(count);
    all
}

/// Many numbers with a name each, at most 64, and a question for every one, one after the other: the text is compressed before any of them is known.
#[must_use]
pub fn multi_key(size: Size, keys: usize) -> Item {
    let mut rng = size.rng(2);
    let names = animals(keys, &mut rng);
    let codes = codes(names.len(), 4, &mut rng);
    let known: Vec<(String, String)> = names.into_iter().zip(codes).collect();
    let facts: Vec<String> = known
        .iter()
        .map(|(name, code)| format!("The number of the {name} is {code}."))
        .collect();
    let hay = Haystack::new("Every animal has a number.", size.bytes, &mut rng).spread(&facts);
    let mut asked = known;
    asked.shuffle(&mut rng);
    let turns = asked.into_iter().map(|(name, code)| {
        let question = format!("\n\nThe number of the {name} is");
        Turn::new(question, format!(" {code}"))
    });
    item("multi-key", size, hay, turns.collect())
}

/// Several numbers with one name, all of which are asked for in their order; each counts by itself.
#[must_use]
pub fn multi_value(size: Size, values: usize) -> Item {
    let mut rng = size.rng(3);
    let name = animals(1, &mut rng).remove(0);
    let codes = codes(values, 4, &mut rng);
    let facts: Vec<String> = codes
        .iter()
        .map(|code| format!("A number of the {name} is {code}."))
        .collect();
    let hay = Haystack::new("An animal has many numbers.", size.bytes, &mut rng).spread(&facts);
    let question = format!("\n\nIn the order of the text, the numbers of the {name} are");
    let questions = std::iter::once(question.as_str()).chain(std::iter::repeat(","));
    let turns = questions.zip(&codes);
    let turns = turns.map(|(question, code)| Turn::new(question, format!(" {code}")));
    item("multi-value", size, hay, turns.collect())
}

/// A number that is handed from name to name `steps` times, at most 7. From the last name on it is asked for who handed it, step by step, and at
/// last for the number; each step counts by itself.
#[must_use]
pub fn variables(size: Size, steps: usize) -> Item {
    let mut rng = size.rng(4);
    let code = codes(1, 5, &mut rng).remove(0);
    let mut names = NAMES;
    names.shuffle(&mut rng);
    let names = &names[..=steps.clamp(1, NAMES.len() - 1)];
    let mut facts = vec![format!("Let {} be {code}.", names[0])];
    facts.extend(
        names
            .windows(2)
            .map(|pair| format!("Let {} be {}.", pair[1], pair[0])),
    );
    let hay = Haystack::new("Some words stand for numbers.", size.bytes, &mut rng).spread(&facts);
    let handed = names.windows(2).rev().map(|pair| (pair[1], pair[0]));
    let asked = handed.chain([(names[0], code.as_str())]).enumerate();
    let turns = asked.map(|(step, (name, answer))| {
        let lead = if step == 0 { "\n\n" } else { ". " };
        Turn::new(format!("{lead}Let {name} be"), format!(" {answer}"))
    });
    item("variables", size, hay, turns.collect())
}

/// An instruction at the beginning, which a user would pin, and a question for it at the end.
#[must_use]
pub fn instruction(size: Size) -> Item {
    let mut rng = size.rng(5);
    let word = NAMES.choose(&mut rng).copied().unwrap_or(NAMES[0]);
    let rule = format!("Rule of this house: every answer ends with the word \"{word}\".");
    let mut hay = Haystack::new(&rule, size.bytes, &mut rng);
    hay.fill(1.0);
    let question = "\n\nRule of this house: every answer ends with the word \"";
    Item {
        instruction: rule.len(),
        ..item(
            "instruction",
            size,
            hay.text,
            vec![Turn::new(question, word)],
        )
    }
}
