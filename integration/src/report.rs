//! What a request's cache held, for people and programs.
#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kv_core::{Geometry, SequenceReport};
use serde::{Deserialize, Serialize};

use crate::{CacheConfig, Engine, Runtime, picture::svg, runtime::Ended};

/// How long to wait for the engine to give a request's pages back.
const CLEAN_UP: Duration = Duration::from_secs(30);

/// What one request's compressed cache held, measured from its page tables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The policy's name.
    pub policy: String,
    /// The budget, as it was given.
    pub budget: String,
    /// What to know before trusting the result, if the policy says so.
    pub notice: Option<String>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated, the end-of-text token included.
    pub generated_tokens: usize,
    /// The text generated.
    pub text: String,
    /// Most pages held at once.
    pub pages_held_peak: usize,
    /// Pages that `keep-all` would hold at the same length.
    pub pages_full: usize,
    /// Bytes of the most pages held at once.
    pub bytes_held_peak: usize,
    /// Bytes of the pages that `keep-all` would hold.
    pub bytes_full: usize,
    /// Tokens held at the end, `[L][H]`.
    pub kept: Vec<Vec<usize>>,
}

impl Engine {
    /// What the cache of the request that has just ended held; `None` without a policy. `text` is its answer.
    ///
    /// # Errors
    ///
    /// As [`Runtime::report`].
    pub fn report(&self, text: String) -> Result<Option<Report>> {
        let runtime = self.runtime();
        runtime.map(|runtime| runtime.report(text)).transpose()
    }
}

impl Runtime {
    /// What the cache of the request that has just ended held; `text` is its answer. For one request at a time.
    ///
    /// # Errors
    ///
    /// If the engine does not give the request's pages back, or no request has ended.
    pub fn report(&self, text: String) -> Result<Report> {
        ensure!(
            self.wait_ended(CLEAN_UP),
            "the engine did not give the request's pages back"
        );
        let geometry = self.geometry().context("the engine has no cache")?;
        let ended = self.take_last_ended();
        let Ended { report, terms } = ended.context("the engine kept no cache for the request")?;
        let notice = self.notice_under(&terms, report.prompt_tokens);
        let config = self.config().clone().budget(terms.budget);
        let mut report = Report::new(&config, &geometry, report, text);
        report.notice = notice;
        Ok(report)
    }
}

impl Report {
    /// Puts a sequence's page counts and its text together.
    #[must_use]
    pub fn new(
        config: &CacheConfig,
        geometry: &Geometry,
        sequence: SequenceReport,
        text: String,
    ) -> Self {
        let SequenceReport {
            prompt_tokens,
            cached_tokens,
            pages_held_peak,
            pages_full,
            kept,
            ..
        } = sequence;
        Self {
            policy: config.policy_name().to_owned(),
            budget: config.budget_given().to_string(),
            notice: None,
            prompt_tokens,
            // The last token generated is never read back, so it is in no page.
            generated_tokens: cached_tokens + 1 - prompt_tokens,
            text,
            pages_held_peak,
            pages_full,
            bytes_held_peak: pages_held_peak * geometry.page_bytes(),
            bytes_full: pages_full * geometry.page_bytes(),
            kept,
        }
    }

    /// The tokens that each head held at the end, one line for a run of layers that are alike:
    /// `layers 0-3: 250 250 250`.
    #[must_use]
    pub fn heads(&self) -> String {
        let mut lines = Vec::new();
        let mut first = 0;
        for (layer, heads) in self.kept.iter().enumerate() {
            if self.kept.get(layer + 1) == Some(heads) {
                continue;
            }
            let counts: Vec<String> = heads.iter().map(ToString::to_string).collect();
            let layers = if first == layer {
                format!("layer {layer}")
            } else {
                format!("layers {first}-{layer}")
            };
            lines.push(format!("{layers}: {}", counts.join(" ")));
            first = layer + 1;
        }
        lines.join("\n")
    }

    /// A picture of the tokens that each head held at the end, as SVG: a column for each layer, a row for each KV head.
    #[must_use]
    pub fn picture(&self) -> String {
        let title = format!("{}, budget {}: tokens kept", self.policy, self.budget);
        let mut notes = vec![format!(
            "{} of {} pages held ({}), {} of {}",
            self.pages_held_peak,
            self.pages_full,
            percent(self.pages_held_peak, self.pages_full),
            mib(self.bytes_held_peak),
            mib(self.bytes_full),
        )];
        notes.extend(self.notice.clone());
        svg(&self.kept, self.cached_tokens(), &title, &notes)
    }

    /// Writes the report to a JSON file, as a whole or not at all.
    ///
    /// # Errors
    ///
    /// What the system says of the file or its folder.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        write_whole(path, &text)
    }

    /// Writes the [`Report::picture`] to an SVG file, as a whole or not at all.
    ///
    /// # Errors
    ///
    /// As [`Report::save`].
    pub fn save_picture(&self, path: &Path) -> io::Result<()> {
        write_whole(path, self.picture().as_bytes())
    }

    /// Tokens that went through the cache: all but the last one generated.
    const fn cached_tokens(&self) -> usize {
        self.prompt_tokens + self.generated_tokens.saturating_sub(1)
    }

    /// One line for people: pages and bytes held against full.
    #[must_use]
    pub fn summary(&self) -> String {
        let tokens: Vec<usize> = self.kept.iter().flatten().copied().collect();
        let (least, most) = (
            tokens.iter().min().unwrap_or(&0),
            tokens.iter().max().unwrap_or(&0),
        );
        let range = if least == most {
            format!("{most}")
        } else {
            format!("{least} to {most}")
        };
        format!(
            "{}: {} of {} pages held ({}), {} of {}; {range} of {} tokens kept in each of {} heads",
            self.policy,
            self.pages_held_peak,
            self.pages_full,
            percent(self.pages_held_peak, self.pages_full),
            mib(self.bytes_held_peak),
            mib(self.bytes_full),
            self.cached_tokens(),
            tokens.len(),
        )
    }
}

/// Writes a file as a whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // As readable as any other file of this user; a temporary one is private by default.
    #[cfg(unix)]
    builder.permissions(PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn percent(part: usize, whole: usize) -> String {
    format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64)
}

#[expect(clippy::cast_precision_loss, reason = "a size for people")]
fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
