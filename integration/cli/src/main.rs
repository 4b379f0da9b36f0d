//! `mistralrs-kv`: mistral.rs with compressed KV caches, on the command line.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    mistralrs_kv_cli::main()
}
