//! What is asked, in tokens of the model at hand.
use anyhow::Result;
use clap::ValueEnum;
use kv_eval::tasks::{self, Item, Size, Turn};
use mistralrs_kv::Study;

use super::record::Question;

/// Bytes of a token where nothing is known yet.
const GUESS: usize = 4;

/// A task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Task {
    /// Goes on with a text of a file: perplexity, divergence and agreement.
    Text,
    /// One number in a text that says nothing, at many depths.
    Passkey,
    /// Many numbers with a name each, all asked for after the text was compressed.
    MultiKey,
    /// Several numbers of one name.
    MultiValue,
    /// A number that is handed from name to name.
    Variables,
    /// A rule at the beginning, which eviction may lose.
    Instruction,
    /// The most common word of a list.
    CommonWords,
    /// Digits that are to be copied.
    Digits,
}

/// How long, how many, and from where.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) tasks: Vec<Task>,
    /// Tokens of the texts.
    pub(super) lengths: Vec<usize>,
    /// Items of each task and length.
    pub(super) trials: usize,
    pub(super) seed: u64,
    /// Items of files.
    pub(super) given: Vec<Item>,
    /// Text to go on with, and how many of its tokens are read and scored.
    pub(super) text: Option<String>,
    pub(super) context: usize,
    pub(super) continuation: usize,
}

/// Something to ask, with where its question stands.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) item: Item,
    pub(super) question: Question,
    /// Tokens of a text that is given, in place of the item's.
    pub(super) tokens: Option<(Vec<u32>, Vec<u32>)>,
}

impl Plan {
    /// All items, task by task.
    pub(super) async fn items(&self, study: &Study) -> Result<Vec<Asked>> {
        let mut asked = Vec::new();
        for &task in &self.tasks {
            if task == Task::Text {
                asked.extend(self.going_on(study).await?);
                continue;
            }
            for &length in &self.lengths {
                let bytes = self.bytes(study, task, length).await?;
                for trial in 0..self.trials {
                    let item = self.make(task, bytes, trial);
                    asked.extend(asked_in(task, item));
                }
                if task == Task::Digits {
                    break; // as long as its digits, whatever the length
                }
            }
        }
        asked.extend(self.given.iter().map(|item| Asked {
            item: item.clone(),
            // Where text and question are one, all of it is compressed.
            question: if item.turns.iter().all(|turn| turn.question.is_empty()) {
                Question::Inside
            } else {
                Question::Outside
            },
            tokens: None,
        }));
        Ok(asked)
    }

    /// How many bytes of a task's text come to so many tokens.
    async fn bytes(&self, study: &Study, task: Task, length: usize) -> Result<usize> {
        let sample = self.make(task, GUESS * length, 0).text;
        let tokens = study.tokens(&sample).await?.len();
        Ok(sample.len() * length / tokens.max(1))
    }

    fn make(&self, task: Task, bytes: usize, trial: usize) -> Item {
        let seed = self.seed + trial as u64;
        let size = Size { bytes, seed };
        #[expect(clippy::cast_precision_loss, reason = "a few trials")]
        let depth = (trial as f64 + 0.5) / self.trials as f64;
        match task {
            Task::Text | Task::Passkey => tasks::passkey(size, depth),
            Task::MultiKey => tasks::multi_key(size, 6),
            Task::MultiValue => tasks::multi_value(size, 3),
            Task::Variables => tasks::variables(size, 2),
            Task::Instruction => tasks::instruction(size),
            Task::CommonWords => tasks::common_words(size),
            Task::Digits => tasks::digits(size, 64),
        }
    }

    /// A piece of the text that was given.
    async fn going_on(&self, study: &Study) -> Result<Option<Asked>> {
        let Some(text) = &self.text else {
            return Ok(None);
        };
        let tokens = study.tokens(text).await?;
        let (context, all) = (self.context, self.context + self.continuation);
        anyhow::ensure!(
            tokens.len() >= all,
            "the text has {} tokens, and {all} are wanted: `--context` and `--continuation` take fewer",
            tokens.len()
        );
        let turn = Turn {
            question: String::new(),
            answer: String::new(),
        };
        Ok(Some(Asked {
            item: Item {
                task: "text".into(),
                name: format!("{context} and {} tokens", self.continuation),
                depth: None,
                instruction: 0,
                text: String::new(),
                turns: vec![turn],
            },
            question: Question::Outside,
            tokens: Some((tokens[..context].to_vec(), tokens[context..all].to_vec())),
        }))
    }
}

/// Of several questions about one text, how many are also asked by themselves.
const ALONE: usize = 2;

/// A pass key is asked for both ways, since they rank methods differently, an instruction with and without being pinned, and of many keys the first
/// few by themselves too, where no earlier answer helps.
fn asked_in(task: Task, item: Item) -> Vec<Asked> {
    let with = |question| Asked {
        item: item.clone(),
        question,
        tokens: None,
    };
    match task {
        Task::Passkey => vec![with(Question::Outside), with(Question::Inside)],
        Task::MultiKey => {
            let alone = item.turns.iter().enumerate().take(ALONE);
            let alone = alone.map(|(index, turn)| Asked {
                item: Item {
                    name: format!("{}, question {}", item.name, index + 1),
                    turns: vec![turn.clone()],
                    ..item.clone()
                },
                question: Question::Alone,
                tokens: None,
            });
            std::iter::once(with(Question::Outside))
                .chain(alone)
                .collect()
        }
        Task::Instruction => vec![with(Question::Outside), with(Question::Pinned)],
        _ => vec![with(Question::Outside)],
    }
}
