//! `mistralrs-kv bench` from the outside: its figures and their shape, on a tiny model.
#[path = "../../tests/common/tiny.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;

/// A folder with a model of 2 layers of 2 heads of 16 dimensions.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("makes a folder");
        let desk = Self { folder };
        tiny::write(&desk.file("model.gguf"), 1);
        desk
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `bench`; words that begin with `@` name files of the desk.
    fn bench(&self, arguments: &str) -> Output {
        let words = arguments.split_whitespace();
        let words = words.map(|word| match word.strip_prefix('@') {
            Some(name) => self.file(name).into_os_string(),
            None => word.into(),
        });
        Command::new(env!("CARGO_BIN_EXE_mistralrs-kv"))
            .args(["bench", "--model"])
            .arg(self.file("model.gguf"))
            .args(words)
            .output()
            .expect("the program runs")
    }

    /// Runs `bench` with `--json`, and returns what it wrote and what it printed.
    fn figures(&self, arguments: &str) -> (Value, String) {
        let output = self.bench(&format!("{arguments} --json @figures.json"));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}");
        let text = fs::read_to_string(self.file("figures.json")).expect("a file is written");
        let figures = serde_json::from_str(&text).expect("the file is JSON");
        (
            figures,
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    }
}

fn number(of: &Value, field: &str) -> f64 {
    let number = of[field].as_f64();
    number.unwrap_or_else(|| panic!("`{field}` is a number in {of}"))
}

fn text<'a>(of: &'a Value, field: &str) -> &'a str {
    let text = of[field].as_str();
    text.unwrap_or_else(|| panic!("`{field}` is a text in {of}"))
}

#[test]
fn the_goals_are_measured_and_judged() {
    let (goals, table) = Desk::new().figures("--suite goals --quick");
    let goals = goals.as_array().expect("a list of goals");
    let mut names = BTreeSet::new();
    for goal in goals {
        let (value, target) = (number(goal, "value"), number(goal, "target"));
        let holds = match text(goal, "wanted") {
            "at least" => value >= target,
            "at most" => value <= target,
            other => panic!("a value is wanted {other:?} a target"),
        };
        // What is better than it can be proves nothing.
        let counts = goal["disturbed"] != true;
        assert_eq!(goal["holds"].as_bool(), Some(holds && counts), "{goal}");
        let name = text(goal, "goal");
        assert!(names.insert(name), "{name} is there twice");
        assert!(table.contains(name), "{name} in {table}");
        assert!(!text(goal, "unit").is_empty(), "{goal}");
        let command = text(goal, "command");
        assert!(
            command.starts_with("mistralrs-kv bench --suite goals --only "),
            "{goal}"
        );
    }
    for policy in [
        "h2o",
        "snap-kv",
        "ada-kv",
        "head-kv",
        "pyramid-kv",
        "tova",
        "k-norm",
    ] {
        for part in ["decode", "prefill"] {
            let name = format!("{policy}-cost-of-{part}");
            assert!(names.contains(name.as_str()), "{name} in {names:?}");
        }
    }
    let held = goals.iter().filter(|goal| goal["holds"] == true).count();
    let last = format!("{held} of {} goals hold\n", goals.len());
    assert!(table.ends_with(&last), "{last:?} in {table}");
    // What does not depend on speed: the tokens of 256 in pages of 16, and of the pages of a long prompt.
    let goal = |name: &str| {
        let goal = goals.iter().find(|goal| goal["goal"] == name);
        goal.unwrap_or_else(|| panic!("{name} in {names:?}"))
    };
    let bytes = number(goal("resident-bytes-pages-of-16"), "value");
    assert!((1.0..1.07).contains(&bytes), "{bytes}");
    let peak = number(goal("prompt-peak-pages-800"), "value");
    assert!((0.13..0.25).contains(&peak), "{peak}");
}

#[test]
fn progress_counts_to_the_end_and_groups_can_be_chosen() {
    let desk = Desk::new();
    let output = desk.bench("--suite goals --quick --only pool,memory");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let last = told.lines().last();
    assert_eq!(last, Some("goals: 3 of 3; done"), "{told}");
}

