//! What a policy is asked about: one layer after a prompt, or in mid-decode.
use std::fmt;

use super::{dice::Dice, rows::Rows, setup::Setup};
use crate::{Cadence, Kept, LayerView, Needs, Observation, Pins, Position, Room, TokenClass};

/// The longest head of the kit.
const LONGEST: usize = 640;

/// One layer of one sequence.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) layer: usize,
    pub(super) prompt: usize,
    /// Tokens per KV head.
    pub(super) budget: usize,
    /// What the heads hold in mid-decode, `[H][T]`; `None` after a prompt.
    positions: Option<Vec<Vec<Position>>>,
    /// `[H][T]`.
    scores: Vec<Vec<f32>>,
    /// The prompt itself, for a policy that reads it.
    rows: Option<Rows>,
    /// What the layers have reported, for a policy that asks for it.
    reports: Vec<f64>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            layer,
            prompt,
            budget,
            ..
        } = self;
        match &self.positions {
            None => write!(f, "layer {layer} after a prompt of {prompt} tokens")?,
            Some(heads) => {
                let lens: Vec<usize> = heads.iter().map(Vec::len).collect();
                write!(
                    f,
                    "layer {layer} in mid-decode, heads of {lens:?} tokens, a prompt of {prompt}"
                )?;
            }
        }
        if *budget == usize::MAX {
            f.write_str(", no limit")
        } else {
            write!(f, ", {budget} tokens per head")
        }
    }
}

impl Case {
    /// A layer after a prompt, with scores for what the policy asked to observe.
    pub(super) fn prefill(
        layer: usize,
        prompt: usize,
        budget: usize,
        scores: Vec<Vec<f32>>,
    ) -> Self {
        Self {
            layer,
            prompt,
            budget,
            positions: None,
            scores,
            rows: None,
            reports: vec![1.0; layer + 1],
        }
    }

