//! `mistralrs-kv eval` from the outside: a miniature on the real model, its files, going on after a cut, and what is refused.
mod prepared;
#[path = "../../tests/common/tiny.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use prepared::prepared;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

fn smollm() -> PathBuf {
    prepared("models/SmolLM2-135M-Instruct-F32.gguf", "setup")
}

/// Runs `eval`; words that begin with `@` name files of the folder.
fn eval(folder: &Path, model: &Path, arguments: &str) -> Output {
    let words = arguments.split_whitespace();
    let words = words.map(|word| match word.strip_prefix('@') {
        Some(name) => folder.join(name).into_os_string(),
        None => word.into(),
    });
    Command::new(env!("CARGO_BIN_EXE_mistralrs-kv"))
        .args(["eval", "--model"])
        .arg(model)
        .args(words)
        .output()
        .expect("the program runs")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn rows(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("out/summary.json")).expect("a summary");
    serde_json::from_str(&text).expect("the summary is JSON")
}

/// The only row of a task under a policy and the budget itself.
fn row<'a>(rows: &'a [Value], task: &str, question: &str, policy: &str) -> &'a Value {
    let is_it = |row: &&Value| {
        let is_matched = !row["bytes_of"].is_null();
        row["task"] == task && row["question"] == question && row["policy"] == policy && !is_matched
    };
    let mut found = rows.iter().filter(is_it);
    let row = found.next();
    let row = row.unwrap_or_else(|| panic!("{task}, {question}, {policy} in {rows:?}"));
    assert_eq!(found.next(), None, "one row");
    row
}

fn number(of: &Value, field: &str) -> f64 {
    let number = of[field].as_f64();
    number.unwrap_or_else(|| panic!("`{field}` is a number in {of}"))
}

/// What is known of these methods holds on the real model: the key is found by those that can know it, at the bytes that were asked for.
#[test]
fn a_miniature_on_the_real_model_ranks_methods_as_they_rank() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = "--policies key-diff,snap-kv --budgets 25% --tasks passkey,instruction --lengths 400 --trials 3 --out @out";
    let output = eval(folder.path(), &smollm(), options);
    assert!(output.status.success(), "{}", told(&output));
    let rows = rows(folder.path());
    for policy in ["random", "recency", "key-diff", "snap-kv"] {
        for question in ["outside", "inside"] {
            let row = row(&rows, "passkey", question, policy);
            let held = number(row, "held_bytes") / number(row, "full_bytes");
            // A quarter, a page of 16 that is not full, and the tokens behind the text.
            assert!((0.2..0.36).contains(&held), "{policy}: {held}");
            // Random tokens are drawn four times.
            let draws = if policy == "random" { 4 } else { 1 };
            assert_eq!(row["answers"], 3 * draws, "the full cache finds every key");
        }
    }
    let full = row(&rows, "passkey", "outside", "keep-all");
    assert_eq!(
        (
            number(&full["score"], "value"),
            number(&full["divergence"], "value")
        ),
        (1.0, 0.0)
    );
    let score = |question: &str, policy: &str| {
        number(&row(&rows, "passkey", question, policy)["score"], "value")
    };
    assert_eq!(score("outside", "key-diff"), 1.0);
    assert!(score("outside", "random") < 1.0);
    assert!(score("outside", "snap-kv") <= score("inside", "snap-kv"));
    // A rule at the beginning is lost by the newest tokens, unless it is pinned.
    let told = |question: &str| {
        number(
            &row(&rows, "instruction", question, "recency")["score"],
            "value",
        )
    };
    assert!(told("outside") < told("pinned"));
    assert_eq!(told("pinned"), 1.0);
    let printed = String::from_utf8_lossy(&output.stdout);
    for part in [
        "passkey, question behind",
        "key-diff",
        "instruction",
        "Budget 25%",
    ] {
        assert!(printed.contains(part), "{part:?} in {printed}");
    }
}

/// A folder with a tiny model and a text of its letters.
fn desk() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("model.gguf");
    tiny::write(&model, 1);
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let text: String = (0..400).map(|_| rng.random_range('c'..='z')).collect();
    fs::write(folder.path().join("text.txt"), text).expect("writes");
    (folder, model)
}

