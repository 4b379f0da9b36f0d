//! `cargo xtask gpu-test`: what to run on a machine with a GPU, in one go.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    DEFAULT_CAPABILITY, KERNELS,
    build::{BUILD, Builder, parse_capability},
    in_front, setup,
    stubs::{self, Linking},
    target_directory,
    toolkit::Toolkit,
};
use crate::{
    demo,
    model::{Choice, DtypeArg},
    process, setup as checkout,
    workspace::Workspace,
};

/// What the steps after the build should stay below.
const LIMIT: Duration = Duration::from_secs(8 * 60);

/// The oldest generation that takes the kernels' text.
const OLDEST: u32 = 80;

/// How the run-book is run.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) model: Choice,
    /// Print the commands and do nothing.
    pub(crate) dry_run: bool,
}

/// One command of the run-book.
#[derive(Debug)]
struct Step {
    name: &'static str,
    command: Command,
    /// Building; the rest is nothing without it.
    builds: bool,
}

/// Checks the machine, builds, then runs tests, demo and benchmark; one that fails does not stop the rest.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if options.dry_run {
        return dry_run(workspace, &options.model);
    }
    println!("gpu-test: {}", gpu()?);
    let toolkit = Toolkit::of(&nvcc()?, "install the CUDA toolkit or check HEADROOM_NVCC")?;
    println!(
        "gpu-test: {} in {}",
        toolkit.release,
        toolkit.root.display()
    );
    let models = checkout::run(workspace, DtypeArg::Q8_0, &options.model)?;
    let model = models
        .first()
        .context("set-up made no model; run `cargo xtask model`")?;
    let linking = stubs::prepare(workspace, &toolkit)?;
    no_stubs(&linking, &toolkit)?;
    let builder = Builder::new(workspace, &toolkit, &linking)?;
    let mut done = Vec::new();
    for mut step in steps(&builder, &linking.real, model) {
        println!("\n== {}\n{}", step.name, line(&step.command));
        let started = Instant::now();
        let failed = process::run(&mut step.command).err();
        if let Some(error) = &failed {
            eprintln!("error: {error:#}");
        }
        let stop = failed.is_some() && step.builds;
        done.push(Done {
            name: step.name,
            took: started.elapsed(),
            passed: failed.is_none(),
            builds: step.builds,
        });
        if stop {
            break;
        }
    }
    println!("\n{}", summary(&done));
    Ok(if done.iter().all(|step| step.passed) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The same commands, with what this machine has for the paths.
fn dry_run(workspace: &Workspace, model: &Choice) -> Result<ExitCode> {
    let nvcc = setup::installed().unwrap_or_else(|| PathBuf::from("/usr/local/cuda/bin/nvcc"));
    let root = nvcc.parent().and_then(Path::parent).unwrap_or(&nvcc);
    let builder = Builder {
        workspace,
        root: root.to_owned(),
        libraries: workspace.headroom().join("cuda-link-13"),
        capability: DEFAULT_CAPABILITY.to_owned(),
        target: target_directory(workspace, "cuda-build")?,
    };
    let model = model.users();
    let model = model.unwrap_or_else(|| workspace.models().join("SmolLM2-135M-Instruct-Q8_0.gguf"));
    let steps = steps(&builder, &[root.join("lib64")], &model);
    if let Some(first) = steps.first() {
        print!("{}", exports(&first.command));
    }
    for step in &steps {
        println!("# {}\n{}", step.name, line(&step.command));
    }
    Ok(ExitCode::SUCCESS)
}

/// The variables that the command sets, one line of shell each.
fn exports(command: &Command) -> String {
    let set = command.get_envs().filter_map(|(name, value)| {
        let (name, value) = (name.to_string_lossy(), value?.to_string_lossy());
        // What stands behind the new folders in a search path is the reader's.
        let now = env::var(&*name).unwrap_or_default();
        let value = match value.strip_suffix(&format!(":{now}")) {
            Some(new) => format!("{new}:${name}"),
            None => value.into_owned(),
        };
        Some(format!("export {name}=\"{value}\"\n"))
    });
    set.collect()
}

/// The command as one would type it at the root of the checkout.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let written = process::written(command);
    match program.parent() {
        // Cargo is on everybody's search path, what it builds is not.
        Some(folder) if program.file_stem().is_some_and(|name| name != "cargo") => {
            format!("{}/{written}", folder.display())
        }
        _ => written,
    }
}

