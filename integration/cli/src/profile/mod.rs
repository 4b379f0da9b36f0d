//! `mistralrs-kv profile`: which heads of a model retrieve.
mod duo;

use anyhow::Result;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Profile {
    /// Learn a gate for every KV head, as DuoAttention's authors do, and write a profile for duo-attention.
    Duo(Box<duo::Duo>),
}

impl Profile {
    pub(crate) fn execute(self) -> Result<()> {
        match self {
            Self::Duo(duo) => duo.execute(),
        }
    }
}
