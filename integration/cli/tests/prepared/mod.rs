//! What `cargo xtask` makes for the tests.
use std::path::{Path, PathBuf};

/// A path within `.headroom` that a command of xtask makes.
pub(crate) fn prepared(path: &str, command: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../.headroom")
        .join(path);
    let shown = path.display();
    assert!(
        path.exists(),
        "{shown} is missing: run `cargo xtask {command}` first"
    );
    path
}
