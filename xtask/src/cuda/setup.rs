//! `cargo xtask cuda-setup`: NVIDIA's compiler for GPU code out of its own wheels; no GPU and no driver needed.

use std::{
    env,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{link, make_executable, toolkit::Toolkit};
use crate::{
    pip::{self, Order, Pinned, Source, Wanted},
    process,
    progress::Progress,
    workspace::{Workspace, cannot_write, make_folder, write_if_different},
};

/// Of nvcc, and of the two packages that must have exactly its release: a newer one writes what its ptxas refuses.
pub(crate) const RELEASE: &str = "13.0.88";
/// Names an nvcc to use instead.
const VARIABLE: &str = "HEADROOM_NVCC";
/// Where the wheels hold the toolkit.
const INSIDE: &str = "nvidia/cu13/";
/// Written last; holds what the folder was made from.
const RECORD: &str = "headroom-made-from.txt";
const CHUNK: usize = 1 << 20;

const fn wheel(package: &'static str, name: &'static str, sha256: &'static str) -> Wanted {
    Wanted {
        from: package,
        file: Pinned { name, sha256 },
    }
}

const X86_64: [Wanted; 5] = [
    wheel(
        "nvidia-cuda-nvcc==13.0.88",
        "nvidia_cuda_nvcc-13.0.88-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03",
    ),
    wheel(
        "nvidia-nvvm==13.0.88",
        "nvidia_nvvm-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        "c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0",
    ),
    wheel(
        "nvidia-cuda-crt==13.0.88",
        "nvidia_cuda_crt-13.0.88-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4",
    ),
    wheel(
        "nvidia-cuda-runtime==13.0.96",
        "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
    ),
    wheel(
        "nvidia-cuda-cccl==13.0.85",
        "nvidia_cuda_cccl-13.0.85-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649",
    ),
];

const AARCH64: [Wanted; 5] = [
    wheel(
        "nvidia-cuda-nvcc==13.0.88",
        "nvidia_cuda_nvcc-13.0.88-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
        "c7ff28f86a24effdc6c034fa15230c549a273e4771b10a7fec14996f8cf3307f",
    ),
    wheel(
        "nvidia-nvvm==13.0.88",
        "nvidia_nvvm-13.0.88-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
        "c4376a291d72d22a315d9d2f69bdae8f8cd83a627f75bad395cee49a0fe65dc1",
    ),
    wheel(
        "nvidia-cuda-crt==13.0.88",
        "nvidia_cuda_crt-13.0.88-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
        "ee2ea2a97073e02ee62bb27841f437332be2c248e3eac013df07997ada39c003",
    ),
    wheel(
        "nvidia-cuda-runtime==13.0.96",
        "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
        "ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55",
    ),
    wheel(
        "nvidia-cuda-cccl==13.0.85",
        "nvidia_cuda_cccl-13.0.85-py3-none-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
        "6f0203e29fed809ee2b7fe9b1344df66ecab990c37d6a2e0e189b26d6c97ed7c",
    ),
];

/// Installs what is missing and says what is there.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let toolkit = ensure(workspace)?;
    println!(
        "cuda: ready {} ({})",
        workspace.short(&toolkit.root.join("bin/nvcc")),
        toolkit.release
    );
    Ok(())
}

/// The toolkit to use: the one whose nvcc [`VARIABLE`] names, else ours, installed if it is not there.
///
/// Takes the lock of the checkout while it installs, so the caller must not hold it.
pub(crate) fn ensure(workspace: &Workspace) -> Result<Toolkit> {
    if let Some(nvcc) = users_nvcc() {
        return Toolkit::of(
            &nvcc,
            &format!("check {VARIABLE}, or unset it to use the wheels"),
        );
    }
    let wheels = wheels(env::consts::OS, env::consts::ARCH)?;
    let folder = workspace.headroom().join(format!("cuda-{RELEASE}"));
    let hint = format!(
        "delete {} and run `cargo xtask cuda-setup`",
        workspace.short(&folder)
    );
    if !is_complete(&folder, wheels) {
        let _lock = workspace.lock()?;
        // Somebody else may have finished while we waited.
        if !is_complete(&folder, wheels) {
            install(workspace, wheels, &folder)?;
        }
    }
    Toolkit::of(&folder.join("bin/nvcc"), &hint)
}

