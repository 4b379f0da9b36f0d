//! The published engine against the patched one without a policy: the same program, the same greedy texts.

use std::{fs, process::Stdio};

use anyhow::{Context, Result, bail};
use kv_patch::{ENGINE_PACKAGE, ENGINE_VERSION};

use crate::{
    metadata::Metadata,
    model::{Choice, DtypeArg},
    process, setup,
    workspace::{Workspace, write_if_different},
};

/// The program, an example of the workspace and so linked against the patched engine there.
const PROGRAM: &str = "integration/patch/parity/main.rs";

/// Builds the program against both engines and compares what it prints.
pub(crate) fn run(workspace: &Workspace, choice: &Choice) -> Result<()> {
    let models = setup::run(workspace, DtypeArg::Q8_0, choice)?;
    let model = models
        .first()
        .context("set-up made no model; run `cargo xtask model`")?;
    let target = Metadata::of(workspace)?.target_directory;
    println!("parity: the patched engine, without a policy");
    // The very selection the tests are built with, so that the engine is not compiled for other features.
    let selection = ["--workspace", "--bins", "--examples", "--tests"];
    process::run(
        process::cargo(workspace)
            .args(["build", "--release"])
            .args(selection),
    )?;
    let program = target
        .join("release/examples")
        .join(format!("parity{}", std::env::consts::EXE_SUFFIX));
    let patched = process::output(process::without_us(program).arg(model))?;
    println!(
        "parity: the published engine; compiling it takes another 10 to 20 minutes on 2 cores"
    );
    let scratch = published(workspace)?;
    let mut stock = process::cargo(workspace);
    stock.current_dir(scratch.path());
    stock.args(["run", "--release", "--target-dir"]).arg(target);
    // The configuration of the checkout does not reach a folder outside it.
    stock.args(["--config", "build.rustflags=['-C', 'target-cpu=native']"]);
    let stock = process::output(stock.arg("--").arg(model).stderr(Stdio::inherit()))?;
    for (ours, theirs) in patched.lines().zip(stock.lines()) {
        println!(
            "{} {ours}",
            if ours == theirs { "same" } else { "DIFFERENT" }
        );
        if ours != theirs {
            println!("published {theirs}");
        }
    }
    if patched != stock || stock.lines().count() != 3 {
        bail!("the patched engine does not behave as the published one");
    }
    println!("parity: 3 of 3 texts are the same");
    Ok(())
}

/// A package outside the checkout, where no configuration patches the engine.
fn published(workspace: &Workspace) -> Result<tempfile::TempDir> {
    let scratch = tempfile::Builder::new()
        .prefix("headroom-")
        .tempdir()
        .context("no temporary folder can be made; point TMPDIR at a folder that is writable")?;
    let manifest = format!(
        "[package]\nname = \"parity\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [profile.release]\ndebug = 0\nincremental = false\n\n[dependencies]\n\
         {ENGINE_PACKAGE} = {{ version = \"={ENGINE_VERSION}\", default-features = false }}\n\
         anyhow = \"1\"\ncandle-core = \"0.10.2\"\neither = \"1\"\nindexmap = \"2\"\n\
         tokio = {{ version = \"1.49\", features = [\"full\"] }}\n\
         # Asked for here so that what the workspace has compiled fits.\n\
         tempfile = \"3\"\n"
    );
    write_if_different(&scratch.path().join("Cargo.toml"), &manifest)?;
    for (from, to) in [(PROGRAM, "src/main.rs"), ("Cargo.lock", "Cargo.lock")] {
        let text = fs::read_to_string(workspace.root().join(from))
            .with_context(|| format!("cannot read {from}; restore it with git"))?;
        write_if_different(&scratch.path().join(to), &text)?;
    }
    Ok(scratch)
}
