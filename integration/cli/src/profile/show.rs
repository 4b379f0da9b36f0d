//! `mistralrs-kv profile show` and `profile shuffle`.
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use kv_profile::{Kind, Profile};
use mistralrs_kv::heads_picture;

/// From none to all.
const SHADES: [char; 5] = ['·', '░', '▒', '▓', '█'];

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// A `full_attention_heads.tsv` or the folder that holds it, or a JSON of scores.
    #[arg(value_name = "PATH")]
    profile: PathBuf,
    /// Draw it as a picture in SVG on the standard output.
    #[arg(long)]
    svg: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Shuffle {
    /// A `full_attention_heads.tsv` or the folder that holds it, or a JSON of scores.
    #[arg(value_name = "PATH")]
    profile: PathBuf,
    /// Where the new one is written: a folder for a table, a file for scores.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Seed of who gets what.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Show {
    pub(super) fn execute(&self) -> Result<()> {
        let profile = Profile::read(&self.profile)?;
        let (values, name, rows) = shown(&profile);
        if self.svg {
            let title = self.profile.display().to_string();
            print!("{}", heads_picture(&values, (name, rows), &title, &[]));
        } else {
            println!("{name}\n{}", text(&values, rows));
        }
        Ok(())
    }
}

impl Shuffle {
    pub(super) fn execute(&self) -> Result<()> {
        let shuffled = Profile::read(&self.profile)?.shuffled(self.seed);
        println!("{}", shuffled.write(&self.out)?.display());
        Ok(())
    }
}

/// Numbers from 0 to 1, what they are, and what the heads are.
fn shown(profile: &Profile) -> (Vec<Vec<f64>>, &'static str, &'static str) {
    match profile.kind {
        Kind::Duo => (
            profile.scaled(1.0),
            "gates of DuoAttention: 1 retrieves, 0 streams",
            "KV head",
        ),
        Kind::HeadKv => {
            let all = profile.values.iter().flatten();
            let largest = all.copied().fold(0.0, f64::max);
            (
                profile.scaled(largest),
                "scores of HeadKV, as parts of the highest",
                "query head",
            )
        }
    }
}

/// A row of shades for each head, and all numbers.
fn text(values: &[Vec<f64>], rows: &str) -> String {
    let heads = values.iter().map(Vec::len).max().unwrap_or(0);
    let shade = |value: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "from 0 to 1 in a few steps"
        )]
        let step = (value.clamp(0.0, 1.0) * (SHADES.len() - 1) as f64).round() as usize;
        SHADES[step]
    };
    let mut lines = vec![format!(
        "{rows:>10}  layers 0 to {}",
        values.len().saturating_sub(1)
    )];
    for head in 0..heads {
        let row = values.iter().filter_map(|layer| layer.get(head));
        let row: String = row.map(|&value| shade(value)).collect();
        lines.push(format!("{head:>10}  {row}"));
    }
    for (layer, heads) in values.iter().enumerate() {
        let heads: Vec<String> = heads.iter().map(|value| format!("{value:.3}")).collect();
        lines.push(format!("layer {layer:>4}  {}", heads.join(" ")));
    }
    lines.join("\n")
}
