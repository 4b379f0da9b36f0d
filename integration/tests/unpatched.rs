//! A build against the published engine stops with what to do.
use std::{path::Path, process::Command};

/// Compiles this package's build script by itself and runs it with and without what the patched engine sets.
#[test]
fn a_forgotten_patch_is_a_compile_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().expect("makes a folder");
    let program = folder.path().join("build-script");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let compiled = Command::new(rustc)
        .arg("--edition=2024")
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .status();
    assert!(
        compiled.expect("rustc runs").success(),
        "the build script compiles"
    );

    let output = |abi: Option<&str>| {
        let mut command = Command::new(&program);
        match abi {
            Some(abi) => command.env("DEP_MISTRALRS_CORE_KV_HOOK_ABI", abi),
            None => command.env_remove("DEP_MISTRALRS_CORE_KV_HOOK_ABI"),
        };
        String::from_utf8(command.output().expect("it runs").stdout).expect("text")
    };
    let forgotten = output(None);
    assert!(forgotten.contains("cargo::error="), "{forgotten}");
    for part in [
        "cargo xtask setup",
        "[patch.crates-io]",
        "cargo xtask vendor --into",
    ] {
        assert!(forgotten.contains(part), "{forgotten}");
    }
    assert!(!output(Some("1")).contains("cargo::error="));
}
