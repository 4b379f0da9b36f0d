//! Profiles of heads: the model that they are learned of is the engine's, and what the program finds in a planted model is what was planted.
mod prepared;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use candle_core::DType;
use kv_profile::{
    Model, Profile,
    duo::WORDS,
    planted::{GROUP, KV_HEADS, LAYERS, Planted, RETRIEVAL},
};
use mistralrs_kv::{CacheConfig, EngineConfig, Prompt, Request, kv_core::Budget};
use prepared::prepared;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Relative to the largest logit of the row: sums come in another order.
const BOUND: f32 = 1e-4;

async fn agrees(path: &Path, text: &str) {
    let what = path.display();
    let mut study = EngineConfig::new(path)
        .start_study(&[])
        .await
        .expect("starts");
    let tokens = study.tokens(text).await.expect("has a tokenizer");
    let engines = study.read(tokens.clone()).await.expect("reads");
    let engines: Vec<f32> = engines
        .to_dtype(DType::F32)
        .expect("no error")
        .to_vec1()
        .expect("no error");
    let model = Model::load(path).unwrap_or_else(|error| panic!("{what}: {error}"));
    let logits = model.logits(&tokens).expect("reads");
    let ours: Vec<f32> = logits
        .get(tokens.len() - 1)
        .expect("no error")
        .to_vec1()
        .expect("no error");
    let largest = engines
        .iter()
        .fold(0.0_f32, |most, logit| most.max(logit.abs()));
    let off = engines
        .iter()
        .zip(&ours)
        .map(|(one, other)| (one - other).abs());
    let off = off.fold(0.0, f32::max) / largest;
    assert!(off <= BOUND, "{what}: {off:e} of the largest logit off");
}

#[tokio::test]
async fn the_model_that_is_learned_from_is_the_engines() {
    let text = fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/long-prompt.txt"
    ))
    .expect("is there");
    let text = &text[..1000];
    let smollm = prepared("models/SmolLM2-135M-Instruct-F32.gguf", "model --dtype f32");
    agrees(&smollm, text).await;
    for name in ["tiny-llama", "tiny-qwen2"] {
        agrees(&prepared(&format!("models/{name}"), "tiny-models"), text).await;
    }
}

/// Words of the text, and those that are to be found in it.
const FILLERS: usize = 400;
const HIDDEN: usize = 20;

/// A planted model, and a text of words of no meaning.
struct Planting {
    folder: tempfile::TempDir,
    seed: u64,
}

impl Planting {
    fn new() -> Self {
        let seed: u64 = rand::random();
        let folder = tempfile::tempdir().expect("a folder");
        let asked = [
            "What", "was", "the", "passkey?", "passkey", "was:", "first", "second",
        ];
        let told = ["The", "to", "remember", "is:", "."];
        let numbered =
            |name: &'static str, count| (0..count).map(move |word| format!("{name}{word}"));
        let words = WORDS
            .iter()
            .chain(&asked)
            .chain(&told)
            .map(ToString::to_string);
        let words = words
            .chain(numbered("w", FILLERS))
            .chain(numbered("n", HIDDEN));
        let planted = Planted::new(words, seed);
        planted.write(&folder.path().join("model")).expect("writes");
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let text = (0..3000).map(|_| format!("w{}", rng.random_range(0..FILLERS)));
        let text: Vec<String> = text.collect();
        fs::write(folder.path().join("text.txt"), text.join(" ")).expect("writes");
        Self { folder, seed }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `profile KIND` on the model and the text; what it says on the standard output.
    fn profile(&self, kind: &str, options: &str) -> String {
        let folder = self.folder.path().display().to_string();
        let mut run = Command::new(env!("CARGO_BIN_EXE_mistralrs-kv"));
        run.args(["profile", kind, "--model"])
            .arg(self.path("model"));
        run.arg("--text").arg(self.path("text.txt"));
        run.args(["--seed", &self.seed.to_string()]);
        run.args(options.replace("DIR", &folder).split_whitespace());
        said(run, self.seed)
    }
}

fn said(mut run: Command, seed: u64) -> String {
    let done = run.output().expect("the program starts");
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "seed {seed}: {error}");
    String::from_utf8(done.stdout).expect("is text")
}

/// The retrieval heads of a profile are the planted ones: every one of them is above every other head.
fn finds_what_was_planted(profile: &Profile, group: usize, seed: u64) {
    let (mut lowest, mut highest) = (f64::INFINITY, f64::NEG_INFINITY);
    for (layer, heads) in profile.values.iter().enumerate() {
        for (head, &value) in heads.iter().enumerate() {
            if RETRIEVAL.contains(&(layer, head / group)) {
                lowest = lowest.min(value);
            } else {
                highest = highest.max(value);
            }
        }
    }
    let values = &profile.values;
    assert!(lowest > 2.0 * highest.max(0.05), "seed {seed}: {values:?}");
}