/// In order; builds come first, so that they do not count as part of what they build.
fn steps(builder: &Builder<'_>, real: &[PathBuf], model: &Path) -> Vec<Step> {
    let of_kernels = [
        "--release",
        "-p",
        KERNELS,
        "--features",
        "cuda",
        "--test",
        "gpu",
    ];
    let bench = [
        "bench",
        "-p",
        KERNELS,
        "--features",
        "cuda",
        "--bench",
        "gpu",
    ];
    let test = [&["test"], &of_kernels[..]].concat();
    let libraries = in_front("LD_LIBRARY_PATH", real);
    let cargo = |args: &[&str], more: &[&str]| {
        let mut command = builder.cargo(&[args, more].concat());
        command.env("LD_LIBRARY_PATH", &libraries);
        command
    };
    let mut demo = demo::command(builder.workspace, &builder.binary(), model);
    // By name: where no GPU can be opened it must fail, and not run on the CPU.
    demo.args(["--device", "cuda"])
        .env("LD_LIBRARY_PATH", &libraries);
    let step = |name, builds, command| Step {
        name,
        command,
        builds,
    };
    vec![
        step("build the command line", true, cargo(&BUILD, &[])),
        step("build the tests", true, cargo(&test, &["--no-run"])),
        step("build the benchmark", true, cargo(&bench, &["--no-run"])),
        step("every op against the CPU", false, cargo(&test, &[])),
        step("demo", false, demo),
        step("benchmark", false, cargo(&bench, &[])),
    ]
}

/// Name, generation and driver of the GPUs.
fn gpu() -> Result<String> {
    if !process::is_installed("nvidia-smi") {
        bail!(
            "`nvidia-smi` is not on the search path, so there is no NVIDIA driver here; \
             run this on a machine with an NVIDIA GPU, Ampere or newer (`--dry-run` prints the commands)"
        );
    }
    let mut smi = Command::new("nvidia-smi");
    smi.args([
        "--query-gpu=name,compute_cap,driver_version",
        "--format=csv,noheader",
    ]);
    let said = process::output(&mut smi)
        .context("the NVIDIA driver does not answer; `nvidia-smi` must list a GPU")?;
    listed(&said)
}

/// The GPUs as `nvidia-smi` lists them, if the first one can run the kernels.
fn listed(said: &str) -> Result<String> {
    let gpus: Vec<&str> = said.lines().map(str::trim).collect();
    let first = gpus
        .first()
        .context("`nvidia-smi` lists no GPU; check that this container or machine may use one")?;
    let capability = first.split(", ").nth(1).unwrap_or_default();
    let number: u32 = parse_capability(capability)
        .and_then(|digits| digits.parse().ok())
        .with_context(|| format!("`nvidia-smi` names no compute capability: \"{first}\""))?;
    if number < OLDEST {
        bail!("{first}: the kernels need compute capability 8.0 (Ampere) or newer");
    }
    Ok(gpus.join("; "))
}

/// Not the one out of the wheels: it comes without the libraries that running needs.
fn nvcc() -> Result<PathBuf> {
    setup::installed().context(
        "there is no `nvcc` on the search path; install the CUDA toolkit, or name one with HEADROOM_NVCC=/path/to/nvcc",
    )
}

fn no_stubs(linking: &Linking, toolkit: &Toolkit) -> Result<()> {
    if !linking.stubs.is_empty() {
        bail!(
            "{} cannot be found; they come with the driver (libcuda) and the CUDA toolkit {} (the rest): install them, \
             or put their folder into LD_LIBRARY_PATH",
            linking.stubs.join(", "),
            toolkit.major
        );
    }
    Ok(())
}

#[derive(Debug)]
struct Done {
    name: &'static str,
    took: Duration,
    passed: bool,
    builds: bool,
}

