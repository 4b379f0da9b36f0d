//! A CUDA toolkit: its nvcc, and what stands beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::process;

/// A toolkit whose nvcc has answered.
#[derive(Debug)]
pub(crate) struct Toolkit {
    /// The folder with `bin`, `include` and `lib64`.
    pub(crate) root: PathBuf,
    /// As in `release 13.0, V13.0.88`.
    pub(crate) release: String,
    /// The first number of the release.
    pub(crate) major: u32,
}

impl Toolkit {
    /// The toolkit of this nvcc; `hint` says what to do if it is none.
    pub(crate) fn of(nvcc: &Path, hint: &str) -> Result<Self> {
        let nvcc = fs::canonicalize(nvcc)
            .with_context(|| format!("{} cannot be found; {hint}", nvcc.display()))?;
        let said = process::output(Command::new(&nvcc).arg("--version"))
            .with_context(|| format!("{} does not run; {hint}", nvcc.display()))?;
        let (release, major) = release(&said).with_context(|| {
            format!(
                "`{} --version` names no release; {hint}. It said:\n{}",
                nvcc.display(),
                said.trim_end()
            )
        })?;
        let root = nvcc.parent().and_then(Path::parent);
        let root = root.with_context(|| {
            format!(
                "{} does not stand in the `bin` of a toolkit; {hint}",
                nvcc.display()
            )
        })?;
        Ok(Self {
            root: root.to_owned(),
            release,
            major,
        })
    }

    /// A program of the toolkit.
    pub(crate) fn program(&self, name: &str) -> Command {
        process::without_us(self.root.join("bin").join(name))
    }

    /// Where the toolkit's libraries may stand.
    pub(crate) fn library_folders(&self) -> Vec<PathBuf> {
        let target = format!("targets/{}-linux/lib", std::env::consts::ARCH);
        ["lib64", "lib", &target]
            .iter()
            .map(|name| self.root.join(name))
            .collect()
    }
}

/// `release 13.0, V13.0.88` and 13, out of what `nvcc --version` says.
fn release(said: &str) -> Option<(String, u32)> {
    let line = said.lines().find(|line| line.contains("release "))?;
    let release = line[line.find("release ")?..].trim();
    let number = release.strip_prefix("release ")?;
    let major = number.split(['.', ',']).next()?.parse().ok()?;
    Some((release.to_owned(), major))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_is_read() {
        let said = "nvcc: NVIDIA (R) Cuda compiler driver\n\
             Cuda compilation tools, release 13.0, V13.0.88\nBuild cuda_13.0.r13.0/compiler.1\n";
        assert_eq!(
            release(said),
            Some(("release 13.0, V13.0.88".to_owned(), 13))
        );
        assert_eq!(release("gcc (Debian 12.2.0) 12.2.0"), None);
        assert_eq!(release("release soon, V?"), None);
    }

    #[test]
    fn what_is_no_nvcc_is_named() {
        let missing = Toolkit::of(Path::new("/no/such/nvcc"), "check HEADROOM_NVCC").unwrap_err();
        assert!(
            missing
                .to_string()
                .contains("/no/such/nvcc cannot be found; check HEADROOM_NVCC"),
            "{missing}"
        );
        // Any program that runs and says something else.
        let cargo = std::env::var_os("CARGO").unwrap();
        let error = Toolkit::of(Path::new(&cargo), "check HEADROOM_NVCC").unwrap_err();
        assert!(error.to_string().contains("names no release"), "{error}");
    }
}
