//! Decoding, step by step, through a ledger that is checked.
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{
    case::Case,
    dice::Dice,
    failure::{Failure, panic_text},
    rows::class,
    setup::{Setup, setups},
};
use crate::{
    Cadence, HeadTable, Kept, Observation, Pins, PolicyConfig, Position, Room, SeqId, TokenClass,
    checker::Replay,
};

const STEPS: usize = 1000;
/// Steps between two full checks.
const STRIDE: usize = 100;

/// A thousand decode steps of several sequences through one ledger: every kept token's bytes and scores stay with it, no
/// page is lost or held twice, and what was reserved is enough.
///
/// # Errors
///
/// If it does not hold.
pub fn replay_keeps_every_byte<C: PolicyConfig>(configs: &[fn() -> C]) -> Result<(), Failure> {
    for config in configs {
        let setups = setups(&[*config])?;
        // Not every budget with every model: each model with a few, other ones each time.
        for (index, setup) in setups
            .iter()
            .enumerate()
            .filter(|(index, _)| index % 4 == 0)
        {
            let pins = if index % 8 == 0 {
                Pins::default()
            } else {
                Pins::new([3..6, 20..29])
            };
            Run::new(setup, pins).finish()?;
        }
    }
    Ok(())
}

/// A sequence in mid-decode.
#[derive(Debug)]
struct Running {
    seq: SeqId,
    prompt: usize,
    seen: usize,
}

struct Run<'a> {
    setup: &'a Setup,
    pins: Pins,
    dice: Dice,
    replay: Replay,
    step: usize,
}

impl<'a> Run<'a> {
    /// A pool with just the pages that two sequences are promised.
    fn new(setup: &'a Setup, pins: Pins) -> Self {
        let mut dice = setup.dice();
        let promised = |&prompt: &usize| {
            let longest = prompt + STEPS;
            let pinned = pins.count_below(longest);
            setup.demand(prompt).pages(&setup.geometry, longest, pinned)
        };
        let pages = setup.lens(&mut dice).iter().map(promised).max();
        let pages = pages.unwrap_or(0);
        Self {
            setup,
            pins,
            dice,
            replay: Replay::new(setup.geometry, 2 * pages),
            step: 0,
        }
    }

    fn fail(&self, running: &Running, reason: impl std::fmt::Display) -> Failure {
        let Running { prompt, seen, .. } = running;
        let case = format!(
            "step {}, a prompt of {prompt} tokens, {seen} seen, pins {:?}",
            self.step, self.pins
        );
        self.setup.failure(case, reason)
    }

    fn finish(mut self) -> Result<(), Failure> {
        let [short, _, long, other] = self.setup.lens(&mut self.setup.dice());
        let mut running = [self.open(0, long)?, self.open(1, short)?];
        while self.step < STEPS {
            self.step += 1;
            if self.step == STEPS / 2 {
                // One ends and another takes its pages.
                self.replay.release(running[1].seq);
                running[1] = self.open(2, other)?;
            }
            let index = self.dice.below(2);
            self.decode(&mut running[index])?;
            if self.step.is_multiple_of(STRIDE) {
                self.replay
                    .check()
                    .map_err(|violation| self.fail(&running[index], violation))?;
            }
        }
        self.replay.clear();
        let held = self.replay.ledger().pool().usage().held;
        if held > 0 {
            Err(self.fail(&running[0], format!("leaves {held} pages held")))
        } else {
            Ok(())
        }
    }

    fn open(&mut self, seq: usize, prompt: usize) -> Result<Running, Failure> {
        let running = Running {
            seq: SeqId(seq),
            prompt,
            seen: prompt,
        };
        self.replay
            .open(running.seq, prompt, self.setup.demand(prompt), &self.pins)
            .map_err(|full| self.fail(&running, format!("is refused a prompt: {full}")))?;
        let classes: Vec<TokenClass> = (0..prompt).map(|_| class(&mut self.dice)).collect();
        self.classify(&running, 0, &classes)?;
        let mut reports = Vec::new();
        for layer in 0..self.setup.geometry.layers {
            let kept = self.plan(layer, &classes, &mut reports)?;
            if self.setup.needs.cadence == Cadence::Cascade {
                for earlier in 0..layer {
                    self.replan(&running, earlier, Some(&reports))?;
                }
            }
            self.replay
                .write_prompt(running.seq, layer, prompt, &kept)
                .map_err(|error| {
                    self.fail(
                        &running,
                        format!("keeps more of a prompt than was reserved: {error}"),
                    )
                })?;
            self.check(&running, layer)?;
        }
        Ok(running)
    }

    /// Says what kind of text tokens are.
    fn classify(
        &mut self,
        running: &Running,
        first: usize,
        classes: &[TokenClass],
    ) -> Result<(), Failure> {
        let first = Position::new(first);
        let said = self.replay.classify(running.seq, first, classes);
        said.map_err(|error| self.fail(running, error))
    }

