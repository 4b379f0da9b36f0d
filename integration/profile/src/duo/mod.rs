//! `DuoAttention`'s optimisation: one gate for each KV head, learned so that the last hidden states of a model whose heads see all
//! tokens by that part, and sinks and a window by the rest, are those of the model itself.
//!
//! Xiao et al., *DuoAttention: Efficient Long-Context LLM Inference with Retrieval and Streaming Heads*, ICLR 2025,
//! <https://arxiv.org/abs/2410.10819>.
mod adam;
mod checkpoint;
mod gradient;
mod passkeys;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    Model, ProfileError, Window,
    files::{Kind, Profile, SIZES, write},
};
use checkpoint::State;
use gradient::{Said, gradient};
pub use passkeys::{MOST_PASSKEYS, Pieces, WORDS};

/// How gates are learned. The authors' numbers, where they are others, are those of their training of Llama-2-7B-32K.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Texts that are learned from, one for each step (the authors: 2,000).
    pub steps: usize,
    /// Tokens of the shortest text, word lists and questions aside (the authors: 1,000).
    pub min_length: usize,
    /// Tokens of the longest text, word lists and questions aside (the authors: 32,000).
    pub max_length: usize,
    /// Tokens of that which are left free for lists and questions (the authors: 300).
    pub buffer: usize,
    /// Lists of words in a text, at most [`MOST_PASSKEYS`] (the authors: 10).
    pub passkeys: usize,
    /// Words of a list (the authors: 32).
    pub words: usize,
    /// First tokens that a streaming head sees (the authors: 128).
    pub sinks: usize,
    /// Latest tokens that it sees (the authors: 256).
    pub recent: usize,
    /// Tokens of a block of its mask (the authors: 128).
    pub block: usize,
    /// Highest rate of learning.
    pub rate: f64,
    /// What a gate costs: this times the mean over all heads is added to the loss.
    pub gate_weight: f64,
    /// Of all that is drawn.
    pub seed: u64,
}

impl Default for Options {
    /// What a model of 135 million parameters learns within an hour on two cores.
    fn default() -> Self {
        Self {
            steps: 300,
            min_length: 250,
            max_length: 900,
            buffer: 50,
            passkeys: 4,
            words: 12,
            sinks: 16,
            recent: 32,
            block: 16,
            rate: 0.02,
            gate_weight: 0.05,
            seed: 42,
        }
    }
}

/// How far a training is.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Steps that are done.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
    /// Tokens of this step's text.
    pub tokens: usize,
    /// The difference of the last hidden states.
    pub distillation: f64,
    /// Mean of all gates, clipped to 0 to 1.
    pub mean: f64,
    /// Gates above one half.
    pub open: usize,
    /// Time that is still to come, by that of the steps of this run.
    pub left: Duration,
}

impl Options {
    /// Refuses numbers that make no sense by themselves.
    fn check(&self) -> Result<(), ProfileError> {
        ProfileError::below(&[
            ("steps", self.steps, 1),
            ("passkeys", self.passkeys, 1),
            ("words", self.words, 1),
            ("block", self.block, 1),
            ("min_length", self.min_length, self.buffer + 1),
            ("max_length", self.max_length, self.min_length),
            ("recent", self.recent, self.block),
        ])?;
        if self.passkeys > MOST_PASSKEYS {
            let allowed = format!("at most {MOST_PASSKEYS}");
            return Err(ProfileError::out_of_range(
                "passkeys",
                self.passkeys,
                allowed,
            ));
        }
        for (field, value) in [("sinks", self.sinks), ("recent", self.recent)] {
            if !value.is_multiple_of(self.block) {
                let allowed = format!("a multiple of `block`, {}", self.block);
                return Err(ProfileError::out_of_range(field, value, allowed));
            }
        }
        for (field, value) in [("rate", self.rate), ("gate_weight", self.gate_weight)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(ProfileError::out_of_range(field, value, "a number from 0"));
            }
        }
        Ok(())
    }

    const fn window(&self) -> Window {
        Window {
            sinks: self.sinks,
            recent: self.recent,
            block: self.block,
        }
    }
}

