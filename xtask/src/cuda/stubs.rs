//! Libraries to link against, where the machine has none: stubs with the right names that do nothing.
//!
//! Feature `cuda` makes a program that names NVIDIA's libraries. The linker wants to see them although they are only
//! needed to run, and they are large (cuBLAS: 600 MB) or come with a driver (libcuda). A stub has the library's name
//! and every function that cudarc, the only caller, declares. Each says that there is no device.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::{CLI, link, toolkit::Toolkit};
use crate::{
    engine,
    metadata::Metadata,
    process,
    workspace::{Workspace, make_folder, write_if_different},
};

#[derive(Debug)]
struct Library {
    /// Without `lib` and `.so`.
    name: &'static str,
    /// cudarc's module with its functions.
    module: &'static str,
    /// Number in its file name; `None` for that of the toolkit.
    number: Option<u32>,
    /// What the stub's functions return.
    error: u32,
}

const LIBRARIES: [Library; 5] = [
    // CUDA_ERROR_NO_DEVICE
    Library {
        name: "cuda",
        module: "driver",
        number: Some(1),
        error: 100,
    },
    // CUBLAS_STATUS_NOT_INITIALIZED
    Library {
        name: "cublas",
        module: "cublas",
        number: None,
        error: 1,
    },
    Library {
        name: "cublasLt",
        module: "cublaslt",
        number: None,
        error: 1,
    },
    // CURAND_STATUS_INITIALIZATION_FAILED
    Library {
        name: "curand",
        module: "curand",
        number: Some(10),
        error: 203,
    },
    // NVRTC_ERROR_INTERNAL_ERROR
    Library {
        name: "nvrtc",
        module: "nvrtc",
        number: None,
        error: 11,
    },
];

/// A folder that holds `lib<name>.so` for everything that is linked.
#[derive(Debug)]
pub(crate) struct Linking {
    pub(crate) folder: PathBuf,
    /// File names of the libraries that are stubs.
    pub(crate) stubs: Vec<String>,
    /// Folders of the libraries that are not.
    pub(crate) real: Vec<PathBuf>,
}

/// Finds each library or makes a stub for it.
pub(crate) fn prepare(workspace: &Workspace, toolkit: &Toolkit) -> Result<Linking> {
    let name = format!("cuda-link-{}", toolkit.major);
    let mut linking = Linking {
        folder: workspace.headroom().join(name),
        stubs: Vec::new(),
        real: Vec::new(),
    };
    make_folder(&linking.folder)?;
    let places = Places::of(toolkit);
    // No stub for the runtime: it comes with every nvcc, and the kernels' own start-up code is in it.
    let runtime = places.find("cudart", toolkit.major).with_context(|| {
        format!(
            "no libcudart.so.{} stands beside the nvcc in {}; install the toolkit's runtime",
            toolkit.major,
            toolkit.root.display()
        )
    })?;
    linking.add("cudart", &runtime)?;
    let mut sources = None;
    for library in &LIBRARIES {
        let number = library.number.unwrap_or(toolkit.major);
        if let Some(path) = places.find(library.name, number) {
            linking.add(library.name, &path)?;
            continue;
        }
        let sources = match &sources {
            Some(sources) => sources,
            None => sources.insert(cudarc(workspace)?),
        };
        linking.add_stub(library, number, sources)?;
    }
    Ok(linking)
}

impl Linking {
    fn add(&mut self, name: &str, path: &Path) -> Result<()> {
        link(path, &self.folder.join(format!("lib{name}.so")))?;
        let folder = path.parent().unwrap_or(path).to_owned();
        if !self.real.contains(&folder) {
            self.real.push(folder);
        }
        Ok(())
    }

    fn add_stub(&mut self, library: &Library, number: u32, sources: &[PathBuf]) -> Result<()> {
        let mut functions = Functions::new();
        for source in sources {
            let path = source.join(format!("src/{}/sys/mod.rs", library.module));
            if let Ok(text) = fs::read_to_string(&path) {
                functions.extend(declared(&text));
            }
        }
        if functions.is_empty() {
            bail!(
                "cudarc declares no function of lib{}; looked for src/{}/sys/mod.rs in {sources:?}",
                library.name,
                library.module
            );
        }
        let file_name = format!("lib{}.so.{number}", library.name);
        compile(
            &self.folder,
            library.name,
            &file_name,
            &c_source(&functions, library.error),
        )?;
        self.stubs.push(file_name);
        Ok(())
    }
}