#[test]
fn files_of_others_are_asked_and_what_is_too_long_is_left_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let filler = "The grass is green. The sky is blue. ".repeat(12);
    let code = "The secret code is 48213. Remember it. ";
    let long = "The grass is green. ".repeat(2500);
    let lines = [
        serde_json::json!({"context": format!("{code}{filler}"), "input": "What is the secret code? The secret code is", "answers": ["48213"]}),
        serde_json::json!({"input": format!("{code}{filler}\n\nThe secret code is"), "outputs": ["48213"]}),
        serde_json::json!({"input": long, "outputs": ["no"]}),
    ];
    let lines = lines.map(|line| line.to_string()).join("\n");
    fs::write(folder.path().join("mine.jsonl"), lines).expect("writes");
    let options = "--policies key-diff --budgets 50% --file @mine.jsonl --out @out";
    let output = eval(folder.path(), &smollm(), options);
    assert!(output.status.success(), "{}", told(&output));
    assert!(
        told(&output).contains("left out: it has"),
        "{}",
        told(&output)
    );
    let rows = rows(folder.path());
    assert!(rows.iter().all(|row| row["task"] == "mine"), "nothing else");
    let full = row(&rows, "mine", "inside", "keep-all");
    assert_eq!(number(&full["score"], "value"), 1.0, "{full}");
    fs::write(folder.path().join("bad.jsonl"), "{\"input\": 1}").expect("writes");
    let output = eval(folder.path(), &smollm(), "--file @bad.jsonl --out @out");
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("line 1"), "{}", told(&output));
}

const TEXT: &str = "--tasks text --text @text.txt --context 200 --continuation 60 --out @out";

#[test]
fn every_policy_goes_on_with_a_text_and_a_run_that_was_cut_off_goes_on() {
    let (folder, model) = desk();
    let output = eval(folder.path(), &model, &format!("{TEXT} --budgets 50%,25%"));
    assert!(output.status.success(), "{}", told(&output));
    let first = rows(folder.path());
    for row in &first {
        assert!(number(&row["perplexity"], "value") > 1.0, "{row}");
        assert!(row["score"].is_null(), "{row}");
        let held = number(row, "held_bytes") / number(row, "full_bytes");
        assert!(held <= 1.0, "{row}");
    }
    let policies: Vec<&str> = first
        .iter()
        .filter_map(|row| row["policy"].as_str())
        .collect();
    for policy in [
        "keep-all",
        "random",
        "recency",
        "h2o",
        "duo-attention",
        "cake",
        "snap-stream",
    ] {
        assert!(policies.contains(&policy), "{policy} in {policies:?}");
    }
    // Where a policy holds other bytes than its budget, the baselines are there with as many.
    let held = |row: &Value| number(row, "text_held_bytes");
    let mut matched = 0;
    for row in first.iter().filter(|row| !row["bytes_of"].is_null()) {
        let of = first
            .iter()
            .find(|other| other["policy"] == row["bytes_of"] && other["budget"] == row["budget"]);
        let of = of.unwrap_or_else(|| panic!("whose bytes are they: {row}"));
        // Heads of the policy may hold more pages than others, and a page is 16 of 200 tokens.
        let share = held(row) / held(of);
        assert!((0.8..1.25).contains(&share), "{row} beside {of}");
        matched += 1;
    }
    assert!(matched > 0, "some policies hold other bytes");
    let results = folder.path().join("out/results.jsonl");
    let lines = fs::read_to_string(&results).expect("results");
    let half = lines.len() / 2;
    fs::write(&results, &lines[..half]).expect("writes");
    let output = eval(folder.path(), &model, &format!("{TEXT} --budgets 50%,25%"));
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(rows(folder.path()), first, "the same figures");
    let again = fs::read_to_string(&results).expect("results");
    assert_eq!(again.lines().count(), lines.lines().count());
    // With other options its figures would not be comparable.
    let other = eval(folder.path(), &model, &format!("{TEXT} --budgets 10%"));
    assert_eq!(other.status.code(), Some(2), "{}", told(&other));
    assert!(told(&other).contains("other options"), "{}", told(&other));
}

#[test]
fn mistakes_are_named() {
    let (folder, model) = desk();
    for (options, parts) in [
        ("--policies h3o --out @out", ["`policies` is h3o", "h2o"]),
        (
            "--policies tova:decoding=append --out @out",
            ["decoding", "decode"],
        ),
        ("--budgets half --out @out", ["`half`", "25%"]),
        ("--tasks text --out @out", ["`tasks` is text", "--text"]),
        ("--tasks poems --out @out", ["poems", "passkey"]),
        ("--lengths 8 --out @out", ["`lengths` is 8", "at least 64"]),
        ("--trials 0 --out @out", ["`trials` is 0", "at least 1"]),
        (
            "--text @none.txt --out @out",
            ["none.txt", "cannot be read"],
        ),
        ("--out @text.txt", ["text.txt", "cannot be written"]),
        (
            "--policy h2o --out @out",
            ["`policy` is h2o", "`--policies`"],
        ),
        (
            "--budgets 64 --out @out",
            ["`budgets` is 64", "duo-attention"],
        ),
    ] {
        let output = eval(folder.path(), &model, options);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "`{options}`: {told}");
        for part in parts {
            assert!(told.contains(part), "`{options}`: {part:?} in {told}");
        }
        assert!(!told.contains("panicked"), "`{options}`: {told}");
    }
    let short = TEXT.replace("200", "390");
    let output = eval(folder.path(), &model, &short);
    assert!(!output.status.success());
    assert!(
        told(&output).contains("the text has 400 tokens"),
        "{}",
        told(&output)
    );
}
