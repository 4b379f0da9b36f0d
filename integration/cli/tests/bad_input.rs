//! What a user can get wrong: exit code 2 and a sentence that names the field, the value and what is allowed.
#[path = "../../tests/common/tiny.rs"]
mod tiny;

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use candle_core::quantized::gguf_file::{self, Value};

/// A folder with a good model, a damaged one and policy files.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("makes a folder");
        let desk = Self { folder };
        tiny::write(&desk.file("good.gguf"), 1);
        let good = fs::read(desk.file("good.gguf")).expect("reads");
        fs::write(desk.file("truncated.gguf"), &good[..good.len() - 100]).expect("writes");
        fs::write(desk.file("header.gguf"), &good[..40]).expect("writes");
        let architecture = Value::String("llama".into());
        let mut bare = fs::File::create(desk.file("bare.gguf")).expect("creates");
        gguf_file::write(&mut bare, &[("general.architecture", &architecture)], &[])
            .expect("writes");
        fs::write(desk.file("text.gguf"), "this is a letter, not a model").expect("writes");
        fs::write(
            desk.file("unknown.toml"),
            "policy = \"streaming-llm\"\nbugdet = \"25%\"\n",
        )
        .expect("writes");
        fs::write(desk.file("broken.toml"), "policy = \n").expect("writes");
        fs::write(
            desk.file("budget.toml"),
            "policy = \"streaming-llm\"\nbudget = \"none\"\n",
        )
        .expect("writes");
        desk.write_profiles();
        desk.write_folders();
        desk
    }

    /// Folders that hold no whole model.
    fn write_folders(&self) {
        const CONFIG: &str =
            r#"{"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 64}"#;
        let whole: &[u8] = br#"{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}"#;
        let weights = |header: &[u8], data: usize| {
            let mut file = (header.len() as u64).to_le_bytes().to_vec();
            file.extend(header);
            file.resize(file.len() + data, 0);
            file
        };
        let folders = [
            ("weightless", Some(CONFIG), None),
            ("cut", Some(CONFIG), Some(weights(whole, 4))),
            ("noise", Some(CONFIG), Some(weights(b"{\"x\": [", 0))),
            ("short", Some(CONFIG), Some(vec![255; 8])),
            (
                "endless",
                Some(r#"{"architectures": ["LlamaForCausalLM"]}"#),
                Some(weights(whole, 8)),
            ),
        ];
        fs::create_dir(self.file("empty")).expect("makes a folder");
        for (name, config, weights) in folders {
            fs::create_dir(self.file(name)).expect("makes a folder");
            let file = |file: &str| self.file(name).join(file);
            if let Some(config) = config {
                fs::write(file("config.json"), config).expect("writes");
                fs::write(file("tokenizer.json"), "{}").expect("writes");
            }
            if let Some(weights) = weights {
                fs::write(file("model.safetensors"), weights).expect("writes");
            }
        }
    }

    /// Profiles of heads that do not fit the model of two layers, two KV heads and four query heads.
    fn write_profiles(&self) {
        let files = [
            ("row.tsv", "1.0\t0.0\n"),
            ("nan.tsv", "1.0\t0.0\n0.5\tnan\n"),
            ("columns.tsv", "1.0\t0.0\t0.5\n0.0\t1.0\t0.5\n"),
            ("cut.json", r#"{"0-0": [0.1, 0.2], "0-1": [0"#),
            ("negative.json", r#"{"0-0": [0.1, -0.2]}"#),
            ("some.json", r#"{"0-0": [0.1], "0-1": [0.2]}"#),
        ];
        for (name, text) in files {
            fs::write(self.file(name), text).expect("writes");
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs with `@name` standing for a file of the desk.
    fn run(&self, arguments: &str) -> Output {
        let words = arguments
            .split_whitespace()
            .map(|word| match word.split_once('@') {
                Some((before, name)) => format!("{before}{}", self.file(name).display()),
                None => word.to_owned(),
            });
        Command::new(env!("CARGO_BIN_EXE_mistralrs-kv"))
            .arg("run")
            .args(words)
            .env_remove("HEADROOM_MODEL")
            .output()
            .expect("the program runs")
    }
}

/// Arguments after `run`, and what the message must hold.
const CASES: &[(&str, &[&str])] = &[
    ("-p hi", &["`model` is missing", "HEADROOM_MODEL"]),
    ("-m @nowhere.gguf -p hi", &["nowhere.gguf"]),
    ("-m @text.gguf -p hi", &["text.gguf", "not a GGUF file"]),
    ("-m @header.gguf -p hi", &["header.gguf", "damaged"]),
    ("-m @truncated.gguf -p hi", &["truncated", "ends at byte"]),
    ("-m @bare.gguf -p hi", &["bare.gguf", "`llama.block_count`"]),
    ("-m @empty -p hi", &["empty", "must hold `config.json`"]),
    ("-m @weightless -p hi", &["weightless", "`*.safetensors`"]),
    (
        "-m @cut -p hi",
        &["model.safetensors", "truncated", "`x` ends at byte"],
    ),
    ("-m @noise -p hi", &["model.safetensors", "no JSON object"]),
    (
        "-m @short -p hi",
        &["model.safetensors", "longer than the file"],
    ),
    (
        "-m @endless -p hi",
        &["config.json", "`max_position_embeddings`"],
    ),
    (
        "-m @good.gguf -p hi --picture @kept.svg",
        &["`picture`", "left out without `--policy`"],
    ),
    (
        "-m @good.gguf -p hi --policy streming-llm",
        &["`streming-llm`", "keep-all", "streaming-llm"],
    ),
    (
        "-m @good.gguf -p hi --policy streaming-llm --set sink=4",
        &["unknown field `sink`", "`sinks`"],
    ),
    (
        "-m @good.gguf -p hi --policy streaming-llm --set sinks=many",
        &["`sinks`", "many", "expected usize"],
    ),
    (
        "-m @good.gguf -p hi --policy streaming-llm --set sinks",
        &["`sinks`", "field=value"],
    ),
    (
        "-m @good.gguf -p hi --policy streaming-llm --budget 0",
        &["`budget` is `0`", "from 1"],
    ),
    (
        "-m @good.gguf -p hi --policy streaming-llm --budget lots",
        &["`budget` is `lots`", "25%"],
    ),
    (
        "-m @good.gguf -p hi --policy streaming-llm --budget 150%",
        &["`budget` is `150%`", "at most 100%"],
    ),
    (
        "-m @good.gguf -p hi --policy streaming-llm --budget 1KiB",
        &["`budget` is 1KiB", "at least"],
    ),
    (
        "-m @good.gguf -p hi --policy streaming-llm --budget 3000 --pa-memory-mb 1 --cache-dtype f32",
        &["`budget` is 3000", "at most 2048"],
    ),
    (
        "-m @good.gguf -p hi --policy streaming-llm --budget 64 --set sinks=64",
        &["`sinks` is 64", "below the 64 tokens"],
    ),
    (
        "-m @good.gguf -p hi --policy streaming-llm --budget 64 --set recent=61",
        &["`recent` is 61", "at most 60"],
    ),
    (
        "-m @good.gguf -p hi --policy streaming-llm --budget 64 --set recent=0",
        &["`recent` is 0", "at least 1"],
    ),
    (
        "-m @good.gguf -p hi --policy keep-all --budget 64",
        &["`budget` is 64", "keep-all"],
    ),
    (
        "-m @good.gguf -p hi --policy snap-kv --budget 31",
        &["`window` is 32", "at most the 31 tokens"],
    ),
    (
        "-m @good.gguf -p hi --policy snap-kv --set pooling=median",
        &["`pooling`", "median", "average"],
    ),
    (
        "-m @good.gguf -p hi --policy pyramid-kv --set beta=0.5",
        &["`beta` is 0.5", "from 1"],
    ),
    (
        "-m @good.gguf -p hi --policy ada-kv --set decode=evict",
        &["`decode` is evict", "append with `score` = window"],
    ),
    (
        "-m @good.gguf -p hi --policy h2o --budget 64 --set heavy=64",
        &["`heavy` is 64", "at most"],
    ),
    (
        "-m @good.gguf -p hi --policy duo-attention --budget 25%",
        &["`budget` is 25%", "sparsity"],
    ),
    (
        "-m @good.gguf -p hi --policy streaming-llm --set recent=3000 --pa-memory-mb 1 --cache-dtype f32",
        &["`pa-context-len` is room for", "streaming-llm holds"],
    ),
    (
        "-m @good.gguf -p hi --policy duo-attention --set sparsity=2",
        &["`sparsity` is 2", "from 0 to 1"],
    ),
    (
        "-m @good.gguf -p hi --policy duo-attention --set profile=/nowhere/heads.tsv",
        &["/nowhere/heads.tsv", "no such file"],
    ),
    (
        "-m @good.gguf -p hi --policy duo-attention --set profile=@row.tsv",
        &["row.tsv", "1 rows", "2: one for each layer"],
    ),
    (
        "-m @good.gguf -p hi --policy duo-attention --set profile=@nan.tsv",
        &["nan.tsv", "line 2, column 2", "`nan`", "a number"],
    ),
    (
        "-m @good.gguf -p hi --policy duo-attention --set profile=@columns.tsv",
        &[
            "columns.tsv",
            "line 1",
            "3 columns",
            "2: one for each KV head",
        ],
    ),
    (
        "-m @good.gguf -p hi --policy head-kv --set profile=@cut.json",
        &["cut.json", "line 1, column", "EOF"],
    ),
    (
        "-m @good.gguf -p hi --policy head-kv --set profile=@negative.json",
        &["negative.json", "key `0-0`", "-0.2"],
    ),
    (
        "-m @good.gguf -p hi --policy head-kv --set profile=@some.json",
        &["some.json", "key `0-2`", "found nothing"],
    ),
    (
        "-m @good.gguf -p hi --budget 64",
        &["`budget` is 64", "left out without `--policy`"],
    ),
    (
        "-m @good.gguf -p hi --report @r.json",
        &["`report`", "left out without `--policy`"],
    ),
    (
        "-m @good.gguf -p hi --policy keep-all --pa-block-size 7",
        &["`pa-block-size` is 7", "8, 16 or 32"],
    ),
    (
        "-m @good.gguf -p hi --policy keep-all --device gpu",
        &["`device` is gpu", "`auto`"],
    ),
    (
        "-m @good.gguf -p hi --policy keep-all --device cuda:99",
        &["`device` is cuda:99", "must be"],
    ),
    (
        "-m @good.gguf -p hi --policy keep-all --pa-memory-mb 0",
        &["`pa-memory-mb` is 0", "at least 1"],
    ),
    (
        "-m @good.gguf -p hi --policy keep-all --max-seqs 0",
        &["`max-seqs` is 0", "at least 1"],
    ),
    (
        "-m @good.gguf -p hi --max-tokens 0",
        &["`max-tokens` is 0", "at least 1"],
    ),
    (
        "-m @good.gguf -p hi --temperature=-1",
        &["`temperature` is -1", "0 or more"],
    ),
    ("-m @good.gguf --prompt-file @nowhere.txt", &["nowhere.txt"]),
    (
        "-m @good.gguf -p hi --policy-file @unknown.toml",
        &["unknown.toml", "bugdet", "line 2"],
    ),
    (
        "-m @good.gguf -p hi --policy-file @broken.toml",
        &["broken.toml", "line 1"],
    ),
    (
        "-m @good.gguf -p hi --policy-file @budget.toml",
        &["budget.toml", "none"],
    ),
];

#[test]
fn every_mistake_is_refused_by_name_with_exit_code_2() {
    let desk = Desk::new();
    for (arguments, expected) in CASES {
        let output = desk.run(arguments);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(2),
            "`{arguments}` said: {message}"
        );
        for part in *expected {
            assert!(
                message.contains(part),
                "`{arguments}` should name {part:?}, said: {message}"
            );
        }
        assert!(
            !message.contains("panicked"),
            "`{arguments}` panicked: {message}"
        );
    }
}

#[test]
fn a_report_says_what_the_pages_held() {
    let desk = Desk::new();
    let output = desk.run("-m @good.gguf --raw -p aaaabbbbccccddddaaaabbbb --policy streaming-llm --budget 8 --pa-block-size 8 --max-tokens 20 --ignore-eos --report @report.json");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = fs::read_to_string(desk.file("report.json")).expect("the report is written");
    let report: serde_json::Value = serde_json::from_str(&text).expect("the report is JSON");
    let number = |field: &str| {
        report[field]
            .as_u64()
            .unwrap_or_else(|| panic!("`{field}` in {report}"))
    };
    assert_eq!(
        (report["policy"].as_str(), report["budget"].as_str()),
        (Some("streaming-llm"), Some("8"))
    );
    assert_eq!(
        (number("prompt_tokens"), number("generated_tokens")),
        (22, 20)
    );
    // 2 layers of 2 heads: one page of 8 tokens each, against 41 tokens in 6 pages each.
    assert_eq!((number("pages_held_peak"), number("pages_full")), (4, 24));
    assert_eq!(number("bytes_full"), 6 * number("bytes_held_peak"));
    assert_eq!(report["kept"], serde_json::json!([[8, 8], [8, 8]]));
    assert!(!report["text"].as_str().expect("a text").is_empty());
}

#[test]
fn policies_are_listed_with_their_fields() {
    let output = Command::new(env!("CARGO_BIN_EXE_mistralrs-kv"))
        .arg("policies")
        .output()
        .expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout);
    for part in [
        "keep-all",
        "streaming-llm",
        "--set sinks=4",
        "--set recent=...",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

/// A share that buys less than the method can work with is raised, and the answer says so.
#[test]
fn a_raised_budget_is_told() {
    let desk = Desk::new();
    let output = desk.run("-m @good.gguf --raw -p aaaabbbbccccddddaaaabbbbccccddddaaaabbbbccccddddaaaabbbbccccdddd --policy snap-kv --budget 10% --max-tokens 4 --ignore-eos --heads");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    for part in [
        "note: the budget of 10%",
        "snap-kv holds at least 32",
        "layers 0-1: 35 35",
    ] {
        assert!(told.contains(part), "{part:?} in {told}");
    }
}
