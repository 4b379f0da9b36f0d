//! The model that demo and tests run: which file it is, whether it is whole, how it is made.

mod convert;
mod gguf;
mod wheel;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use indicatif::HumanBytes;
use serde::{Deserialize, Serialize};

use crate::workspace::{Workspace, cannot_write, make_folder, write_if_different};

/// Counts up when the same source gives other bytes; models made before are then made again.
const CONVERTER: u32 = 1;

/// Number format of the weights of a model we make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dtype {
    Q8_0,
    F32,
}

/// What `--dtype` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DtypeArg {
    /// 8-bit blocks: what demo and tests run
    #[value(name = "q8_0")]
    Q8_0,
    /// The same weights in full precision: for comparing numbers
    #[value(name = "f32")]
    F32,
    /// Both
    All,
}

impl DtypeArg {
    fn each(self) -> &'static [Dtype] {
        match self {
            Self::Q8_0 => &[Dtype::Q8_0],
            Self::F32 => &[Dtype::F32],
            Self::All => &[Dtype::Q8_0, Dtype::F32],
        }
    }
}

impl Dtype {
    fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "Q8_0",
            Self::F32 => "F32",
        }
    }

    fn file_name(self) -> String {
        format!("SmolLM2-135M-Instruct-{}.gguf", self.name())
    }
}

/// Whose model is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The one this module fetches and converts.
    Ours,
    /// A file the user named.
    Users(PathBuf),
}

impl Choice {
    /// From `--model` and `HEADROOM_MODEL`; the former wins, and an empty variable counts as none.
    pub(crate) fn new(option: Option<&Path>, variable: Option<OsString>) -> Self {
        let variable = variable
            .filter(|value| !value.is_empty())
            .map(PathBuf::from);
        option
            .map(Path::to_owned)
            .or(variable)
            .map_or(Self::Ours, Self::Users)
    }

    /// The user's model by its full path, so that programs started elsewhere find it.
    pub(crate) fn users(&self) -> Option<PathBuf> {
        match self {
            Self::Ours => None,
            Self::Users(path) => Some(fs::canonicalize(path).unwrap_or_else(|_| path.clone())),
        }
    }
}

/// Models that are whole, in the order they were asked for; never empty.
pub(crate) type Models = Vec<PathBuf>;

/// Makes sure that the models are there and whole; fetches and converts what is not.
pub(crate) fn ensure(workspace: &Workspace, dtype: DtypeArg, choice: &Choice) -> Result<Models> {
    if let Some(path) = choice.users() {
        gguf::check_magic(&path)?;
        println!("model: ready {} (yours)", path.display());
        return Ok(vec![path]);
    }
    let mut models = Models::new();
    let mut source = None;
    for &dtype in dtype.each() {
        let path = workspace.models().join(dtype.file_name());
        match state(&path) {
            State::Whole => {}
            State::Missing => make(workspace, &mut source, dtype, &path)?,
            State::Unusable(reason) => {
                println!(
                    "model: {} {reason}; making it again",
                    workspace.short(&path)
                );
                make(workspace, &mut source, dtype, &path)?;
            }
        }
        let bytes = fs::metadata(&path).map_or(0, |data| data.len());
        println!(
            "model: ready {} ({}, {})",
            workspace.short(&path),
            dtype.name(),
            HumanBytes(bytes)
        );
        models.push(path);
    }
    Ok(models)
}

/// Converts to a file beside `path` and renames it, so that a killed conversion leaves nothing half done.
fn make(
    workspace: &Workspace,
    source: &mut Option<Vec<u8>>,
    dtype: Dtype,
    path: &Path,
) -> Result<()> {
    let source = match source {
        Some(bytes) => bytes,
        None => source.insert(wheel::source_gguf(workspace)?),
    };
    make_folder(&workspace.models())?;
    let partial = path.with_extension("gguf.partial");
    convert::convert(source, dtype, &partial)?;
    fs::rename(&partial, path).with_context(|| cannot_write(path))?;
    let bytes = fs::metadata(path)?.len();
    let origin = Origin {
        source_sha256: wheel::MODEL.sha256.to_owned(),
        converter: CONVERTER,
        bytes,
    };
    write_if_different(
        &beside(path),
        &format!("{}\n", serde_json::to_string_pretty(&origin)?),
    )?;
    Ok(())
}

/// What stands beside a model we made, so that one look tells whether it can be used again.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Origin {
    source_sha256: String,
    converter: u32,
    bytes: u64,
}

