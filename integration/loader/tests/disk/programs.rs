//! The programs: a crate of its own with a line of `main` for each policy, compiled once.
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Programs that serve a policy: name, the file beside this one that has it, if no crate of the workspace does, and
/// what `main` calls.
const POLICIES: [(&str, Option<&str>, &str); 8] = [
    ("ada-kv", None, "serve::<kv_policy_ada_kv::AdaKvConfig>()"),
    (
        "duo-attention",
        None,
        "serve::<kv_policy_duo_attention::DuoAttentionConfig>()",
    ),
    ("h2o", None, "serve::<kv_policy_h2o::H2oConfig>()"),
    (
        "head-kv",
        None,
        "serve::<kv_policy_head_kv::HeadKvConfig>()",
    ),
    ("reader", Some("reader"), "serve::<reader::ReaderConfig>()"),
    ("prober", Some("prober"), "serve::<prober::ProberConfig>()"),
    (
        "outer",
        Some("prober"),
        "serve_among::<prober::OuterConfig>({
        let mut registry = kv_core::Registry::default();
        registry.add::<prober::ProberConfig>();
        registry.add::<kv_core::KeepAllConfig>();
        registry
    })",
    ),
    (
        "trickster",
        Some("trickster"),
        "serve::<trickster::TricksterConfig>()",
    ),
];

/// The program of that name.
pub(crate) fn program(name: &str) -> PathBuf {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(compile);
    programs
        .join(name)
        .with_extension(env::consts::EXE_EXTENSION)
}

/// A copy of the program that plays tricks without knowing this crate, under a name that says which.
pub(crate) fn liar(name: &str) -> PathBuf {
    copy("liar", name)
}

/// A copy of a program.
pub(crate) fn copy(of: &str, name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("programs");
    fs::create_dir_all(&folder).expect("a folder for programs");
    let copy = folder.join(name);
    let copy = copy.with_extension(env::consts::EXE_EXTENSION);
    // By a process of its own: a program that is open for writing here could be inherited by one that starts just then,
    // and the system starts no program that is open for writing.
    let mut command = Command::new("cp");
    let copied = command.arg("-f").arg(program(of)).arg(&copy).status();
    assert!(copied.is_ok_and(|status| status.success()), "cannot copy");
    copy
}

fn compile() -> PathBuf {
    let loader = Path::new(env!("CARGO_MANIFEST_DIR"));
    let workspace = loader.join("../..");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("policies");
    fs::create_dir_all(folder.join("src")).expect("a folder for sources");
    let beside = |name: &str| loader.join("tests/disk").join(name).with_extension("rs");
    let mut manifest = format!(
        "[package]\nname = \"policies-on-disk\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
         [workspace]\n[profile.dev]\ndebug = 0\n\
         [[bin]]\nname = \"liar\"\npath = {:?}\n",
        beside("liar")
    );
    let mut dependencies = format!(
        "[dependencies]\nserde = {{ version = \"1\", features = [\"derive\"] }}\nkv-core = {{ path = {:?} }}\n\
         kv-loader = {{ path = {loader:?} }}\n",
        workspace.join("kv-core"),
    );
    for (name, module, call) in POLICIES {
        let module = if let Some(module) = module {
            format!("#[path = {:?}]\nmod {module};\n", beside(module))
        } else {
            let krate = workspace.join("policies").join(name);
            dependencies += &format!("kv-policy-{name} = {{ path = {krate:?} }}\n");
            String::new()
        };
        let source = format!(
            "#![allow(dead_code)]\n{module}fn main() -> std::process::ExitCode {{\n    kv_loader::{call}\n}}\n"
        );
        fs::write(folder.join(format!("src/{name}.rs")), source).expect("a source");
        manifest += &format!("[[bin]]\nname = {name:?}\npath = \"src/{name}.rs\"\n");
    }
    fs::write(folder.join("Cargo.toml"), manifest + &dependencies).expect("a manifest");
    fs::copy(workspace.join("Cargo.lock"), folder.join("Cargo.lock")).expect("a lock");
    let target = folder.join("target");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline"]);
    // As this is compiled itself: measurements want a program that an author would measure.
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        cargo.arg("--release");
        "release"
    };
    let built = cargo
        .arg("--target-dir")
        .arg(&target)
        .current_dir(&folder)
        .status();
    assert!(
        built.is_ok_and(|status| status.success()),
        "the policies in {} do not compile; cargo's words stand above",
        folder.display()
    );
    target.join(profile)
}