#[test]
fn every_row_has_the_figures_of_its_axis() {
    let desk = Desk::new();
    let axes = "--prompt-len 48,100 --depth 64 --gen-len 8 --iterations 2 --warmup 0";
    let (figures, table) = desk.figures(&format!("{axes} --policy keep-all"));
    let rows = figures["rows"].as_array().expect("rows");
    let tests: Vec<&str> = rows.iter().map(|row| text(row, "test")).collect();
    assert_eq!(tests, ["pp48", "pp100", "tg8 @ d64"]);
    for row in rows {
        assert_eq!(text(row, "policy"), "keep-all");
        assert!(table.contains(text(row, "test")), "{table}");
        let product = number(row, "tokens_per_second") * number(row, "ms_per_token");
        assert!((product - 1e3).abs() < 1e-6, "{row}");
        assert!(number(row, "attention_ms") > 0.0, "{row}");
        assert!(number(row, "memory_bytes_per_second") > 0.0, "{row}");
        assert!(number(row, "first_token_ms") > 0.0, "{row}");
        assert!(number(row, "cpu_seconds") > 0.0, "{row}");
        assert!(
            number(row, "pages_peak") >= number(row, "pages_held") / 2.0,
            "{row}"
        );
        // The program alone has some, and a process that every side's model counts in would have more.
        if cfg!(target_os = "linux") {
            let peak = number(row, "peak_rss_bytes") / f64::from(1 << 20);
            assert!((10.0..2000.0).contains(&peak), "{peak} MiB");
        }
    }
    assert!(rows[0]["kv_bytes_per_step"].is_null());
    // Steps read 65 to 72 tokens in each of 4 heads, 16 keys and values of two bytes each.
    let bytes = number(&rows[2], "kv_bytes_per_step");
    assert_eq!(bytes, 68.5 * 4.0 * 64.0);
    let share = number(&rows[2], "attention_bytes_per_second")
        / number(&rows[2], "memory_bytes_per_second");
    assert!((number(&rows[2], "share") - share).abs() < 1e-9);
}

#[test]
fn the_stock_engine_has_speeds_only() {
    let desk = Desk::new();
    let (figures, _) =
        desk.figures("--prompt-len 20 --depth 20 --gen-len 4 --iterations 1 --warmup 1");
    for row in figures["rows"].as_array().expect("rows") {
        assert_eq!(text(row, "policy"), "the stock engine");
        assert!(number(row, "tokens_per_second") > 0.0);
        assert!(row["attention_ms"].is_null() && row["share"].is_null());
    }
}

#[test]
fn policies_stand_beside_each_other_in_table_and_plot() {
    let desk = Desk::new();
    let (figures, table) = desk.figures(
        "--policies stock,keep-all,h2o:50% --prompt-len 24 --depth 40,80 --gen-len 3 --iterations 1 --warmup 0 --plot @plot.svg",
    );
    let rows = figures["rows"].as_array().expect("rows");
    let rows: Vec<_> = rows
        .iter()
        .map(|row| (text(row, "test"), text(row, "policy")))
        .collect();
    let names = ["the stock engine", "keep-all", "h2o, budget 50%"];
    let tests = ["pp24", "tg3 @ d40", "tg3 @ d80"];
    let expected = tests
        .iter()
        .flat_map(|&test| names.map(|name| (test, name)));
    assert_eq!(rows, expected.collect::<Vec<_>>());
    let held = |index: usize| figures["rows"][index]["kv_bytes_per_step"].as_f64();
    let (full, half) = (held(7), held(8));
    assert!(half < full && half.is_some(), "{half:?} of {full:?}");
    let plot = fs::read_to_string(desk.file("plot.svg")).expect("a plot is written");
    for name in names {
        assert!(plot.contains(name) && table.contains(name), "{name}");
    }
    // A point for each depth.
    assert_eq!(plot.matches("<circle").count(), 6, "{plot}");
}

#[test]
fn wrong_numbers_are_named() {
    let desk = Desk::new();
    for (arguments, parts) in [
        (
            "--prompt-len 8,0",
            ["`prompt-len` is 0", "must be at least 1"],
        ),
        ("--depth 0", ["`depth` is 0", "must be at least 1"]),
        ("--gen-len 0", ["`gen-len` is 0", "must be at least 1"]),
        (
            "--iterations 0",
            ["`iterations` is 0", "must be at least 1"],
        ),
        (
            "--prompt-len 4096",
            ["`prompt-len` is 4096", "must be at most 4095"],
        ),
        (
            "--depth 4080 --gen-len 20",
            ["`depth` is 4080", "must be at most 4075"],
        ),
        (
            "--suite goals --policy keep-all",
            ["`policy` is keep-all", "must be left out"],
        ),
        (
            "--suite goals --only memory",
            ["`suite` is goals, with texts of 7832 tokens", "--quick"],
        ),
        ("--json @no/folder.json", ["folder.json", "cannot write"]),
        ("--plot @no/folder.svg", ["folder.svg", "cannot write"]),
        (
            "--policies keep-all,h2o:half",
            ["`budget` is `half`", "must be"],
        ),
        ("--policies h3o", ["no policy is called `h3o`", "h2o"]),
        (
            "--policies h2o --policy tova",
            ["--policies", "cannot be used with"],
        ),
        ("--quick", ["--suite", "required"]),
        (
            "--suite goals --depth 64",
            ["--depth", "cannot be used with"],
        ),
        ("--budget 25%", ["`budget` is 25%", "without `--policy`"]),
    ] {
        let output = desk.bench(arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "`{arguments}`: {told}");
        for part in parts {
            assert!(told.contains(part), "`{arguments}`: {part:?} in {told}");
        }
        assert!(!told.contains("panicked"), "`{arguments}`: {told}");
    }
}
