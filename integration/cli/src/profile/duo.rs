//! `mistralrs-kv profile duo`.
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use kv_profile::{
    Model,
    duo::{Options, Pieces, Told, Training},
};
use mistralrs_kv::EngineConfig;

use super::{Source, with_engine};

/// Steps that are told one by one, and how many later ones are told at once.
const FIRST: usize = 3;
const OFTEN: usize = 10;

#[derive(Debug, Args)]
pub(crate) struct Duo {
    #[command(flatten)]
    source: Source,
    /// Folder of the profile. A run that was cut off goes on where it was.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Texts to learn from.
    #[arg(long, value_name = "N", default_value_t = Options::default().steps)]
    steps: usize,
    /// Tokens of the shortest text, lists and questions aside.
    #[arg(long, value_name = "TOKENS", default_value_t = Options::default().min_length)]
    min_length: usize,
    /// Tokens of the longest text, lists and questions aside.
    #[arg(long, value_name = "TOKENS", default_value_t = Options::default().max_length)]
    max_length: usize,
    /// Lists of words in a text.
    #[arg(long, value_name = "N", default_value_t = Options::default().passkeys)]
    passkeys: usize,
    /// Words of a list.
    #[arg(long, value_name = "N", default_value_t = Options::default().words)]
    words: usize,
    /// First tokens that a streaming head sees.
    #[arg(long, value_name = "TOKENS", default_value_t = Options::default().sinks)]
    sinks: usize,
    /// Latest tokens that it sees.
    #[arg(long, value_name = "TOKENS", default_value_t = Options::default().recent)]
    recent: usize,
    /// Tokens of a block of its mask; 1 for a window that moves with every token.
    #[arg(long, value_name = "TOKENS", default_value_t = Options::default().block)]
    block: usize,
    /// Highest rate of learning.
    #[arg(long, value_name = "RATE", default_value_t = Options::default().rate)]
    rate: f64,
    /// What an open gate costs: this times the mean of all gates is added to the loss. More of it where nearly all gates stay open, so that the
    /// share of heads that is to stream cuts through a crowd.
    #[arg(long, value_name = "WEIGHT", default_value_t = Options::default().gate_weight)]
    gate_weight: f64,
    /// Write what is known after so many steps each.
    #[arg(long, value_name = "STEPS", default_value_t = 10)]
    save_every: usize,
    /// Seed of all that is drawn.
    #[arg(long, default_value_t = Options::default().seed)]
    seed: u64,
}

impl Duo {
    pub(super) fn execute(&self) -> Result<()> {
        let (path, text) = self.source.read()?;
        eprintln!("profile: bringing the text to tokens, with the engine's tokenizer");
        let pieces = pieces(&path, &text)?;
        eprintln!("profile: reading the weights in 32 bits");
        let model = Model::load(&path)?;
        let training = Training::open(&model, &pieces, self.options(), Some(&self.out))?;
        if training.done() > 0 {
            eprintln!("profile: going on behind step {}", training.done());
        }
        training.run(self.save_every, tell)?;
        println!("{}", self.out.display());
        Ok(())
    }

    fn options(&self) -> Options {
        Options {
            steps: self.steps,
            min_length: self.min_length,
            max_length: self.max_length,
            passkeys: self.passkeys,
            words: self.words,
            sinks: self.sinks,
            recent: self.recent,
            block: self.block,
            rate: self.rate,
            gate_weight: self.gate_weight,
            seed: self.seed,
            ..Options::default()
        }
    }
}

fn tell(told: &Told) {
    let Told {
        step,
        steps,
        tokens,
        distillation,
        mean,
        open,
        left,
    } = told;
    if *step <= FIRST || step.is_multiple_of(OFTEN) || step == steps {
        eprintln!(
            "profile: step {step} of {steps}, {tokens} tokens: distillation {distillation:.4}, gates {mean:.3} in the mean, {open} \
             above 0.5; about {} min left",
            left.as_secs().div_ceil(60)
        );
    }
}

/// The engine is there for its tokenizer alone.
fn pieces(model: &Path, text: &str) -> Result<Pieces> {
    with_engine(&EngineConfig::new(model), |runtime, engine| {
        Pieces::new(text, |text| runtime.block_on(engine.tokens(text)))
    })
}