/// Learned, thresholded and run: with its two retrieval heads alone the model finds what the full cache finds, and without them it does not.
#[tokio::test]
async fn gates_of_a_planted_model_are_learned_and_serve_it() {
    let planting = Planting::new();
    let sizes =
        "--passkeys 2 --words 12 --min-length 120 --max-length 250 --sinks 4 --recent 16 --block 4";
    let options = format!("--out DIR/gates --steps 100 {sizes}");
    planting.profile("duo", &options);
    let profile = Profile::read(&planting.path("gates")).expect("was written");
    finds_what_was_planted(&profile, 1, planting.seed);
    // A run that is done has nothing to do.
    planting.profile("duo", &options);
    assert_eq!(
        Profile::read(&planting.path("gates")).expect("is there"),
        profile
    );

    let heads = LAYERS * KV_HEADS;
    let sparsity = 1.0 - RETRIEVAL.len() as f64 / heads as f64;
    let hidden: Vec<String> = (0..HIDDEN).map(|word| format!("n{word}")).collect();
    let text = fs::read_to_string(planting.path("text.txt")).expect("is there");
    let before: Vec<&str> = text.split(' ').take(500).collect();
    let before = before.join(" ");
    let prompt = format!(
        "{} {} {before} {}",
        before,
        hidden.join(" "),
        hidden[..2].join(" ")
    );
    let mut answers = Vec::new();
    let gates = planting.path("gates").display().to_string();
    for (profile, sparsity) in [
        (gates.as_str(), sparsity),
        (gates.as_str(), 1.0),
        ("neutral-alternating", 0.5),
    ] {
        let cache = CacheConfig::new("duo-attention")
            .set("profile", profile)
            .set("sparsity", sparsity)
            .prompt_tail(2);
        let config = EngineConfig {
            cache: Some(cache),
            ..EngineConfig::new(planting.path("model"))
        };
        let engine = config.start().await.expect("starts");
        let request = Request::greedy(Prompt::Text(prompt.clone()), 10);
        answers.push(engine.generate(request).await.expect("answers").text);
    }
    let found = hidden[2..12].join(" ");
    assert_eq!(answers[0].trim(), found, "seed {}", planting.seed);
    assert!(
        answers[1..].iter().all(|answer| answer.trim() != found),
        "{answers:?}"
    );
}

#[test]
fn scores_of_a_planted_model_are_those_of_its_retrieval_heads() {
    let planting = Planting::new();
    let word = |numbers: std::ops::Range<usize>| -> String {
        numbers.map(|number| format!(" n{number}")).collect()
    };
    let needle = serde_json::json!({
        "before": word(0..2), "answer": word(2..12), "after": " .", "question": word(0..2),
    });
    fs::write(planting.path("needles.jsonl"), format!("{needle}\n")).expect("writes");
    for score in ["r", "r2"] {
        let sizes =
            "--needles DIR/needles.jsonl --min-length 50 --max-length 600 --lengths 2 --depths 3";
        planting.profile(
            "head-kv",
            &format!("--score {score} --out DIR/{score}.json {sizes}"),
        );
        let profile = Profile::read(&planting.path(&format!("{score}.json"))).expect("was written");
        finds_what_was_planted(&profile, GROUP, planting.seed);
        let (layer, head) = RETRIEVAL[0];
        let value = profile.values[layer][head * GROUP];
        // Every word of the answer is looked at while it is said; a model that has come to the end of its text says it again.
        assert!(value > 0.9, "{score}, seed {}: {value}", planting.seed);
        let again = fs::read(planting.path(&format!("{score}.json"))).expect("is there");
        planting.profile(
            "head-kv",
            &format!("--score {score} --out DIR/again.json {sizes}"),
        );
        assert!(
            again == fs::read(planting.path("again.json")).expect("was written"),
            "{score}"
        );
    }
}

/// The profiles that are shipped for the model of the tests: loaded, thresholded and run.
#[tokio::test]
async fn shipped_profiles_serve_the_model_that_they_are_of() {
    const PROMPT: usize = 400;
    const BUDGET: usize = 64;
    let model = prepared("models/SmolLM2-135M-Instruct-F32.gguf", "model --dtype f32");
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let path = |name: &str| policies.join(name).display().to_string();
    let duo = CacheConfig::new("duo-attention").set(
        "profile",
        path("duo-attention/profiles/SmolLM2-135M-Instruct"),
    );
    let head_kv = |score: &str| {
        let name = format!("head-kv/profiles/SmolLM2-135M-Instruct.{score}.json");
        CacheConfig::new("head-kv")
            .set("profile", path(&name))
            .budget(Budget::Tokens(BUDGET))
    };
    let caches = [duo, head_kv("r"), head_kv("r2")];
    let mut study = EngineConfig::new(model)
        .start_study(&caches)
        .await
        .expect("starts");
    let text = fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/long-prompt.txt"
    ));
    let mut text = study
        .tokens(&text.expect("is there"))
        .await
        .expect("has a tokenizer");
    text.truncate(PROMPT + 1);
    let behind = text.split_off(PROMPT);
    study.read(text).await.expect("reads");
    let mut kept = Vec::new();
    for cache in 0..caches.len() {
        assert_eq!(
            study.caches()[cache].notice(PROMPT),
            None,
            "cache {cache} was learned"
        );
        let gone_on = study.go_on(cache, &behind).await.expect("goes on");
        kept.push(gone_on.report.kept.concat());
    }
    let whole = kept[0]
        .iter()
        .filter(|tokens| **tokens == PROMPT + 1)
        .count();
    let window = kept[0].iter().filter(|tokens| **tokens == 16 + 32).count();
    assert_eq!((whole, window), (45, 45), "{:?}", kept[0]);
    for kept in &kept[1..] {
        // What is read behind the text comes on top.
        assert_eq!(kept.iter().sum::<usize>(), 90 * (BUDGET + 1), "{kept:?}");
        let (least, most) = (kept.iter().min(), kept.iter().max());
        assert!(least < most, "{kept:?}");
    }
}