/// The nvcc that the user names, or else the one on the search path.
pub(crate) fn installed() -> Option<PathBuf> {
    users_nvcc().or_else(|| process::find("nvcc"))
}

/// Why the kernels cannot be compiled and compared here; `None` where they can.
pub(crate) fn why_not() -> Option<String> {
    let (os, arch) = (env::consts::OS, env::consts::ARCH);
    // Another host's compiler is not known to write the same text.
    (users_nvcc().is_none() && (os, arch) != ("linux", "x86_64")).then(|| {
        format!("kernels are compared on Linux x86_64, this is {os} {arch}; set {VARIABLE} to do it nevertheless")
    })
}

fn users_nvcc() -> Option<PathBuf> {
    let value = env::var_os(VARIABLE).filter(|value| !value.is_empty());
    value.map(PathBuf::from)
}

fn wheels(os: &str, arch: &str) -> Result<&'static [Wanted]> {
    match (os, arch) {
        ("linux", "x86_64") => Ok(&X86_64),
        ("linux", "aarch64") => Ok(&AARCH64),
        _ => bail!(
            "NVIDIA has nvcc as wheels for Linux on x86_64 and aarch64, not for {os} on {arch}; \
             set {VARIABLE}=/path/to/nvcc to use one that is installed"
        ),
    }
}

fn record(wheels: &[Wanted]) -> String {
    let lines = wheels
        .iter()
        .map(|wheel| format!("{} {}\n", wheel.file.sha256, wheel.file.name));
    lines.collect()
}

fn is_complete(folder: &Path, wheels: &[Wanted]) -> bool {
    fs::read_to_string(folder.join(RECORD)).is_ok_and(|found| found == record(wheels))
}

/// Unpacks beside `folder` and renames, so that a killed set-up leaves nothing half done.
fn install(workspace: &Workspace, wheels: &[Wanted], folder: &Path) -> Result<()> {
    let order = Order {
        source: Source::Pip,
        label: "cuda",
        subject: "NVIDIA's compiler",
        contents: &format!("nvcc {RELEASE} and what it needs (104 MB)"),
        files: wheels,
        instead: &format!("set {VARIABLE}=/path/to/nvcc to use one that is installed"),
    };
    let files = pip::fetch(workspace, &order)?;
    let partial = workspace.headroom().join(format!("cuda-{RELEASE}.partial"));
    for old in [partial.as_path(), folder] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| cannot_write(old))?;
        }
    }
    for file in &files {
        unpack(file, &partial)?;
    }
    name_libraries(&partial)?;
    write_if_different(&partial.join(RECORD), &record(wheels))?;
    fs::rename(&partial, folder).with_context(|| cannot_write(folder))
}

/// Everything of the wheel that stands in [`INSIDE`], into `folder`.
fn unpack(wheel: &Path, folder: &Path) -> Result<()> {
    let again = || pip::damaged(wheel);
    let mut archive = pip::archive(wheel)?;
    let total = archive.decompressed_size().unwrap_or_default();
    let name = wheel.file_name().unwrap_or_default().to_string_lossy();
    let short = name.split("-py3").next().unwrap_or_default();
    let mut progress = Progress::bytes(
        &format!("cuda: unpacking {short}"),
        u64::try_from(total).unwrap_or(u64::MAX),
    );
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).with_context(again)?;
        let path = member.enclosed_name().with_context(again)?;
        let Ok(inside) = path.strip_prefix(INSIDE) else {
            continue;
        };
        if member.is_dir() {
            continue;
        }
        let to = folder.join(inside);
        make_folder(to.parent().unwrap_or(folder))?;
        let mut file = File::create(&to).with_context(|| cannot_write(&to))?;
        copy(&mut member, &mut file, &mut progress).with_context(again)?;
        // Some are marked for their owner only.
        if member.unix_mode().is_some_and(|mode| mode & 0o111 != 0) {
            make_executable(&to)?;
        }
    }
    Ok(())
}

