//! The list of edits, as data.
use std::collections::BTreeMap;

use serde::Deserialize;

use crate::PatchError;

/// Where an edit's text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In front of the anchor.
    Before,
    /// Behind the anchor.
    After,
    /// Instead of the anchor.
    Replace,
}

/// One change of one file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// A name for messages, unique in the list.
    pub id: String,
    /// The file, relative to the engine's crate.
    pub file: String,
    /// Why the engine needs it.
    pub reason: String,
    /// Text that stands in the file exactly once.
    pub anchor: String,
    /// Where `text` goes.
    pub place: Place,
    /// What is put there. `@HOOK@` stands for the manifest value of the `kv-hook` dependency.
    pub text: String,
}

/// A file of ours that is put into the engine as a whole.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Write {
    /// A name for messages, unique in the list.
    pub id: String,
    /// The file, relative to the engine's crate.
    pub file: String,
    /// Why the engine needs it.
    pub reason: String,
    /// Which of the files shipped with the patch.
    pub from: String,
}

/// All edits, with the checksums of the files they fit.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patch {
    /// SHA-256 of every published file that is touched, by path relative to the crate.
    pub(crate) sha256: BTreeMap<String, String>,
    /// Changes, applied in this order.
    #[serde(rename = "edit")]
    pub(crate) edits: Vec<Edit>,
    /// Whole files.
    #[serde(rename = "write")]
    pub(crate) writes: Vec<Write>,
}

/// The whole files that `edits.toml` may name.
const FILES: &[(&str, &str)] = &[
    ("layers_mod.rs", include_str!("../files/layers_mod.rs")),
    ("hooked.rs", include_str!("../files/hooked.rs")),
];

impl Patch {
    /// Reads the list that is built into this crate.
    ///
    /// # Errors
    ///
    /// [`PatchError::Malformed`] if the list does not parse, which a test of this crate excludes.
    pub fn load() -> Result<Self, PatchError> {
        Self::parse(include_str!("../edits.toml"))
    }

    pub(crate) fn parse(text: &str) -> Result<Self, PatchError> {
        let patch: Self = toml::from_str(text).map_err(|e| PatchError::Malformed(e.to_string()))?;
        for write in &patch.writes {
            write.content()?;
        }
        Ok(patch)
    }

    /// Every change, in the order they are applied.
    #[must_use]
    pub fn edits(&self) -> &[Edit] {
        &self.edits
    }

    /// Every whole file.
    #[must_use]
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }
}

impl Write {
    pub(crate) fn content(&self) -> Result<&'static str, PatchError> {
        FILES
            .iter()
            .find(|(name, _)| *name == self.from)
            .map(|(_, text)| *text)
            .ok_or_else(|| {
                PatchError::Malformed(format!("`{}`: no file `{}` is shipped", self.id, self.from))
            })
    }
}
