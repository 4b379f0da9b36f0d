//! `mistralrs-kv run` as a conversation.
mod prepared;

use std::{
    io::Write,
    process::{Command, Stdio},
};

use prepared::prepared;

/// Positions of the model.
const CONTEXT: usize = 2048;

/// Some `words` words about nothing.
fn chatter(words: usize) -> String {
    let about = ["The", "ship", "left", "the", "harbour", "at", "dawn", "."];
    let words = about.iter().cycle().take(words).copied();
    words.collect::<Vec<_>>().join(" ")
}

/// `2675 of 5341 tokens of the prompt were held already`, as numbers.
fn held(said: &str) -> Vec<(usize, usize)> {
    let line = |line: &str| {
        let counts = line.strip_suffix(" tokens of the prompt were held already")?;
        let (held, all) = counts.split_once(" of ")?;
        Some((held.parse().ok()?, all.parse().ok()?))
    };
    said.lines().filter_map(line).collect()
}

#[test]
fn a_conversation_goes_on_past_the_context_and_reads_only_what_is_new() {
    let model = prepared("models/tiny-llama", "tiny-models");
    let options = "--policy streaming-llm --budget 128 --set positions=cache-relative --keep-turns-mb 64 --max-tokens 8";
    let mut run = Command::new(env!("CARGO_BIN_EXE_mistralrs-kv"))
        .args(["run", "--model"])
        .arg(&model)
        .args(options.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let turns = [150, 150, 150, 150, 5].map(|words| chatter(words) + "\n");
    let mut input = run.stdin.take().expect("is piped");
    input.write_all(turns.concat().as_bytes()).expect("listens");
    drop(input);
    let said = run.wait_with_output().expect("ends");
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{text}");
    let held = held(&text);
    assert_eq!(held.len(), turns.len() - 1, "{text}");
    let (already, all) = held[held.len() - 1];
    // The last turn is short, and it is all that was read.
    assert!(already > CONTEXT && all - already < 100, "{text}");
}
