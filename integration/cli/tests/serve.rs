//! `mistralrs-kv serve` as its users meet it: the program itself, OpenAI's own client, Prometheus' text, signals.
mod prepared;
#[path = "../../tests/common/tiny.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod tiny;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use prepared::prepared;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn smollm() -> PathBuf {
    prepared("models/SmolLM2-135M-Instruct-Q8_0.gguf", "setup")
}

/// A server that is told to stop, or killed, at the end of its test.
struct Server {
    child: Child,
    out: BufReader<ChildStdout>,
    address: String,
}

impl Server {
    fn start(model: &Path, options: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mistralrs-kv"))
            .args(["serve", "--port", "0", "--model"])
            .arg(model)
            .args(options.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut out = BufReader::new(child.stdout.take().expect("is piped"));
        let mut line = String::new();
        out.read_line(&mut line).expect("reads");
        let address = line
            .split_once("http://")
            .and_then(|(_, rest)| rest.split_once("/v1"))
            .unwrap_or_else(|| panic!("the first line names the address: {line:?}"))
            .0
            .to_owned();
        Self {
            child,
            out,
            address,
        }
    }

    /// Runs the client's script.
    fn client(&self, task: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/client.py");
        Command::new("python3")
            .arg(script)
            .arg(task[0])
            .arg(format!("http://{}/v1", self.address))
            .args(&task[1..])
            .env("PYTHONPATH", client())
            .output()
            .expect("python3 starts")
    }

    /// What the client's script prints.
    fn ask(&self, task: &[&str]) -> Value {
        let output = self.client(task);
        assert!(
            output.status.success(),
            "the client: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).expect("the client prints JSON")
    }

    /// The answer to a bare GET, head and body.
    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("connects");
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .expect("writes");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("reads");
        text
    }

    /// The sum of a metric's samples.
    fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics");
        let mut found = false;
        let samples = text.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            let is_it = sample == name || sample.strip_prefix(name)?.starts_with('{');
            found |= is_it;
            is_it.then(|| value.parse::<f64>().ok()).flatten()
        });
        let sum = samples.sum();
        assert!(found, "{name} is missing:\n{text}");
        sum
    }

    /// Waits until a metric has a value; panics after a while.
    fn wait_for(&self, name: &str, value: f64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let now = self.metric(name);
            if (now - value).abs() < 0.5 {
                return;
            }
            assert!(Instant::now() < deadline, "{name} is {now}, not {value}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn assert_whole(&self) {
        self.wait_for("mistralrs_sequences_running", 0.0);
        self.wait_for("mistralrs_sequences_waiting", 0.0);
        assert_eq!(self.metric("mistralrs_kv_cache_blocks_used"), 0.0);
        assert_eq!(self.metric("mistralrs_kv_cache_blocks_reserved"), 0.0);
        assert_eq!(self.metric("mistralrs_kv_cache_resident_tokens"), 0.0);
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// Asks it to stop; its exit code and what it said at the end.
    fn stop(self) -> (Option<i32>, String) {
        self.signal("TERM");
        self.ended()
    }

    /// Waits for its end; its exit code and what it said.
    fn ended(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().expect("ends").code();
        let mut said = String::new();
        self.out.read_to_string(&mut said).expect("reads");
        (code, said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, unless a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder of OpenAI's client, of whatever version.
fn client() -> PathBuf {
    let entries = root().join(".headroom").read_dir().expect("was set up");
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.join("openai").is_dir() && path.join("headroom-made-for.txt").is_file())
        .expect("OpenAI's client is missing: run `cargo xtask openai-client` first")
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field]
        .as_str()
        .unwrap_or_else(|| panic!("`{field}` of {value}"))
}

#[test]
fn the_openai_client_gets_answers_streams_and_terms_of_its_own() {
    let server = Server::start(&smollm(), "--policy streaming-llm --budget 48");
    let said = server.ask(&["talk"]);
    let name = "SmolLM2-135M-Instruct-Q8_0";
    assert_eq!(said["models"], serde_json::json!([name, "default"]));
    assert_eq!(said["model"], name);
    assert!(text(&said, "text").len() > 30, "{said}");
    assert_eq!(said["finish"], "length");
    assert_eq!(said["completion_tokens"], 24);
    // The same request twice: whole, and piece by piece.
    assert_eq!(said["streamed"]["text"], said["text"]);
    assert_eq!(said["streamed"]["finish"], "length");
    assert!(said["streamed"]["pieces"].as_u64() >= Some(20), "{said}");
    assert_eq!(said["completion"], said["completion_streamed"]);
    assert!(!text(&said, "completion").is_empty());
    assert_eq!(said["two"], 2);
    assert_eq!(said["stopped"], "stop");
    // 16 of some 50 tokens are another cache, and with a pinned system prompt another again.
    assert_ne!(said["short"], said["text"]);
    assert_ne!(said["pinned"], said["unpinned"]);
    server.assert_whole();
    let policy = "{policy=\"streaming-llm\"}";
    assert!(server.metric(&format!("mistralrs_kv_cache_tokens_evicted_total{policy}")) > 0.0);
    assert!(server.metric(&format!("mistralrs_kv_cache_bytes_freed_total{policy}")) > 0.0);
    assert!(server.metric("mistralrs_prompts_total") >= 10.0);
    assert_eq!(server.metric("http_requests_in_flight"), 0.0);
    assert!(server.get("/health").ends_with("OK"));
    let (code, said) = server.stop();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("0 requests cut off, 0 of"), "{said}");
}

#[test]
fn mistakes_are_told_in_the_shape_that_the_client_reads() {
    let options = "--policy streaming-llm --budget 48 --pa-memory-mb 8";
    let server = Server::start(&smollm(), options);
    let said = server.ask(&["mistakes"]);
    let expect = |case: &str, status: u64, parts: &[&str]| refused(&said[case], status, parts);
    expect("model", 404, &["`gpt-4`", "SmolLM2"]);
    expect(
        "field",
        400,
        &["unknown field `bugdet`", "`budget`", "`pin`"],
    );
    expect("budget", 400, &["`lots`", "25%"]);
    expect("budget_policy", 400, &["`sinks` is 4", "3 tokens"]);
    expect("budget_pool", 400, &["1000000", "at most"]);
    expect("pin", 400, &["`pin` is \"everything\"", "\"system\""]);
    let parts = ["`shared_prefix` is \"document\"", "\"system\""];
    expect("shared_prefix", 400, &parts);
    let parts = ["`shared_prefix`", "first message"];
    expect("shared_prefix_nothing", 400, &parts);
    expect("pin_nothing", 400, &["first message", "system"]);
    expect("pin_completion", 400, &["for a chat only"]);
    expect("media", 400, &["`image_url`", "text"]);
    expect("search", 400, &["`web_search_options`"]);
    expect("several", 400, &["`n`", "`stream`"]);
    expect("path", 404, &["/v1/chat/completions"]);
    server.assert_whole();
}

#[test]
fn a_request_that_can_never_fit_is_told_so_before_a_stream_begins() {
    // Without a policy everything is kept.
    let server = Server::start(&smollm(), "--pa-memory-mb 8");
    let said = server.ask(&["hopeless"]);
    for way in ["whole", "streamed"] {
        let parts = ["tokens needs", "pages", "`--pa-memory-mb`"];
        refused(&said[way], 400, &parts);
    }
    server.assert_whole();
}

/// OpenAI's clients know no word for it, so it is `length` with a field of its own.
#[test]
fn an_answer_says_that_the_context_is_full() {
    let model = prepared("models/tiny-llama", "tiny-models");
    let server = Server::start(&model, "--policy streaming-llm --budget 64");
    let said = server.ask(&["full"]);
    for way in ["whole", "streamed"] {
        let expected = serde_json::json!({"finish": "length", "context_full": true});
        assert_eq!(said[way], expected, "{said}");
    }
    let expected = serde_json::json!({"finish": "length", "context_full": null});
    assert_eq!(said["short"], expected, "{said}");
    server.assert_whole();
}

/// The engine must outlive clients that leave at bad moments, and `--pin-system` pins what `"pin": "system"` does.
#[test]
fn hasty_clients_leave_a_server_that_answers() {
    let options = "--policy streaming-llm --budget 24 --pin-system";
    let server = Server::start(&smollm(), options);
    let said = server.ask(&["hasty"]);
    assert!(said["left"].as_u64() >= Some(6), "{said}");
    assert_eq!(said["silent"], said["pinned"]);
    assert_ne!(said["silent"], said["unpinned"]);
    server.assert_whole();
    let failed = "mistralrs_http_requests_total{path=\"/v1/chat/completions\",status=\"500\"}";
    assert!(
        !server.get("/metrics").contains(failed),
        "nobody saw an error"
    );
}

fn refused(said: &Value, status: u64, parts: &[&str]) {
    assert_eq!(said["status"], status, "{said}");
    let message = text(said, "message");
    for part in parts {
        assert!(message.contains(part), "{message}");
    }
}

/// 64 clients at once, a quarter of them leaving on the way, in a pool for a quarter of them.
#[test]
fn under_load_every_answer_is_the_answer_alone() {
    let seed: u32 = std::env::var("HEADROOM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    // A sequence holds 64 tokens in each of 90 heads: 4 pages each, 4 KiB a page. So 22 MiB are room for 15.
    let options = "--policy streaming-llm --budget 64 --pa-memory-mb 22 --max-seqs 64";
    let server = Server::start(&smollm(), options);
    let pages = server.metric("mistralrs_kv_cache_blocks_total");
    let room = pages / 360.0;
    assert!((14.0..=16.0).contains(&room), "room for {room} sequences");
    let said = server.ask(&["load", &seed.to_string()]);
    let what = format!("HEADROOM_SEED={seed}: {said}");
    assert!(said["left"].as_u64() >= Some(4), "{what}");
    assert!(said["lengths"].as_u64() >= Some(4), "mixed lengths: {what}");
    assert!(said["different_answers"].as_u64() >= Some(20), "{what}");
    assert_eq!(said["differ"], serde_json::json!([]), "{what}");
    server.assert_whole();
    assert!(
        server.metric("mistralrs_kv_cache_full_total") > 0.0,
        "some had to wait: {what}"
    );
    assert_eq!(server.metric("mistralrs_preemptions_total"), 0.0, "{what}");
    let gone = server
        .metric("mistralrs_http_requests_total{path=\"/v1/chat/completions\",status=\"499\"}");
    assert!(gone > 0.0, "clients left: {what}");
    let (code, said) = server.stop();
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn it_finishes_what_it_has_when_it_is_told_to_stop() {
    let server = Server::start(&smollm(), "--policy h2o --budget 64 --grace 600");
    let answer = thread::scope(|scope| {
        let answer = scope.spawn(|| server.ask(&["long", "120"]));
        server.wait_for("mistralrs_sequences_running", 1.0);
        server.signal("TERM");
        // Nobody new is let in.
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(&server.address).is_ok() {
            assert!(Instant::now() < deadline, "it still listens");
            thread::sleep(Duration::from_millis(20));
        }
        answer.join().expect("the client gets its answer")
    });
    assert!(text(&answer, "text").len() > 200, "{answer}");
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("stopped: 0 requests cut off, 0 of"), "{said}");
}

#[test]
fn it_cuts_off_what_takes_longer_than_its_grace() {
    let server = Server::start(&smollm(), "--policy h2o --budget 64 --grace 1 --ignore-eos");
    thread::scope(|scope| {
        let asks = scope.spawn(|| server.client(&["long", "8000"]).status.success());
        server.wait_for("mistralrs_sequences_running", 1.0);
        server.signal("INT");
        assert!(!asks.join().expect("ends"), "the client is cut off");
    });
    let (code, said) = server.ended();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("stopped: 1 requests cut off, 0 of"), "{said}");
}

#[test]
fn a_port_that_is_taken_and_a_bad_policy_are_known_before_the_model_is_loaded() {
    let folder = tempfile::tempdir().expect("makes a folder");
    let model = folder.path().join("tiny.gguf");
    tiny::write(&model, 1);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let port = taken.local_addr().expect("an address").port().to_string();
    let run = |options: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_mistralrs-kv"))
            .args(["serve", "--model"])
            .arg(&model)
            .args(options)
            .output()
            .expect("the program runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, said) = run(&["--port", &port]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("`port` is 127.0.0.1") && said.contains("free"),
        "{said}"
    );
    let (code, said) = run(&["--port", "0", "--policy", "streming-llm"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`streming-llm`"), "{said}");
}
