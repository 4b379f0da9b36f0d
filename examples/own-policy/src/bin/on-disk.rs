//! The same policy as a program of its own, for `mistralrs-kv run --policy-program`: an edit compiles no engine.
use std::process::ExitCode;

fn main() -> ExitCode {
    kv_loader::serve::<own_policy::TwoWindows>()
}
