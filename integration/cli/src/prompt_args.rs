//! The prompt on the command line.
use std::{fs, path::PathBuf};

use clap::Args;
use mistralrs_kv::{Prompt, StartError};

use crate::run::out_of_range;

#[derive(Debug, Args)]
pub(crate) struct PromptArgs {
    /// The prompt.
    #[arg(long, short, value_name = "TEXT", conflicts_with = "prompt_file")]
    prompt: Option<String>,
    /// Read the prompt from a file.
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Continue the prompt as plain text instead of putting it into the model's chat template.
    #[arg(long)]
    pub(crate) raw: bool,
}

impl PromptArgs {
    /// The prompt, if one was given.
    pub(crate) fn read(&self) -> Result<Option<Prompt>, StartError> {
        let text = match (&self.prompt, &self.prompt_file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => fs::read_to_string(path).map_err(|e| StartError::File {
                path: path.clone(),
                reason: e.to_string(),
            })?,
            (None, None) => return Ok(None),
        };
        if text.trim().is_empty() {
            return Err(out_of_range("prompt", "empty", "some text"));
        }
        Ok(Some(if self.raw {
            Prompt::Text(text)
        } else {
            Prompt::chat(text)
        }))
    }
}