/// A training that can be cut off and gone on with.
#[derive(Debug)]
pub struct Training<'a> {
    model: &'a Model,
    pieces: &'a Pieces,
    options: Options,
    state: State,
    folder: Option<PathBuf>,
}

impl<'a> Training<'a> {
    /// Begins a training. With a folder it writes its results there, and goes on with one that was cut off there.
    ///
    /// # Errors
    ///
    /// Options that make no sense or do not fit the model and the text; a folder with a training of other options.
    pub fn open(
        model: &'a Model,
        pieces: &'a Pieces,
        options: Options,
        folder: Option<&Path>,
    ) -> Result<Self, ProfileError> {
        options.check()?;
        pieces.check(&options)?;
        let (longest, most) = (pieces.longest(&options), model.shape().max_positions);
        if longest > most {
            let allowed = format!(
                "so much that the longest text, now {longest} tokens, fits the {most} positions of the model"
            );
            return Err(ProfileError::out_of_range(
                "max_length",
                options.max_length,
                allowed,
            ));
        }
        let fresh = State::new(model, pieces, &options);
        let state = match folder {
            Some(folder) => fresh.or_from(folder)?,
            None => fresh,
        };
        Ok(Self {
            model,
            pieces,
            options,
            state,
            folder: folder.map(Path::to_owned),
        })
    }

    /// Steps that are done.
    #[must_use]
    pub const fn done(&self) -> usize {
        self.state.step
    }

    /// Learns to the end, and tells every step. The folder has what is known after each `every` steps.
    ///
    /// # Errors
    ///
    /// What candle reports, and what cannot be written.
    pub fn run(
        mut self,
        every: usize,
        mut tell: impl FnMut(&Told),
    ) -> Result<Profile, ProfileError> {
        let (start, first) = (Instant::now(), self.state.step);
        while self.state.step < self.options.steps {
            let mut told = self.step()?;
            let (done, left) = (told.step - first, told.steps - told.step);
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52 steps")]
            let share = left as f64 / done as f64;
            told.left = start.elapsed().mul_f64(share);
            tell(&told);
            if told.step.is_multiple_of(every.max(1)) {
                self.save()?;
            }
        }
        self.save()?;
        Ok(self.profile())
    }

    /// The gates as they are, `[L][H]`, which may lie a little outside of 0 to 1.
    #[must_use]
    pub fn profile(&self) -> Profile {
        let gates = self.state.gates();
        let rows = gates.chunks(self.model.shape().kv_heads);
        Profile {
            values: rows.map(<[f64]>::to_vec).collect(),
            kind: Kind::Duo,
        }
    }

    fn step(&mut self) -> Result<Told, ProfileError> {
        let sample = self.pieces.sample(&self.options, self.state.step);
        let mut gates: Vec<f64> = self.state.gates();
        for gate in &mut gates {
            *gate = gate.clamp(0.0, 1.0);
        }
        let Said {
            loss,
            gradient: mut by_gate,
        } = gradient(self.model, &gates, self.options.window(), &sample)?;
        #[expect(clippy::cast_precision_loss, reason = "a few heads")]
        let heads = gates.len() as f64;
        let mean = gates.iter().sum::<f64>() / heads;
        for (by_gate, gate) in by_gate.iter_mut().zip(&gates) {
            // The gradient of the mean; that of |x| is 0 at 0.
            if *gate > 0.0 {
                *by_gate += self.options.gate_weight / heads;
            }
        }
        let rate = self.options.rate * adam::ramp(self.state.step, self.options.steps);
        self.state.learn(&mut gates, &by_gate, rate);
        Ok(Told {
            step: self.state.step,
            steps: self.options.steps,
            tokens: sample.tokens.len(),
            distillation: loss,
            mean,
            open: gates.iter().filter(|gate| **gate > 0.5).count(),
            left: Duration::ZERO,
        })
    }

    /// Writes what is known: the table, the numbers of the training, and what is needed to go on.
    fn save(&self) -> Result<(), ProfileError> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        self.state.save(folder)?;
        write(&folder.join(SIZES), &self.state.sizes()?)?;
        self.profile().write(folder).map(|_| ())
    }
}