fn beside(model: &Path) -> PathBuf {
    model.with_extension("gguf.json")
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Whole,
    Missing,
    Unusable(String),
}

/// Looks at the sidecar, the length and the header; does not read the weights.
fn state(path: &Path) -> State {
    let Ok(found) = fs::metadata(path) else {
        return State::Missing;
    };
    let origin = fs::read_to_string(beside(path)).ok();
    let Some(origin) = origin.and_then(|text| serde_json::from_str::<Origin>(&text).ok()) else {
        return State::Unusable("has no record of how it was made".to_owned());
    };
    if origin.source_sha256 != wheel::MODEL.sha256 || origin.converter != CONVERTER {
        return State::Unusable("was made from another model or by another converter".to_owned());
    }
    if origin.bytes != found.len() {
        return State::Unusable(format!(
            "is damaged: {} bytes instead of {}",
            found.len(),
            origin.bytes
        ));
    }
    match gguf::check_whole(path) {
        Ok(()) => State::Whole,
        Err(error) => State::Unusable(format!("is damaged: {error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model made by the converter, with its sidecar, as `make` leaves it.
    fn made(folder: &Path) -> PathBuf {
        let path = folder.join("tiny.gguf");
        convert::convert(&convert::tests::tiny(), Dtype::Q8_0, &path).unwrap();
        let bytes = fs::metadata(&path).unwrap().len();
        record(&path, CONVERTER, bytes);
        path
    }

    fn record(path: &Path, converter: u32, bytes: u64) {
        let origin = Origin {
            source_sha256: wheel::MODEL.sha256.to_owned(),
            converter,
            bytes,
        };
        fs::write(beside(path), serde_json::to_string(&origin).unwrap()).unwrap();
    }

    fn truncate(path: &Path, by: u64) -> u64 {
        let file = fs::File::options().write(true).open(path).unwrap();
        let bytes = file.metadata().unwrap().len() - by;
        file.set_len(bytes).unwrap();
        bytes
    }

    fn reason(path: &Path) -> String {
        match state(path) {
            State::Unusable(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn made_model_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(state(&folder.path().join("none.gguf")), State::Missing);
        assert_eq!(state(&made(folder.path())), State::Whole);
    }

    #[test]
    fn truncated_model_is_noticed_by_its_length_and_by_its_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = made(folder.path());
        let bytes = truncate(&path, 64);
        assert!(reason(&path).contains("is damaged"), "{}", reason(&path));
        // Even when the record agrees with the damage.
        record(&path, CONVERTER, bytes);
        assert!(
            reason(&path).contains("ends too early"),
            "{}",
            reason(&path)
        );
        let bytes = truncate(&path, bytes - 20);
        record(&path, CONVERTER, bytes);
        assert!(reason(&path).contains("is damaged"), "{}", reason(&path));
    }

    #[test]
    fn model_of_another_converter_or_without_record_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = made(folder.path());
        record(&path, CONVERTER + 1, fs::metadata(&path).unwrap().len());
        assert!(reason(&path).contains("another converter"));
        fs::remove_file(beside(&path)).unwrap();
        assert!(reason(&path).contains("no record"));
    }

    #[test]
    fn option_wins_over_variable_and_empty_is_none() {
        let (option, variable) = (Some(Path::new("a")), Some(OsString::from("b")));
        assert_eq!(
            Choice::new(option, variable.clone()),
            Choice::Users("a".into())
        );
        assert_eq!(Choice::new(None, variable), Choice::Users("b".into()));
        assert_eq!(Choice::new(None, Some(OsString::new())), Choice::Ours);
        assert_eq!(Choice::new(None, None), Choice::Ours);
    }

    #[test]
    fn users_model_must_be_there_and_be_gguf() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::at(folder.path());
        let path = folder.path().join("mine.gguf");
        let ensure = || ensure(&workspace, DtypeArg::Q8_0, &Choice::Users(path.clone()));
        assert!(ensure().unwrap_err().to_string().contains("cannot be read"));
        fs::write(&path, "<html>not found</html>").unwrap();
        assert!(
            ensure()
                .unwrap_err()
                .to_string()
                .contains("is not a GGUF file")
        );
        fs::write(&path, "GGUF\u{3}\0\0\0").unwrap();
        assert_eq!(ensure().unwrap(), [fs::canonicalize(&path).unwrap()]);
    }
}