    /// Shows the case as the policy asked for it: with scores if anything was to be observed, and what it reads.
    pub(super) fn view<R>(&self, needs: &Needs, show: impl FnOnce(&LayerView<'_>) -> R) -> R {
        let scores: Vec<&[f32]> = self.scores.iter().map(Vec::as_slice).collect();
        let rows = self.rows.as_ref().map(|rows| rows.shown(needs.reads));
        self.blind_view(|view| {
            let mut view = *view;
            let is_cascade = needs.cadence == Cadence::Cascade;
            if needs.observation != Observation::None || (is_cascade && !self.is_prompt()) {
                view = view.with_scores(needs.observation, &scores);
            }
            if is_cascade {
                view = view.with_reports(&self.reports);
            }
            match &rows {
                Some(rows) if needs.reads.any() => show(&view.with_rows(rows)),
                _ => show(&view),
            }
        })
    }

    /// Shows the case without scores.
    pub(super) fn blind_view<R>(&self, show: impl FnOnce(&LayerView<'_>) -> R) -> R {
        let Some(positions) = &self.positions else {
            return show(&LayerView::prefill(
                self.layer,
                self.scores.len(),
                self.prompt,
                self.budget,
            ));
        };
        let heads: Vec<&[Position]> = positions.iter().map(Vec::as_slice).collect();
        show(&LayerView::decode(
            self.layer,
            &heads,
            self.prompt,
            self.budget,
        ))
    }

    pub(super) const fn is_prompt(&self) -> bool {
        self.positions.is_none()
    }

    pub(super) fn lens(&self) -> Vec<usize> {
        self.scores.iter().map(Vec::len).collect()
    }

    pub(super) fn position(&self, head: usize, slot: usize) -> Position {
        self.positions
            .as_ref()
            .map_or_else(|| Position::new(slot), |heads| heads[head][slot])
    }

    pub(super) fn score(&self, head: usize, slot: usize) -> f32 {
        self.scores[head][slot]
    }

    /// The same layer with the tokens per head that another setup's budget buys.
    pub(super) fn with_budget(&self, setup: &Setup) -> Self {
        Self {
            budget: setup.tokens(self.prompt),
            ..self.clone()
        }
    }

    /// The slot of a head's newest token.
    pub(super) fn newest(&self, head: usize) -> usize {
        let slots = 0..self.scores[head].len();
        slots
            .max_by_key(|&slot| self.position(head, slot))
            .unwrap_or(0)
    }

    /// The positions kept in a head.
    pub(super) fn kept(&self, kept: &Kept, head: usize) -> Vec<Position> {
        kept.slots[head]
            .iter()
            .map(|&slot| self.position(head, slot as usize))
            .collect()
    }

    /// The same layer with its heads in reverse.
    pub(super) fn reversed(&self) -> Self {
        let mut reversed = self.clone();
        reversed.scores.reverse();
        reversed.rows = reversed.rows.map(Rows::reversed);
        if let Some(heads) = &mut reversed.positions {
            heads.reverse();
        }
        reversed
    }

    /// The same layer with the first head in place of every other.
    pub(super) fn with_equal_heads(&self) -> Self {
        let mut equal = self.clone();
        equal.scores = vec![self.scores[0].clone(); self.scores.len()];
        equal.rows = equal.rows.map(Rows::with_equal_heads);
        if let Some(heads) = &mut equal.positions {
            *heads = vec![heads[0].clone(); heads.len()];
        }
        equal
    }

    /// The same layer with scores no two of which are equal.
    pub(super) fn without_ties(&self, dice: &mut Dice) -> Self {
        let mut distinct: Vec<u16> = (0..u16::MAX).take(self.lens().iter().sum()).collect();
        dice.shuffle(&mut distinct);
        let mut case = self.clone();
        for (score, value) in case.scores.iter_mut().flatten().zip(distinct) {
            *score = f32::from(value);
        }
        case
    }

    /// Some positions that the heads hold, and some that they do not.
    pub(super) fn pins(&self, dice: &mut Dice) -> Pins {
        let mut span = || {
            let start = dice.below(self.lens()[0] + 8);
            Position::new(start).0..Position::new(start + 1 + dice.below(6)).0
        };
        Pins::new([span(), span()])
    }
}

impl Setup {
    /// Lengths around the bound, and others.
    pub(super) fn lens(&self, dice: &mut Dice) -> [usize; 4] {
        let is_apart = self.together(64).is_none();
        let bound = match self.room(0, 64) {
            Room::Each(tokens) if tokens < usize::MAX && is_apart => tokens,
            _ => self.tokens(64),
        };
        let bound = bound.min(LONGEST / 2);
        let lens = [
            1 + dice.below(3),
            bound + dice.below(3),
            bound + dice.below(bound + 2),
            1 + dice.below(400),
        ];
        lens.map(|len| len.clamp(1, LONGEST))
    }

    /// Prompts and caches in mid-decode, different ones for every setup and the same in every run.
    pub(super) fn cases(&self) -> Vec<Case> {
        let mut dice = self.dice();
        let prompts = self
            .lens(&mut dice)
            .map(|len| self.prompt_case(len, &mut dice));
        // What a policy reads of a prompt is gone in mid-decode, and it is not asked then.
        let is_asked_later = !self.needs.reads.any() || self.needs.cadence != Cadence::LayerPrefill;
        let caches = self
            .lens(&mut dice)
            .map(|len| self.cache_case(len, &mut dice));
        let caches = caches.into_iter().filter(|_| is_asked_later);
        prompts.into_iter().chain(caches).collect()
    }

    fn prompt_case(&self, prompt: usize, dice: &mut Dice) -> Case {
        let layer = dice.below(self.geometry.layers);
        let scores = vec![vec![0.0; prompt]; self.geometry.kv_heads];
        Case::prefill(layer, prompt, self.tokens(prompt), scores)
            .scored(dice)
            .with_rows(self, dice)
            .with_reports(layer + 1, dice)
    }

    fn cache_case(&self, longest: usize, dice: &mut Dice) -> Case {
        let seen = longest + 1 + dice.below(100);
        let layers = self.geometry.layers;
        let (layer, prompt) = if self.needs.cadence == Cadence::Cascade {
            // A later layer has reported; nothing has been decoded yet.
            (dice.below(layers - 1), seen)
        } else {
            (dice.below(layers), 1 + dice.below(seen))
        };
        let is_even = matches!(self.room(layer, prompt), Room::Each(_));
        let heads = (0..self.geometry.kv_heads).map(|_| {
            let held = if is_even {
                longest
            } else {
                1 + dice.below(longest)
            };
            // The newest token, and others in no order.
            let mut others: Vec<Position> = (0..seen - 1).map(Position::new).collect();
            dice.shuffle(&mut others);
            others.truncate(held - 1);
            others.push(Position::new(seen - 1));
            dice.shuffle(&mut others);
            others
        });
        let positions: Vec<Vec<Position>> = heads.collect();
        let scores = positions.iter().map(|head| vec![0.0; head.len()]).collect();
        let budget = self.tokens(prompt);
        Case {
            layer,
            prompt,
            budget,
            positions: Some(positions),
            scores,
            rows: None,
            reports: Vec::new(),
        }
        .scored(dice)
        .with_reports(layer + 2 + dice.below(layers - layer - 1), dice)
    }
}

impl Case {
    /// With these reports.
    pub(super) fn reported(mut self, reports: &[f64]) -> Self {
        self.reports = reports.to_vec();
        self
    }

    /// With random rows of the prompt, if the policy reads any.
    pub(super) fn with_rows(mut self, setup: &Setup, dice: &mut Dice) -> Self {
        if setup.needs.reads.any() {
            self.rows = Some(Rows::random(&setup.geometry, self.prompt, dice));
        }
        self
    }

    /// With these classes in place of random ones.
    pub(super) fn with_classes(mut self, classes: &[TokenClass]) -> Self {
        if let Some(rows) = &mut self.rows {
            rows.set_classes(classes);
        }
        self
    }

    /// With random reports of the first `layers` layers, a few of them nothing or very much.
    fn with_reports(mut self, layers: usize, dice: &mut Dice) -> Self {
        let report = |_| match dice.below(8) {
            0 => 0.0,
            1 => 1e30,
            _ => f64::from(dice.unit()),
        };
        self.reports = (0..layers).map(report).collect();
        self
    }

    /// With random scores: with many ties and now and then NaN, or with few ties and the newest token scoring lowest.
    fn scored(mut self, dice: &mut Dice) -> Self {
        let has_ties = dice.below(2) == 0;
        for head in 0..self.scores.len() {
            for slot in 0..self.scores[head].len() {
                self.scores[head][slot] = match (has_ties, dice.below(50)) {
                    (true, 0) => f32::NAN,
                    (true, level) => f32::from(u8::try_from(level % 8).unwrap_or(0)),
                    (false, _) => dice.unit(),
                };
            }
            let newest = self.newest(head);
            if !has_ties {
                self.scores[head][newest] = -1.0;
            }
        }
        self
    }
}