/// Every mistake is named, with exit code 2.
#[test]
fn mistakes_are_named() {
    let planting = Planting::new();
    let folder = planting.folder.path().display().to_string();
    fs::write(planting.path("bad.tsv"), "1 0\n1\n").expect("writes");
    fs::write(planting.path("bad.jsonl"), "{\"before\": 1}\n").expect("writes");
    let duo = "profile duo -m DIR/model --out DIR/new --text";
    let head_kv = "profile head-kv -m DIR/model --text DIR/text.txt --out DIR/new.json";
    for (arguments, expected) in [
        (
            format!("{duo} DIR/text.txt --steps 0"),
            "`steps` is 0; allowed: at least 1",
        ),
        (
            format!("{duo} DIR/text.txt --max-length 9000"),
            "`max_length` is 9000; allowed: at most",
        ),
        (format!("{duo} DIR/none.txt"), "none.txt: "),
        (
            "profile duo -m DIR/nothing --text DIR/text.txt --out DIR/new".into(),
            "nothing",
        ),
        (
            format!("{head_kv} --depths 0"),
            "`depths` is 0; allowed: at least 1",
        ),
        (
            format!("{head_kv} --needles DIR/bad.jsonl"),
            "bad.jsonl: line 1: ",
        ),
        // Nothing that is built in is of this model's words.
        (
            format!("{head_kv} --lengths 1 --depths 1 --max-length 100"),
            "no run was answered",
        ),
        (
            "profile show DIR/bad.tsv".into(),
            "bad.tsv: line 2: 1 columns; allowed: 2",
        ),
        (
            "profile shuffle DIR/none.json --out DIR/new.json".into(),
            "none.json: ",
        ),
    ] {
        let mut run = Command::new(env!("CARGO_BIN_EXE_mistralrs-kv"));
        run.args(arguments.replace("DIR", &folder).split_whitespace());
        let done = run.output().expect("the program starts");
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "`{arguments}` said: {said}");
        assert!(said.contains(expected), "`{arguments}` said: {said}");
        assert!(!said.contains("panicked"), "`{arguments}` said: {said}");
    }
    assert!(!planting.path("new.json").exists());
}

#[test]
fn profiles_are_drawn_and_shuffled() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("heads.tsv");
    fs::write(&path, "1.0 0.0\n0.25 1.5\n0.5 0.75\n").expect("writes");
    let show = |options: &[&str]| {
        let mut run = Command::new(env!("CARGO_BIN_EXE_mistralrs-kv"));
        run.args(["profile", "show"]).arg(&path).args(options);
        said(run, 0)
    };
    let text = show(&[]);
    for part in [
        "layers 0 to 2",
        "0  █░▒",
        "1  ·█▓",
        "layer    1  0.250 1.000",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let picture = show(&["--svg"]);
    assert!(picture.starts_with("<svg"), "{picture}");
    assert!(picture.contains("layer 1, head 0: 0.250"), "{picture}");

    let scores = folder.path().join("scores.json");
    let text = r#"{"0-0": [0.2, 0.4], "0-1": [0.1], "1-0": [0.6], "1-1": [0]}"#;
    fs::write(&scores, text).expect("writes");
    let shuffled = folder.path().join("other.json");
    let mut run = Command::new(env!("CARGO_BIN_EXE_mistralrs-kv"));
    run.args(["profile", "shuffle"]).arg(&scores);
    run.arg("--out").arg(&shuffled).args(["--seed", "3"]);
    said(run, 3);
    let sorted = |path: &Path| {
        let mut all = Profile::read(path).expect("is a profile").values.concat();
        all.sort_by(f64::total_cmp);
        all.iter()
            .map(|value| format!("{value:.4}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(sorted(&scores), sorted(&shuffled));
    assert_eq!(sorted(&scores), ["0.0000", "0.1000", "0.3000", "0.6000"]);
}
