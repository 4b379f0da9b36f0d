//! `mistralrs-kv` with a policy more, for all its commands and options.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    mistralrs_kv_cli::main_with(|registry| {
        registry.add::<own_policy::TwoWindows>();
    })
}
