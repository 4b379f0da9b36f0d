//! `mistralrs-kv policies`.
use std::{
    fmt::Write as _,
    io::{self, ErrorKind, Write as _},
};

/// Prints every policy with its fields, their defaults and what they are.
///
/// # Errors
///
/// What the output says, unless its reader has seen enough.
pub(crate) fn print() -> io::Result<()> {
    match io::stdout().write_all(text().as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn text() -> String {
    let mut text = String::new();
    for policy in mistralrs_kv::policies().describe() {
        // Writing to a string never fails.
        let _ = writeln!(text, "{policy}\n");
    }
    text.push_str(
        "Budgets: `--budget 256` tokens per KV head, `25%` of the prompt, `64MiB` per sequence, `full`.\n",
    );
    text
}
