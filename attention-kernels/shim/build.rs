//! Compiles the library that runs kernels, and the kernels themselves, into one archive.
//!
//! Without a C++ compiler that knows the sanitizers, or outside Linux, the crate is built all the same and says so.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Sources with `KV_ENTRY` lines, seen from this crate. Each one's folder is searched for headers.
const KERNELS: &[&str] = &[
    "tests/kernels/right.cu",
    "tests/kernels/wrong.cu",
    "../src/cuda/kernels/kernels.cu",
];

/// What a kernel is built with.
///
/// The sanitizers call into `src/cpp/hooks.cpp`; their own libraries are not linked. The rest keeps the compiler from turning
/// loops into calls of `memcpy`, which nobody would see, and from contracting products and sums, which depends on the machine.
const KERNEL_FLAGS: &[&str] = &[
    "-fsanitize=thread,alignment,bounds",
    "-fno-tree-vectorize",
    "-fno-tree-loop-distribute-patterns",
    "-ffp-contract=off",
];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(shim_built)");
    for watched in ["build.rs", "include", "src/cpp", "tests/kernels"] {
        println!("cargo::rerun-if-changed={watched}");
    }
    // A path that does not exist would count as changed, so watch what is there of it.
    let theirs = Path::new("../src/cuda/kernels");
    let existing = theirs.ancestors().find(|path| path.is_dir());
    println!(
        "cargo::rerun-if-changed={}",
        existing.unwrap_or(theirs).display()
    );
    match missing() {
        Some(missing) => println!("cargo::warning=CUDA kernels will not run on the CPU: {missing}"),
        None => build(),
    }
}

/// Why the shim cannot be built here.
fn missing() -> Option<String> {
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return Some("the shim needs Linux".into());
    }
    let probe = compiler();
    for flag in KERNEL_FLAGS.iter().chain(&["-std=c++17"]) {
        if !matches!(probe.is_flag_supported(flag), Ok(true)) {
            return Some(format!("no C++ compiler that accepts {flag}"));
        }
    }
    None
}

fn compiler() -> cc::Build {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").opt_level(2).include("include");
    build
}

fn build() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let kernels: Vec<PathBuf> = KERNELS
        .iter()
        .map(|kernel| here.join(kernel))
        .filter(|kernel| kernel.is_file())
        .collect();

    // Nothing calls into a kernel's file: entries register themselves. One function in each, which is called, makes the linker
    // keep it.
    let mut anchors = String::new();
    let mut calls = String::new();
    let mut build = compiler();
    build.warnings(false).define("KV_HOST_SHIM", None);
    for flag in KERNEL_FLAGS {
        build.flag(flag);
    }
    for (index, kernel) in kernels.iter().enumerate() {
        let anchor = format!("kv_shim_anchor_{index}");
        let source = format!(
            "#include \"{}\"\nextern \"C\" void {anchor}() {{}}\n",
            kernel.display()
        );
        let path = out.join(format!("kernel_{index}.cpp"));
        fs::write(&path, source).expect("OUT_DIR can be written");
        build.file(path);
        anchors += &format!("extern \"C\" void {anchor}();\n");
        calls += &format!("  {anchor}();\n");
    }
    let objects = build.compile_intermediates();

    let table = out.join("anchors.cpp");
    let text = format!("{anchors}extern \"C\" void kv_shim_link_kernels() {{\n{calls}}}\n");
    fs::write(&table, text).expect("OUT_DIR can be written");
    let mut build = compiler();
    for name in [
        "api", "context", "detector", "hooks", "machine", "memory", "report", "shadow", "warp",
    ] {
        build.file(format!("src/cpp/{name}.cpp"));
    }
    build.file(table).objects(objects).compile("cuda_host_shim");

    println!("cargo::rustc-cfg=shim_built");
    // Tests that compile more sources use the same one.
    let compiler = compiler().get_compiler();
    println!(
        "cargo::rustc-env=CUDA_HOST_SHIM_CXX={}",
        compiler.path().display()
    );
}
