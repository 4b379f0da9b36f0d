//! `mistralrs-kv policies`.
use std::{
    fmt::Write as _,
    io::{self, ErrorKind, Write as _},
};

/// Prints every policy with its fields and their defaults.
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
        let _ = writeln!(text, "{}\n    {}", policy.name, policy.summary);
        for (field, default) in policy.defaults {
            let _ = match default.is_null() {
                true => writeln!(text, "    --set {field}=...  (no default)"),
                false => writeln!(text, "    --set {field}={default}"),
            };
        }
    }
    text.push_str(
        "\nBudgets: `--budget 256` tokens per KV head, `25%` of the prompt, `64MiB` per sequence, `full`.\n",
    );
    text
}
