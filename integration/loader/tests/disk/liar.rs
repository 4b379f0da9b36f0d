//! A program that is no policy, or not one of this version: its name says which. It uses nothing but pipes.
use std::io::{self, Read, Write};

const HELLO: &str = r#"{"hello": {"protocol": 1, "abi": 2, "name": "liar", "summary": "lies", "fields": []}}"#;
const BOUND: &str = r#"{"bound": {"needs": {"observation": "none", "reduction": {"queries": "mean", "group": "mean",
    "pool": "none", "order": "group-then-pool", "shared": false}, "reads": {"queries": false, "keys": false, "values": false,
    "rotation": false, "output_norms": false, "classes": false}, "appends": false, "cadence": "layer-prefill", "positions": "original",
    "min_tokens": 1}, "notice": null, "ranks": true}}"#;
const ROOMS: &str = r#"{"rooms": [{"each": 4}, {"each": 4}]}"#;

/// Answers the next question.
fn answer(json: &str) {
    ask();
    say(json.len() as u64, 0, json.as_bytes());
}

fn plan(verbs: &str, heads: usize, lens: &str) {
    let growth = vec!["\"append\""; heads].join(", ");
    answer(&format!(r#"{{"plan": {{"verbs": {verbs}, "growth": [{growth}], "lens": {lens}}}}}"#));
}

fn ask() {
    let mut head = [0; 16];
    if io::stdin().read_exact(&mut head).is_err() {
        std::process::exit(0);
    }
    let json = u32::from_le_bytes(head[4..8].try_into().expect("four bytes"));
    let numbers = u64::from_le_bytes(head[8..].try_into().expect("eight bytes"));
    let mut rest = vec![0; json as usize + numbers as usize];
    io::stdin().read_exact(&mut rest).expect("the rest");
}

fn say(json: u64, numbers: u64, text: &[u8]) {
    let mut bytes = b"kvpf".to_vec();
    bytes.extend(u32::try_from(json).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(numbers.to_le_bytes());
    bytes.extend(text);
    write(&bytes);
}

fn write(bytes: &[u8]) {
    let mut out = io::stdout();
    out.write_all(bytes).and_then(|()| out.flush()).expect("the host reads");
}

fn sleep() {
    std::thread::sleep(std::time::Duration::from_secs(3600));
}

fn main() {
    let program = std::env::current_exe().expect("a program");
    let name = program.file_stem().expect("a name").to_string_lossy();
    match &*name {
        "silent" => sleep(),
        "quits" => std::process::exit(3),
        "prints" => write(b"hello, world\n"),
        "cut" => say(500, 0, b"{"),
        "huge" => say(1, 1 << 40, b"{"),
        "long" => say(u64::MAX, 0, b"{"),
        "echo" => loop {
            let mut some = [0; 99];
            match io::stdin().read(&mut some) {
                Ok(0) | Err(_) => break,
                Ok(length) => write(&some[..length]),
            }
        },
        "noise" => answer("[1, 2"),
        "older" => answer(r#"{"hello": {"protocol": 0, "abi": 9}}"#),
        "newer" => answer(r#"{"hello": {"protocol": 1, "abi": 3, "name": ["of", "another", "shape"]}}"#),
        "misnamed" => answer(&HELLO.replace("liar", "My Policy")),
        "wordy" => answer(&HELLO.replace("lies", "one\\ntwo")),
        "nameless" => answer(ROOMS),
        _ => {
            answer(HELLO);
            match &*name {
                "unbound" => answer(ROOMS),
                "half-bound" => answer(r#"{"bound": {"notice": null}}"#),
                _ => answer(BOUND),
            }
            match &*name {
                "stray" => plan(r#"[{"window": {"head": 3, "sinks": 0, "recent": 1}}]"#, 2, "[]"),
                "growing" => plan("[]", 1, "[]"),
                "brings" => plan(r#"[{"top-by": {"head": 0, "scores": [], "count": 1, "recent": 0}}]"#, 2, "[7]"),
                "forgets" => plan(r#"[{"top-by": {"head": 1, "scores": [], "count": 1, "recent": 0}}]"#, 2, "[]"),
                "scores" => answer(r#"{"scores": {"lens": [16, 16]}}"#),
                "rooms" => answer(r#"{"rooms": [{"each": 4}]}"#),
                "greedy" => loop {
                    answer("\"read\"");
                },
                "new-verb" => plan(r#"[{"merge": {"head": 0}}]"#, 2, "[]"),
                "deaf" => sleep(),
                _ => {}
            }
        }
    }
}