fn summary(done: &[Done]) -> String {
    let mut out = String::new();
    for step in done {
        out.push_str(&format!(
            "{:>8.1} s  {} ({})\n",
            step.took.as_secs_f64(),
            step.name,
            if step.passed { "passed" } else { "failed" }
        ));
    }
    let after: Duration = done
        .iter()
        .filter(|step| !step.builds)
        .map(|s| s.took)
        .sum();
    let passed = done.iter().filter(|step| step.passed).count();
    out.push_str(&format!(
        "gpu-test: {passed} of {} steps passed, {:.0} s after the build{}",
        done.len(),
        after.as_secs_f64(),
        if after > LIMIT {
            ", more than the 480 s it should take"
        } else {
            ""
        }
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_share_one_build_and_come_in_order() {
        let workspace = Workspace::at(Path::new("/checkout"));
        let builder = Builder {
            workspace: &workspace,
            root: "/cuda".into(),
            libraries: "/l".into(),
            capability: "90".to_owned(),
            target: "/t/cuda-build".into(),
        };
        let steps = steps(&builder, &["/cuda/lib64".into()], Path::new("/m.gguf"));
        let written: Vec<String> = steps.iter().map(|s| process::written(&s.command)).collect();
        assert!(
            written[3].ends_with("test --release -p attention-kernels --features cuda --test gpu")
        );
        assert!(
            written[4].contains("mistralrs-kv run --model /m.gguf"),
            "{}",
            written[4]
        );
        assert!(written[5].ends_with("bench -p attention-kernels --features cuda --bench gpu"));
        assert!(steps[..3].iter().all(|step| step.builds));
        assert!(steps[3..].iter().all(|step| !step.builds));
        assert_eq!(
            steps[4].command.get_program(),
            demo::binary_in(Path::new("/t/cuda-build"))
        );
        assert!(line(&steps[4].command).starts_with("/t/cuda-build/release/mistralrs-kv run "));
        assert!(line(&steps[3].command).starts_with("cargo test "));
        let exports = exports(&steps[3].command);
        let lines: Vec<&str> = exports.lines().collect();
        for set in [
            "CUDA_HOME=\"/cuda\"",
            "CARGO_TARGET_DIR=\"/t/cuda-build\"",
            "PATH=\"/cuda/bin:$PATH\"",
        ] {
            let set = format!("export {set}");
            assert!(lines.contains(&&*set), "{set} is not in {exports}");
        }
    }

    #[test]
    fn old_or_missing_gpu_is_refused() {
        let all = "NVIDIA H100 80GB HBM3, 9.0, 580.65.06\nTesla T4, 7.5, 580.65.06\n";
        assert!(listed(all).unwrap().ends_with("; Tesla T4, 7.5, 580.65.06"));
        let error = |said: &str| listed(said).unwrap_err().to_string();
        assert!(error("Tesla T4, 7.5, 580.65.06\n").starts_with("Tesla T4, 7.5"));
        assert!(error("").contains("lists no GPU"));
        assert!(error("NVIDIA GB10, [N/A], 1").contains("names no compute capability"));
    }

    #[test]
    fn missing_libraries_are_named() {
        let linking = Linking {
            folder: "/l".into(),
            stubs: vec!["libcublas.so.13".to_owned()],
            real: Vec::new(),
        };
        let toolkit = Toolkit {
            root: "/cuda".into(),
            release: "release 13.0, V13.0.88".to_owned(),
            major: 13,
        };
        let error = no_stubs(&linking, &toolkit).unwrap_err().to_string();
        assert!(
            error.starts_with("libcublas.so.13 cannot be found"),
            "{error}"
        );
    }

    #[test]
    fn summary_counts_without_the_build() {
        let done = |name, seconds, passed, builds| Done {
            name,
            took: Duration::from_secs(seconds),
            passed,
            builds,
        };
        let text = summary(&[
            done("build", 3000, true, true),
            done("demo", 500, false, false),
        ]);
        assert!(
            text.ends_with(
                "1 of 2 steps passed, 500 s after the build, more than the 480 s it should take"
            ),
            "{text}"
        );
        assert!(text.contains("500.0 s  demo (failed)"), "{text}");
    }
}