/// Where libraries are looked for.
#[derive(Debug)]
struct Places {
    toolkit: Vec<PathBuf>,
    system: Vec<PathBuf>,
}

impl Places {
    fn of(toolkit: &Toolkit) -> Self {
        let variable = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let mut system: Vec<PathBuf> = env::split_paths(&variable)
            .filter(|folder| folder.is_absolute())
            .collect();
        let of_the_machine = format!("/usr/lib/{}-linux-gnu", env::consts::ARCH);
        let usual = [
            "/usr/lib64",
            "/usr/lib",
            "/usr/lib/wsl/lib",
            "/usr/local/lib",
        ];
        system.extend(
            [&*of_the_machine]
                .into_iter()
                .chain(usual)
                .map(PathBuf::from),
        );
        Self {
            toolkit: toolkit.library_folders(),
            system,
        }
    }

    /// The library with this number, else what the toolkit has for linking only.
    fn find(&self, name: &str, number: u32) -> Option<PathBuf> {
        let numbered = format!("lib{name}.so.{number}");
        let bare = format!("lib{name}.so");
        let exact = self.toolkit.iter().chain(&self.system);
        let exact = exact.map(|folder| folder.join(&numbered));
        let for_linking = self
            .toolkit
            .iter()
            .flat_map(|folder| [folder.join(&bare), folder.join("stubs").join(&bare)]);
        exact.chain(for_linking).find(|path| path.is_file())
    }
}

