//! What can be wrong with a patch or with what it is applied to.
use std::path::PathBuf;

/// Why the engine was not patched. Nothing is left half done: the target is written last.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// `edits.toml` itself is malformed.
    #[error("the list of edits is malformed: {0}")]
    Malformed(String),
    /// The source is another package or another release.
    #[error(
        "{path} is `{found}`, but the patch fits only `{wanted}`; fetch that release with cargo",
        path = path.display()
    )]
    WrongEngine {
        /// The manifest read.
        path: PathBuf,
        /// Package and version found there.
        found: String,
        /// Package and version wanted.
        wanted: String,
    },
    /// A touched file is not the one that was published.
    #[error(
        "edit `{edit}`: {file} differs from the published one (sha256 {found}, expected {expected}); \
         remove the downloaded crate from cargo's registry folder and fetch it again"
    )]
    Checksum {
        /// The first edit that touches the file.
        edit: String,
        /// The file, relative to the crate.
        file: String,
        /// SHA-256 found, hexadecimal.
        found: String,
        /// SHA-256 expected, hexadecimal.
        expected: String,
    },
    /// An edit names a file for which no checksum is listed.
    #[error("edit `{edit}`: no checksum is listed for {file}")]
    Unlisted {
        /// The edit.
        edit: String,
        /// The file, relative to the crate.
        file: String,
    },
    /// The anchor of an edit is not in the file, or not only once.
    #[error(
        "edit `{edit}`: its anchor stands {times} times in {file}, must be exactly once: {anchor:?}"
    )]
    Anchor {
        /// The edit.
        edit: String,
        /// The file, relative to the crate.
        file: String,
        /// How often the anchor was found.
        times: usize,
        /// The anchor's text.
        anchor: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