fn copy(from: &mut impl Read, to: &mut impl Write, progress: &mut Progress) -> io::Result<()> {
    loop {
        let copied = io::copy(&mut from.by_ref().take(CHUNK as u64), to)?;
        if copied == 0 {
            return Ok(());
        }
        progress.advance(copied);
    }
}

/// What linkers look for: a folder `lib64`, and libraries without a number.
fn name_libraries(root: &Path) -> Result<()> {
    link(Path::new("lib"), &root.join("lib64"))?;
    let folder = root.join("lib");
    for entry in fs::read_dir(&folder).with_context(|| cannot_write(&folder))? {
        let name = entry?.file_name();
        let Some((stem, _)) = name.to_str().and_then(|name| name.split_once(".so.")) else {
            continue;
        };
        link(Path::new(&name), &folder.join(format!("{stem}.so")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use zip::{ZipWriter, write::SimpleFileOptions};

    use super::*;

    #[test]
    fn every_wheel_is_pinned_for_both_machines() {
        let packages = |wheels: &[Wanted]| -> Vec<_> { wheels.iter().map(|w| w.from).collect() };
        assert_eq!(packages(&X86_64), packages(&AARCH64));
        for wheel in X86_64.iter().chain(&AARCH64) {
            let (name, version) = wheel.from.split_once("==").unwrap();
            let start = format!("{}-{version}-", name.replace('-', "_"));
            assert!(wheel.file.name.starts_with(&start), "{}", wheel.file.name);
            assert_eq!(wheel.file.sha256.len(), 64, "{}", wheel.file.name);
        }
        let same = |name: &str| packages(&X86_64).contains(&&*format!("{name}=={RELEASE}"));
        assert!(same("nvidia-cuda-nvcc") && same("nvidia-nvvm") && same("nvidia-cuda-crt"));
        let error = wheels("macos", "aarch64").unwrap_err().to_string();
        assert!(error.contains("not for macos on aarch64"), "{error}");
        assert!(error.contains("HEADROOM_NVCC=/path/to/nvcc"), "{error}");
    }

    #[test]
    fn only_a_folder_with_this_record_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_complete(folder.path(), &X86_64));
        fs::write(folder.path().join(RECORD), record(&AARCH64)).unwrap();
        assert!(!is_complete(folder.path(), &X86_64));
        fs::write(folder.path().join(RECORD), record(&X86_64)).unwrap();
        assert!(is_complete(folder.path(), &X86_64));
    }

    #[cfg(unix)]
    #[test]
    fn wheel_becomes_a_toolkit() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("a-1.0-py3-none-any.whl");
        let mut zip = ZipWriter::new(File::create(&wheel).unwrap());
        for (name, mode) in [
            ("nvidia/cu13/bin/nvcc", 0o744),
            ("nvidia/cu13/lib/libx.so.13", 0o644),
            ("a-1.0.dist-info/RECORD", 0o644),
        ] {
            let options = SimpleFileOptions::default().unix_permissions(mode);
            zip.start_file(name, options).unwrap();
            zip.write_all(name.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        let root = folder.path().join("cuda");
        // Twice, as after a set-up that was killed.
        for _ in 0..2 {
            unpack(&wheel, &root).unwrap();
            name_libraries(&root).unwrap();
        }
        let mode = |path: &str| {
            let data = fs::metadata(root.join(path)).unwrap();
            data.permissions().mode() & 0o111
        };
        assert_eq!((mode("bin/nvcc"), mode("lib/libx.so.13")), (0o111, 0));
        assert!(!root.join("a-1.0.dist-info").exists());
        let through_links = fs::read_to_string(root.join("lib64/libx.so")).unwrap();
        assert_eq!(through_links, "nvidia/cu13/lib/libx.so.13");
    }
}
