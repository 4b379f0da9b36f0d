//! Tasks from files that a user has.
use serde::Deserialize;

use super::{Item, Turn};

/// A line of a file of LongBench or RULER; fields of other names are passed over.
#[derive(Debug, Deserialize)]
struct Line {
    /// LongBench: the text. RULER has everything in `input`.
    context: Option<String>,
    /// LongBench: the question. RULER: text and question.
    input: String,
    /// LongBench.
    #[serde(default)]
    answers: Vec<String>,
    /// RULER.
    #[serde(default)]
    outputs: Vec<String>,
}

/// A line that is no task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct LineError {
    /// Which line, from 1 on.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// The items of a file in JSON lines, as [LongBench](https://arxiv.org/abs/2308.14508) (`context`, `input`, `answers`) and
/// [RULER](https://arxiv.org/abs/2404.06654) (`input`, `outputs`) have them, at most `most`. The first answer is the one that counts. Where text and
/// question are one, as in RULER, the question of a turn is empty: all of it is compressed. Empty lines are passed over.
///
/// # Errors
///
/// A line that is not JSON, lacks a field or has no answer.
pub fn from_lines(task: &str, text: &str, most: usize) -> Result<Vec<Item>, LineError> {
    let lines = text
        .lines()
        .zip(1..)
        .filter(|(line, _)| !line.trim().is_empty());
    lines
        .take(most)
        .map(|(line, number)| item(task, line, number))
        .collect()
}

fn item(task: &str, line: &str, number: usize) -> Result<Item, LineError> {
    let refuse = |reason: String| LineError {
        line: number,
        reason,
    };
    let line: Line = serde_json::from_str(line).map_err(|error| refuse(error.to_string()))?;
    let answers = line.answers.into_iter().chain(line.outputs);
    let Some(answer) = answers.into_iter().find(|answer| !answer.trim().is_empty()) else {
        let reason = "it has no answer: `answers` (LongBench) or `outputs` (RULER) must hold one";
        return Err(refuse(reason.to_owned()));
    };
    let (text, question) = match line.context {
        Some(context) => (context, question(line.input.trim())),
        None => (line.input, String::new()),
    };
    if text.trim().is_empty() {
        return Err(refuse("its text is empty".to_owned()));
    }
    Ok(Item {
        task: task.to_owned(),
        name: format!("line {number}"),
        depth: None,
        instruction: 0,
        text,
        turns: vec![Turn {
            question,
            answer: format!(" {}", answer.trim()),
        }],
    })
}

/// A question gets the word that an answer follows; the beginning of a sentence is its own question.
fn question(input: &str) -> String {
    if input.ends_with(char::is_alphanumeric) {
        format!("\n\n{input}")
    } else {
        format!("\n\nQuestion: {input}\nAnswer:")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_kinds_are_read() {
        let text = r#"{"context": "Paris is in France.", "input": "Where is Paris?", "answers": ["France", "in France"], "length": 4}

{"index": 0, "input": "The code is 12. What is the code? It is", "outputs": ["12"]}
{"input": "never read", "outputs": ["no"]}"#;
        let items = from_lines("mine", text, 2).expect("good lines");
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].text, "Paris is in France.");
        assert_eq!(
            items[0].turns[0].question,
            "\n\nQuestion: Where is Paris?\nAnswer:"
        );
        assert_eq!(question("The code is"), "\n\nThe code is");
        assert_eq!(items[0].turns[0].answer, " France");
        assert_eq!(
            (items[1].name.as_str(), items[1].turns[0].question.as_str()),
            ("line 3", "")
        );
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, line, part) in [
            ("{\"input\": \"a\", \"outputs\": [\"b\"]}\n{", 2, "EOF"),
            ("{\"outputs\": [\"b\"]}", 1, "input"),
            ("{\"input\": \"a\", \"outputs\": []}", 1, "no answer"),
            ("{\"input\": \" \", \"outputs\": [\"b\"]}", 1, "empty"),
        ] {
            let error = from_lines("mine", text, 9).expect_err("a bad line");
            assert_eq!(error.line, line, "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
