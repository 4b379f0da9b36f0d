//! The whole suite on every instruction set that this CPU has, not only on the best.

use std::env;
use std::process::Command;

use attention_kernels::{SimdLevel, simd_level};

const THIS: &str = "levels::every_instruction_set_passes";

#[test]
fn every_instruction_set_passes() {
    for level in SimdLevel::here() {
        if level == simd_level() {
            continue;
        }
        let mut suite = Command::new(env::current_exe().expect("a test program has a path"));
        suite
            .args(["--skip", THIS])
            .env("HEADROOM_SIMD", level.name());
        suite.env("HEADROOM_SEED", crate::world::seed().to_string());
        let run = suite.output().expect("the suite starts");
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "on {level}: {said}");
        assert!(said.contains(" passed; 0 failed"), "on {level}: {said}");
    }
}

#[test]
fn an_instruction_set_that_is_not_there_is_refused_by_name() {
    let mut suite = Command::new(env::current_exe().expect("a test program has a path"));
    suite.args(["attend::", "--test-threads", "1"]);
    let run = suite.env("HEADROOM_SIMD", "mmx").output().expect("starts");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(!run.status.success(), "{said}");
    assert!(
        said.contains("HEADROOM_SIMD is `mmx`, must be one of"),
        "{said}"
    );
}
