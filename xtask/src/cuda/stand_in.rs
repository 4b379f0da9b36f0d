//! A stand-in for nvcc, so that Rust code can be type-checked with feature `cuda` where there is none.
//!
//! Build scripts ask for its release and want the files they name to exist; type-checking reads none of them.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::make_executable;
use crate::workspace::{Workspace, make_folder, write_if_different};

const SCRIPT: &str = include_str!("stand_in.sh");

/// Makes `.headroom/cuda-stand-in`, which looks like the folder of a toolkit, and returns it.
pub(crate) fn make(workspace: &Workspace) -> Result<PathBuf> {
    if cfg!(not(unix)) {
        bail!("the stand-in for nvcc is a shell script; run this on Linux");
    }
    let root = workspace.headroom().join("cuda-stand-in");
    for name in ["include", "lib64"] {
        make_folder(&root.join(name))?;
    }
    let nvcc = root.join("bin/nvcc");
    write_if_different(&nvcc, SCRIPT)?;
    make_executable(&nvcc)?;
    Ok(root)
}

#[cfg(all(test, unix))]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::*;
    use crate::{cuda::toolkit::Toolkit, process};

    #[test]
    fn build_scripts_find_what_they_look_for() {
        let folder = tempfile::tempdir().unwrap();
        let root = make(&Workspace::at(folder.path())).unwrap();
        let nvcc = root.join("bin/nvcc");
        let nvcc = |args: &[&str]| {
            let mut command = Command::new(&nvcc);
            process::output(command.current_dir(folder.path()).args(args)).unwrap()
        };
        // cudarc and mistralrs-quant count lines and commas.
        let said = nvcc(&["--version"]);
        let release = said.lines().nth(3).and_then(|line| line.split(", ").nth(1));
        assert_eq!(release, Some("release 13.0"));
        let toolkit = Toolkit::of(&root.join("bin/nvcc"), "").unwrap();
        assert_eq!(toolkit.major, 13);

        nvcc(&["-c", "-o", "a.o", "-std=c++17", "x/a.cu"]);
        nvcc(&["--lib", "-o", "libx.a", "a.o"]);
        fs::create_dir(folder.path().join("out")).unwrap();
        nvcc(&["--ptx", "--output-directory", "out", "x/b.cu"]);
        let read = |path: &str| fs::read_to_string(folder.path().join(path)).unwrap();
        assert_eq!(read("a.o"), "");
        assert_eq!(read("libx.a"), "!<arch>\n");
        assert!(read("out/b.ptx").starts_with(".version "));
        assert!(!Path::new("a.o").exists(), "written into the wrong folder");
    }
}