    /// Plans anew what a layer holds, and carries it out.
    fn replan(
        &mut self,
        running: &Running,
        layer: usize,
        reports: Option<&[f64]>,
    ) -> Result<(), Failure> {
        let (ledger, tokens) = (self.replay.ledger(), self.setup.tokens(running.prompt));
        let policy = &*self.setup.policy;
        let run = || ledger.plan_again(running.seq, layer, policy, tokens, reports);
        let kept = catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
            let reason = format!("panics in a later plan: {}", panic_text(&*panic));
            self.fail(running, reason)
        })?;
        kept.and_then(|kept| self.replay.shrink(running.seq, layer, &kept))
            .map_err(|error| self.fail(running, format!("is refused a later plan: {error}")))?;
        Ok(())
    }

    fn plan(
        &mut self,
        layer: usize,
        classes: &[TokenClass],
        reports: &mut Vec<f64>,
    ) -> Result<Kept, Failure> {
        let prompt = classes.len();
        let mut row = || (0..prompt).map(|_| self.dice.unit()).collect();
        let scores = (0..self.setup.geometry.kv_heads).map(|_| row()).collect();
        let case = Case::prefill(layer, prompt, self.setup.tokens(prompt), scores)
            .with_rows(self.setup, &mut self.dice)
            .with_classes(classes);
        reports.push(self.setup.report(&case)?);
        let case = case.reported(reports);
        super::plan::resolve(self.setup, &case, &self.setup.plan(&case)?, &self.pins)
    }

    fn decode(&mut self, running: &mut Running) -> Result<(), Failure> {
        let position = Position::new(running.seen);
        running.seen += 1;
        self.replay
            .reserve(running.seq, running.seen)
            .map_err(|full| {
                self.fail(
                    running,
                    format!("is refused a token within its bound: {full}"),
                )
            })?;
        let class = class(&mut self.dice);
        self.classify(running, position.index(), &[class])?;
        for layer in 0..self.setup.geometry.layers {
            let is_full = self.replay.ledger().is_full(running.seq, layer, position);
            if self.setup.needs.cadence == Cadence::Full && is_full == Ok(true) {
                self.replan(running, layer, None)?;
            }
            self.replay
                .append(running.seq, layer, position)
                .map_err(|error| {
                    self.fail(running, format!("grows beyond what was reserved: {error}"))
                })?;
            // Often enough for scores to move about; each time costs a number for each token held.
            if self.setup.needs.observation == Observation::Rows && self.step.is_multiple_of(5) {
                self.observe(running, layer)?;
            }
            self.check(running, layer)?;
        }
        Ok(())
    }

    fn observe(&mut self, running: &Running, layer: usize) -> Result<(), Failure> {
        for head in 0..self.setup.geometry.kv_heads {
            let held = self
                .replay
                .ledger()
                .head(running.seq, layer, head)
                .map_or(0, |table| table.len());
            let row: Vec<f32> = (0..held).map(|_| self.dice.unit()).collect();
            let added = self.replay.observe(running.seq, layer, head, &row);
            added.map_err(|error| self.fail(running, error))?;
        }
        Ok(())
    }

    /// What is cheap enough for every step.
    fn check(&self, running: &Running, layer: usize) -> Result<(), Failure> {
        self.replay
            .check_totals()
            .map_err(|violation| self.fail(running, violation))?;
        let mut lens = Vec::new();
        for head in 0..self.setup.geometry.kv_heads {
            let table = self
                .replay
                .ledger()
                .head(running.seq, layer, head)
                .map_err(|error| self.fail(running, error))?;
            if table.positions().iter().max() != Some(&Position::new(running.seen - 1)) {
                return Err(self.fail(
                    running,
                    format!("does not hold the newest token in head {head}"),
                ));
            }
            lens.push(table.len());
        }
        let pinned = self.pins.count_below(running.seen);
        self.check_total(running, pinned)?;
        let room = self.setup.room(layer, running.prompt);
        let generated = if self.setup.needs.appends {
            running.seen - running.prompt
        } else {
            0
        };
        self.setup
            .fits(&room, &lens, pinned + generated)
            .map_err(|much| self.fail(running, much))?;
        let is_even = matches!(room, Room::Each(_));
        if is_even && pinned == 0 && lens.iter().any(|len| len != &lens[0]) {
            return Err(self.fail(
                running,
                format!("says that its heads are even, and they hold {lens:?} tokens"),
            ));
        }
        Ok(())
    }

    /// What all layers hold is within what the policy says that they hold together.
    fn check_total(&self, running: &Running, pinned: usize) -> Result<(), Failure> {
        let Some(together) = self.setup.together(running.prompt) else {
            return Ok(());
        };
        let sequence = self.replay.ledger().sequence(running.seq);
        let sequence = sequence.map_err(|error| self.fail(running, error))?;
        let heads = sequence.heads();
        let held: usize = heads.iter().map(HeadTable::len).sum();
        let later = (running.seen - running.prompt) * usize::from(self.setup.needs.appends);
        let on_top = heads.len() * (pinned + later);
        if held > together.saturating_add(on_top) {
            let reason = format!(
                "holds {held} tokens in all layers, its bound is {together} and {on_top} on top"
            );
            return Err(self.fail(running, reason));
        }
        Ok(())
    }
}