/// Folders of every cudarc that the program is built with.
fn cudarc(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let mut command = process::cargo(workspace);
    command.args(["metadata", "--format-version", "1", "--filter-platform"]);
    command.arg(engine::host(workspace)?);
    command.args(["--features", &format!("{CLI}/cuda")]);
    let metadata = Metadata::parse(&process::output(&mut command)?)?;
    let packages = metadata.packages.iter();
    let folders: Vec<PathBuf> = packages
        .filter(|package| package.name == "cudarc")
        .map(|package| package.folder().to_owned())
        .collect();
    if folders.is_empty() {
        bail!("feature `cuda` of {CLI} brings no cudarc in; check integration/cli/Cargo.toml");
    }
    Ok(folders)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Returns {
    Code,
    Size,
    Text,
    Nothing,
}

type Functions = BTreeMap<String, Returns>;

/// The C functions that a file of bindings declares, which may go over several lines each.
fn declared(text: &str) -> Functions {
    let mut functions = Functions::new();
    let mut rest = text;
    while let Some(at) = rest.find("fn ") {
        let before = rest[..at].trim_end_matches(' ').trim_end_matches("pub");
        let alone = before.trim_end_matches(' ').ends_with('\n');
        rest = &rest[at + "fn ".len()..];
        let Some(end) = rest.find([';', '{']) else {
            break;
        };
        let declaration = &rest[..end];
        // A function with a body is not C's.
        if !alone || !rest[end..].starts_with(';') {
            continue;
        }
        let Some((name, _)) = declaration.split_once('(') else {
            continue;
        };
        let result = declaration
            .rsplit_once(") -> ")
            .map(|(_, result)| result.trim());
        let returns = match result {
            None => Returns::Nothing,
            Some("usize") => Returns::Size,
            Some(pointer) if pointer.starts_with('*') => Returns::Text,
            Some(_) => Returns::Code,
        };
        functions.insert(name.to_owned(), returns);
    }
    functions
}

fn c_source(functions: &Functions, error: u32) -> String {
    let mut out = String::from("/* Made by `cargo xtask cuda-build`. */\n");
    for (name, returns) in functions {
        let _ = match returns {
            Returns::Code => writeln!(out, "int {name}(void) {{ return {error}; }}"),
            Returns::Size => writeln!(out, "unsigned long {name}(void) {{ return 0; }}"),
            Returns::Text => writeln!(out, "const char *{name}(void) {{ return \"stub\"; }}"),
            Returns::Nothing => writeln!(out, "void {name}(void) {{}}"),
        };
    }
    out
}

/// Makes `lib<name>.so` and the file it points to, unless they are there.
fn compile(folder: &Path, name: &str, file_name: &str, source: &str) -> Result<()> {
    let from = folder.join(format!("{name}.c"));
    let to = folder.join(file_name);
    let changed = write_if_different(&from, source)?;
    if changed || !to.is_file() {
        let mut cc = Command::new("cc");
        // The functions' own names may be the compiler's, with other types.
        cc.args(["-shared", "-fPIC", "-O1", "-w", "-fno-builtin"]);
        cc.arg(format!("-Wl,-soname,{file_name}"))
            .arg("-o")
            .arg(&to);
        process::output(cc.arg(&from))?;
    }
    link(Path::new(file_name), &folder.join(format!("lib{name}.so")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BINDINGS: &str = r#"
pub type Callback = ::core::option::Option<unsafe extern "C" fn(data: *mut ::core::ffi::c_void) -> cuResult>;
pub unsafe fn cuInit(flags: ::core::ffi::c_uint) -> CUresult {
    {
        type _F = unsafe extern "C" fn(::core::ffi::c_uint) -> CUresult;
        extern "C" {
            fn cuInit(flags: ::core::ffi::c_uint) -> CUresult;
        }
        cuInit(flags)
    }
}
extern "C" {
    pub fn cuName(
        status: CUresult,
        other: *const ::core::ffi::c_char,
    ) -> *const ::core::ffi::c_char;
    fn cuSize() -> usize;
    pub fn cuQuiet(size: usize);
}
"#;

    #[test]
    fn declarations_are_found_in_both_forms() {
        let functions = declared(BINDINGS);
        let expected = [
            ("cuInit", Returns::Code),
            ("cuName", Returns::Text),
            ("cuQuiet", Returns::Nothing),
            ("cuSize", Returns::Size),
        ];
        let expected = expected.map(|(name, returns)| (name.to_owned(), returns));
        assert_eq!(functions, Functions::from(expected));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn program_needs_the_stub_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let source = c_source(&declared(BINDINGS), 100);
        for _ in 0..2 {
            compile(
                folder.path(),
                "headroomtest",
                "libheadroomtest.so.7",
                &source,
            )
            .unwrap();
        }
        let main = folder.path().join("main.c");
        fs::write(
            &main,
            "int cuInit(unsigned); const char *cuName(int);\n\
             int main(void) { return cuInit(0) == 100 && cuName(0)[0] == 's' ? 42 : 1; }\n",
        )
        .unwrap();
        let program = folder.path().join("main");
        let mut cc = Command::new("cc");
        cc.arg(&main).arg("-o").arg(&program);
        cc.env("LIBRARY_PATH", folder.path()).arg("-lheadroomtest");
        process::output(&mut cc).unwrap();
        let mut alone = Command::new(&program);
        let error = process::output(alone.env_remove("LD_LIBRARY_PATH")).unwrap_err();
        assert!(
            error.to_string().contains("libheadroomtest.so.7"),
            "{error}"
        );
        let with = Command::new(&program)
            .env("LD_LIBRARY_PATH", folder.path())
            .status();
        assert_eq!(with.unwrap().code(), Some(42));
    }

    #[test]
    fn real_libraries_come_before_stubs() {
        let folder = tempfile::tempdir().unwrap();
        let places = Places {
            toolkit: vec![folder.path().join("cuda")],
            system: vec![folder.path().join("usr")],
        };
        let touch = |path: &str| {
            let path = folder.path().join(path);
            write_if_different(&path, "").unwrap();
            path
        };
        assert_eq!(places.find("cuda", 1), None);
        let for_linking = touch("cuda/stubs/libcuda.so");
        assert_eq!(places.find("cuda", 1), Some(for_linking));
        // A library of the system without its number may be of another release.
        touch("usr/libcublas.so");
        touch("usr/libcublas.so.12");
        assert_eq!(places.find("cublas", 13), None);
        let driver = touch("usr/libcuda.so.1");
        assert_eq!(places.find("cuda", 1), Some(driver));
    }
}
