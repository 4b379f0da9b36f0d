//! `cargo xtask cuda-kernels`: the kernels as text for every GPU since Ampere, and what they need on three of them.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, bail};
use indicatif::HumanBytes;

use super::{
    ptx,
    ptxas::{self, Usages},
    setup,
    toolkit::Toolkit,
};
use crate::{
    process, progress,
    workspace::{Workspace, cannot_write, write_if_different},
};

const FOLDER: &str = "attention-kernels/src/cuda/kernels";
const SOURCE: &str = "kernels.cu";
const TEXT: &str = "attention-kernels/src/cuda/kernels.ptx";
/// What the text is compiled for.
const VIRTUAL: &str = "compute_80";
/// What it is assembled for: Ampere, Hopper, Blackwell.
const ARCHITECTURES: [&str; 3] = ["sm_80", "sm_90", "sm_120"];
/// Kernels whose names start like this run for every token and must not spill.
const HOT: [&str; 3] = ["kv_attend", "kv_merge", "kv_write"];

/// What happens to the text in the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// It must be what the compiler makes.
    Compare,
    /// It becomes what the compiler makes.
    Write,
}

/// Compiles, assembles, prints the table; then writes or compares.
pub(crate) fn run(workspace: &Workspace, action: Action) -> Result<()> {
    let root = workspace.root();
    if !root.join(FOLDER).join(SOURCE).is_file() {
        bail!("{FOLDER}/{SOURCE} is missing; restore it with git");
    }
    let toolkit = setup::ensure(workspace)?;
    let scratch = tempfile::tempdir()
        .context("no temporary folder can be made; point TMPDIR at a folder that is writable")?;
    let text = progress::shown(
        &format!("kernels: nvcc compiles {FOLDER}/{SOURCE} for {VIRTUAL}"),
        || compile(&toolkit, &root.join(FOLDER), scratch.path()),
    )?;
    let what = format!("kernels: ptxas assembles for {}", ARCHITECTURES.join(", "));
    let usages = progress::shown(&what, || assemble(&toolkit, &text, scratch.path()))?;
    print!("{}", table(&usages));
    let entries = ptx::entries(&text).len();
    println!(
        "kernels: {entries} in {} of PTX {}, by {}",
        HumanBytes(text.len() as u64),
        ptx::VERSION,
        toolkit.release
    );
    let kept = match action {
        Action::Write => write(&root.join(TEXT), &text),
        Action::Compare => compare(&root.join(TEXT), &text, &toolkit.release),
    };
    let problems: Vec<String> = [kept, no_spills(&usages)]
        .into_iter()
        .filter_map(Result::err)
        .map(|error| format!("{error:#}"))
        .collect();
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

/// The text, ready to be kept.
fn compile(toolkit: &Toolkit, folder: &Path, scratch: &Path) -> Result<String> {
    let out = scratch.join("kernels.ptx");
    let mut nvcc = toolkit.program("nvcc");
    // By its bare name from its own folder, so that no path of this machine can get into the text.
    nvcc.current_dir(folder);
    nvcc.args(["-ptx", "-arch", VIRTUAL, "-O3", "-std=c++17", "-I", "."]);
    process::errors(nvcc.args([SOURCE, "-o"]).arg(&out))?;
    let text =
        fs::read_to_string(&out).with_context(|| format!("nvcc left no {}", out.display()))?;
    ptx::normalise(&text)
}

/// What each kernel needs on each of [`ARCHITECTURES`]; fails where the lowered version is not enough.
fn assemble(toolkit: &Toolkit, text: &str, scratch: &Path) -> Result<Vec<Usages>> {
    let from = scratch.join("lowered.ptx");
    fs::write(&from, text).with_context(|| cannot_write(&from))?;
    let entries = ptx::entries(text);
    let one = |architecture: &'static str| {
        let out: PathBuf = scratch.join(architecture);
        let mut ptxas = toolkit.program("ptxas");
        ptxas.args(["-v", "-O3", "-arch", architecture]).arg(&from);
        let log = process::errors(ptxas.arg("-o").arg(out)).with_context(|| {
            format!(
                "the kernels do not assemble for {architecture} as PTX {}",
                ptx::VERSION
            )
        })?;
        ptxas::parse(&log, &entries)
    };
    thread::scope(|scope| {
        let running = ARCHITECTURES.map(|architecture| scope.spawn(move || one(architecture)));
        let done = running.into_iter().map(|thread| match thread.join() {
            Ok(usages) => usages,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        done.collect()
    })
}

/// One line a kernel: registers, spilled bytes and shared bytes on each architecture.
fn table(usages: &[Usages]) -> String {
    let entries: BTreeSet<&String> = usages.iter().flat_map(Usages::keys).collect();
    let longest = entries.iter().map(|name| name.len()).max();
    let width = longest.unwrap_or_default().max("kernel".len());
    let mut out = format!("{:width$}", "kernel");
    for architecture in ARCHITECTURES {
        let _ = write!(out, "  {architecture:>16}");
    }
    out.push_str("  (registers/spilled/shared)\n");
    for entry in entries {
        let _ = write!(out, "{entry:width$}");
        for usage in usages {
            let cell = usage.get(entry).map_or_else(
                || "-".to_owned(),
                |usage| format!("{}/{}/{}", usage.registers, usage.spilled, usage.shared),
            );
            let _ = write!(out, "  {cell:>16}");
        }
        out.push('\n');
    }
    out
}

fn write(path: &Path, text: &str) -> Result<()> {
    let changed = write_if_different(path, text)?;
    println!(
        "kernels: {TEXT} {}",
        if changed { "written" } else { "is up to date" }
    );
    Ok(())
}

fn compare(path: &Path, text: &str, release: &str) -> Result<()> {
    let Ok(kept) = fs::read_to_string(path) else {
        bail!("{TEXT} is missing; run `cargo xtask cuda-kernels --write`");
    };
    let Some(line) = ptx::first_difference(&kept, text) else {
        println!("kernels: {TEXT} is what {SOURCE} compiles to");
        return Ok(());
    };
    let ours = format!("V{}", setup::RELEASE);
    let other = if release.contains(&ours) {
        String::new()
    } else {
        format!(
            "; it is kept as nvcc {} makes it, and this is {release}",
            setup::RELEASE
        )
    };
    bail!(
        "{TEXT} is not what {FOLDER}/{SOURCE} compiles to: they differ from line {line} on{other}; \
         run `cargo xtask cuda-kernels --write`"
    )
}

fn no_spills(usages: &[Usages]) -> Result<()> {
    let mut found = Vec::new();
    for (architecture, usages) in ARCHITECTURES.iter().zip(usages) {
        for (entry, usage) in usages {
            if usage.spilled > 0 && HOT.iter().any(|start| entry.starts_with(start)) {
                found.push(format!(
                    "{entry} spills {} bytes on {architecture}",
                    usage.spilled
                ));
            }
        }
    }
    if !found.is_empty() {
        bail!(
            "kernels that run for every token must keep to registers:\n  {}\nlet a thread hold less, \
             or more registers (__launch_bounds__)",
            found.join("\n  ")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{ptxas::Usage, *};

    fn usages(entry: &str, spilled: u64) -> Usages {
        let usage = Usage {
            registers: 40,
            spilled,
            shared: 544,
        };
        Usages::from([(entry.to_owned(), usage)])
    }

    #[test]
    fn spill_of_a_hot_kernel_is_named() {
        let quiet = usages("kv_attend_f16", 0);
        let loud = usages("kv_attend_f16", 16);
        let cold = usages("kv_observe", 16);
        no_spills(&[quiet.clone(), cold, quiet.clone()]).unwrap();
        let error = no_spills(&[quiet.clone(), loud, quiet]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("kv_attend_f16 spills 16 bytes on sm_90"),
            "{error}"
        );
    }

    #[test]
    fn table_has_a_line_for_each_kernel() {
        let mut first = usages("kv_attend_f16", 0);
        first.extend(usages("kv_x", 8));
        let second = usages("kv_attend_f16", 0);
        let text = table(&[first, second.clone(), second]);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(rows[0][..4], ["kernel", "sm_80", "sm_90", "sm_120"]);
        assert_eq!(
            rows[1],
            ["kv_attend_f16", "40/0/544", "40/0/544", "40/0/544"]
        );
        assert_eq!(rows[2], ["kv_x", "40/8/544", "-", "-"]);
    }

    #[test]
    fn other_text_is_refused_and_the_remedy_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.ptx");
        let error = |release: &str| compare(&path, "a\nb\n", release).unwrap_err().to_string();
        let ours = "release 13.0, V13.0.88";
        assert!(error(ours).contains("kernels.ptx is missing"));
        fs::write(&path, "a\nc\n").unwrap();
        assert!(
            error(ours).contains("differ from line 2 on; run `cargo xtask cuda-kernels --write`")
        );
        assert!(error("release 12.9, V12.9.86").contains("and this is release 12.9"));
        write(&path, "a\nb\n").unwrap();
        compare(&path, "a\nb\n", ours).unwrap();
    }
}
