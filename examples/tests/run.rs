//! Every example runs with one command and prints something worth reading.
use std::process::Command;

/// Runs an example with the model of the set-up; what it prints.
fn run(program: &str) -> String {
    let output = Command::new(program).output().expect("the example starts");
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// Pages held and pages of a full cache, from a line such as `h2o: 12 of 36 pages held`.
fn pages(text: &str) -> (usize, usize) {
    let line = text.lines().rfind(|line| line.contains(" pages held"));
    let line = line.unwrap_or_else(|| panic!("no pages in {text}"));
    let words: Vec<&str> = line.split([' ', '[', ']', ',']).collect();
    let at = words.iter().position(|word| *word == "pages");
    let at = at.expect("was found above");
    let number = |word: &str| word.parse().unwrap_or_else(|_| panic!("{word} in {line}"));
    (number(words[at - 3]), number(words[at - 1]))
}

#[test]
fn keep_all_holds_everything() {
    let (held, full) = pages(&run(env!("CARGO_BIN_EXE_01-keep-all")));
    assert_eq!(held, full);
}

#[test]
fn a_policy_holds_less() {
    let (held, full) = pages(&run(env!("CARGO_BIN_EXE_02-policy")));
    assert!(2 * held < full, "{held} of {full}");
}

#[test]
fn policies_are_compared() {
    let text = run(env!("CARGO_BIN_EXE_03-compare"));
    for policy in ["streaming-llm", "h2o", "snap-kv", "pyramid-kv", "ada-kv"] {
        assert!(text.lines().any(|line| line.starts_with(policy)), "{text}");
    }
}

#[test]
fn a_long_document_is_answered_and_drawn() {
    let text = run(env!("CARGO_BIN_EXE_04-long-document"));
    let (held, full) = pages(&text);
    assert!(2 * held < full, "{held} of {full}");
    assert!(text.contains("headroom-kept.svg"), "{text}");
}

#[test]
fn a_chat_goes_on_under_one_budget() {
    let text = run(env!("CARGO_BIN_EXE_05-chat"));
    assert_eq!(
        text.lines().filter(|line| line.starts_with("> ")).count(),
        4
    );
    let (held, full) = pages(&text);
    assert!(2 * held < full, "{held} of {full}");
}

#[test]
fn a_server_answers_two_clients() {
    let text = run(env!("CARGO_BIN_EXE_06-serve-and-client"));
    assert!(text.contains("status=\"200\"} 2"), "{text}");
    assert!(text.contains("stopped: 0 of"), "{text}");
}
