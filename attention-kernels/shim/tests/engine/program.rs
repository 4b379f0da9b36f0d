//! The engine's kernels as a program that runs on the CPU.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, thread};

use crate::rewrite::rewrite;

/// The release whose layout ours must be.
const CRATE: &str = "mistralrs-paged-attn-0.8.1";

/// Its sources that hold kernels, each compiled by itself.
const SOURCES: &[&str] = &[
    "reshape_and_cache_kernel.cu",
    "pagedattention_v1_f16.cu",
    "pagedattention_v1_bf16.cu",
    "pagedattention_v1_f32.cu",
    "pagedattention_v2_f16.cu",
    "pagedattention_v2_bf16.cu",
    "pagedattention_v2_f32.cu",
];

/// What those include.
const HEADERS: &[&str] = &[
    "pagedattention.cuh",
    "cuda_compat.h",
    "attention/attention_dtypes.h",
    "attention/attention_generic.cuh",
    "attention/attention_utils.cuh",
    "attention/dtype_bfloat16.cuh",
    "attention/dtype_float16.cuh",
    "attention/dtype_float32.cuh",
    "attention/dtype_fp8.cuh",
    "quantization/fp8/nvidia/quant_utils.cuh",
];

/// As `build.rs` compiles kernels, but in less time.
const KERNEL_FLAGS: &[&str] = &[
    "-O1",
    "-w",
    "-fsanitize=thread,alignment,bounds",
    "-ffp-contract=off",
    "-include",
    "engine_compat.h",
];

/// The program, compiled unless it is there already; or why there is none.
pub(crate) fn find_or_build() -> Result<PathBuf, String> {
    let compiler = cuda_host_shim::compiler()
        .ok_or("there was no C++ compiler when cuda-host-shim was built")?;
    let engine = engine_sources()
        .ok_or_else(|| format!("{CRATE} is in no registry that cargo has fetched"))?;
    let shim = Path::new(env!("CARGO_MANIFEST_DIR"));

    let mut texts: Vec<(PathBuf, String)> = Vec::new();
    for name in SOURCES.iter().chain(HEADERS) {
        texts.push((name.into(), rewrite(&read(&engine.join(name)))));
    }
    let ours = [
        shim.join("include/cuda_host_shim"),
        shim.join("src/cpp"),
        shim.join("tests/engine/compat"),
    ];
    let mut key = DefaultHasher::new();
    (
        compiler,
        KERNEL_FLAGS,
        &texts,
        read(&shim.join("tests/engine/driver.cpp")),
    )
        .hash(&mut key);
    for folder in &ours {
        files_of(folder)
            .iter()
            .for_each(|file| read(file).hash(&mut key));
    }
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("engine-{:016x}", key.finish()));
    let program = folder.join("driver");
    if program.is_file() {
        return Ok(program);
    }
    for (name, text) in &texts {
        let path = folder.join("source").join(name);
        fs::create_dir_all(path.parent().expect("a folder above")).expect("a folder for sources");
        fs::write(path, text).expect("a source");
    }
    build(compiler, shim, &folder);
    Ok(program)
}

/// Where cargo keeps the sources of the crate, if it does.
fn engine_sources() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(env::home_dir()?.join(".cargo")))?;
    let registries = fs::read_dir(home.join("registry/src")).ok()?;
    let folders = registries
        .flatten()
        .map(|registry| registry.path().join(CRATE).join("src/cuda"));
    folders.into_iter().find(|folder| folder.is_dir())
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a folder, sorted.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn build(compiler: &str, shim: &Path, folder: &Path) {
    let sources = folder.join("source");
    let kernels = SOURCES
        .iter()
        .map(|name| (sources.join(name), KERNEL_FLAGS));
    let cpp = files_of(&shim.join("src/cpp"));
    let cpp = cpp
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "cpp"));
    let driver = std::iter::once(shim.join("tests/engine/driver.cpp"));
    let ours = cpp.chain(driver).map(|path| (path, &["-O1", "-w"][..]));
    // Kernels first: they take longest.
    let jobs: Vec<_> = kernels.chain(ours).enumerate().collect();
    let object = |index: usize| folder.join(format!("{index}.o"));
    let compile = |(index, (source, flags)): &(usize, (PathBuf, &[&str]))| {
        let mut command = Command::new(compiler);
        command
            .args(["-x", "c++", "-std=c++17", "-c"])
            .arg(source)
            .arg("-o")
            .arg(object(*index));
        for include in [
            shim.join("include"),
            shim.join("tests/engine/compat"),
            sources.clone(),
        ] {
            command.arg("-I").arg(include);
        }
        run(command.args(*flags));
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for worker in 0..workers {
            let mine = jobs.iter().skip(worker).step_by(workers);
            scope.spawn(move || mine.for_each(compile));
        }
    });
    // Under its final name only when it is whole.
    let unfinished = folder.join("driver.unfinished");
    run(Command::new(compiler)
        .args((0..jobs.len()).map(object))
        .arg("-o")
        .arg(&unfinished));
    fs::rename(unfinished, folder.join("driver")).expect("the program gets its name");
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{errors}",
        output.status
    );
}
