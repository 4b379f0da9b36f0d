//! A policy that is asked over pipes.
use std::{collections::HashMap, mem, sync::Arc};

use kv_core::{Geometry, KeepPlan, LayerView, Needs, Observation, Policy, Room, Scorer};
use parking_lot::Mutex;

use crate::{
    error::{CallError, Failure},
    load::{Program, unfit},
    messages::{Answer, Layer, Question},
    plan::Said,
    rows::pack,
    session::Session,
    wire::{Frame, Numbers},
};

/// Rooms of so many prompts and budgets are remembered: a budget in bytes asks for a dozen for every prompt.
const REMEMBERED: usize = 1024;

/// A policy bound to a model and a budget, in a process of its own.
///
/// Once a call has failed, the process is gone and every plan keeps everything: see [`DiskPolicy::failure`].
#[derive(Debug)]
pub struct DiskPolicy {
    program: Arc<Program>,
    bound: Bound,
    state: Mutex<State>,
    /// By prompt and budget, `[L]`: the policy is a pure function, and admission asks often.
    rooms: Mutex<HashMap<(usize, usize), Vec<Room>>>,
}

/// What is known of a policy since it was bound.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) geometry: Geometry,
    pub(crate) needs: Needs,
    pub(crate) notice: Option<String>,
    pub(crate) ranks: bool,
}

#[derive(Debug)]
enum State {
    Running(Session),
    Failed(CallError),
}

impl DiskPolicy {
    pub(crate) fn new(program: Arc<Program>, bound: Bound, session: Session) -> Self {
        Self {
            program,
            bound,
            state: Mutex::new(State::Running(session)),
            rooms: Mutex::default(),
        }
    }

    /// The call that failed, if one has: from then on the program is not asked again.
    #[must_use]
    pub fn failure(&self) -> Option<CallError> {
        match &*self.state.lock() {
            State::Running(_) => None,
            State::Failed(error) => Some(error.clone()),
        }
    }

    /// Asks the program, unless a call has failed. A panic of the host in mid-question counts as a failed call, too: the
    /// program waits for the rest of the question.
    fn call<T>(
        &self,
        question: impl Fn() -> String,
        ask: impl FnOnce(&mut Session) -> Result<T, Failure>,
    ) -> Option<T> {
        let mut state = self.state.lock();
        let failed = |failure: Failure| self.program.failed(question(), failure);
        let broken_off = State::Failed(failed(Failure::BrokenOff));
        let mut session = match mem::replace(&mut *state, broken_off) {
            State::Running(session) => session,
            before @ State::Failed(_) => {
                *state = before;
                return None;
            }
        };
        match ask(&mut session) {
            Ok(answer) => {
                *state = State::Running(session);
                Some(answer)
            }
            Err(failure) => {
                let error = failed(failure);
                // Only the first is kept.
                let _ = self.program.failure.set(error.clone());
                *state = State::Failed(error);
                None
            }
        }
    }

    fn ask_rooms(
        &self,
        session: &mut Session,
        prompt: usize,
        budget: usize,
    ) -> Result<Vec<Room>, Failure> {
        let rooms = match session.ask(&Question::Rooms { prompt, budget })? {
            Answer::Rooms(rooms) => rooms,
            other => return Err(unfit(&other)),
        };
        let (layers, heads) = (self.bound.geometry.layers, self.bound.geometry.kv_heads);
        if rooms.len() != layers {
            return Err(Failure::Unfit(format!(
                "with rooms of {} layers for a model with {layers}",
                rooms.len()
            )));
        }
        let stranger = rooms.iter().find_map(|room| match room {
            Room::Heads(rooms) if rooms.len() != heads => Some(rooms.len()),
            _ => None,
        });
        match stranger {
            None => Ok(rooms),
            Some(others) => Err(Failure::Unfit(format!(
                "with rooms of {others} heads for layers with {heads}"
            ))),
        }
    }

    /// Asks about a layer, and shows its scores if the program wants them.
    fn ask_layer(
        &self,
        session: &mut Session,
        view: &LayerView<'_>,
        question: fn(Layer) -> Question,
    ) -> Result<(Answer, Frame), Failure> {
        let (layer, numbers) = pack(view, &self.bound.needs, &mut session.rotation);
        let lens = layer.held();
        let answer = session.ask_with(&question(layer), &numbers)?;
        if answer.0 != Answer::Read {
            return Ok(answer);
        }
        if self.bound.needs.observation == Observation::None {
            let what = "by asking for scores, and its needs name none";
            return Err(Failure::Unfit(what.into()));
        }
        let mut scores = Numbers::default();
        for head in 0..view.heads() {
            scores.floats(view.scores(head));
        }
        // Once: if it wants them again, that is no answer to any question.
        session.ask_with(&Question::Observed { lens }, &scores)
    }

    fn ask_plan(&self, session: &mut Session, view: &LayerView<'_>) -> Result<Said, Failure> {
        match self.ask_layer(session, view, Question::Plan)? {
            (
                Answer::Plan {
                    verbs,
                    growth,
                    lens,
                },
                frame,
            ) => Said::new(
                view,
                self.bound.needs.observation,
                verbs,
                growth,
                &lens,
                &frame,
            ),
            (other, _) => Err(unfit(&other)),
        }
    }

    fn ask_scores(
        &self,
        session: &mut Session,
        view: &LayerView<'_>,
    ) -> Result<Vec<Vec<f32>>, Failure> {
        let (lens, frame) = match self.ask_layer(session, view, Question::Score)? {
            (Answer::Scores { lens }, frame) => (lens, frame),
            (other, _) => return Err(unfit(&other)),
        };
        let expected: Vec<usize> = (0..view.heads()).map(|head| view.len(head)).collect();
        let rows = frame.numbers().rows(&lens, f32::from_le_bytes);
        rows.filter(|_| lens == expected).ok_or_else(|| {
            Failure::Unfit(format!(
                "with scores of {lens:?} tokens for heads with {expected:?}"
            ))
        })
    }
}

impl Policy for DiskPolicy {
    fn failure(&self) -> Option<String> {
        Self::failure(self).map(|error| error.to_string())
    }

    fn needs(&self) -> Needs {
        self.bound.needs
    }

    fn room(&self, layer: usize, prompt: usize, budget: usize) -> Room {
        let of = |rooms: &Vec<Room>| rooms.get(layer).cloned();
        let known = self.rooms.lock().get(&(prompt, budget)).map(of);
        let room = known.unwrap_or_else(|| {
            let question = || format!("rooms for a prompt of {prompt} tokens");
            let ask = |session: &mut Session| self.ask_rooms(session, prompt, budget);
            let rooms = self.call(question, ask)?;
            let room = of(&rooms);
            let mut known = self.rooms.lock();
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert((prompt, budget), rooms);
            room
        });
        room.unwrap_or(Room::Each(budget))
    }

    /// What the policy says of itself, and how it failed if it has.
    fn notice(&self) -> Option<String> {
        let failed = Self::failure(self).map(|error| {
            format!("{error}; nothing is evicted since, and the policy is not asked again")
        });
        let said = self.bound.notice.clone();
        let notices: Vec<String> = said.into_iter().chain(failed).collect();
        (!notices.is_empty()).then(|| notices.join("; "))
    }

    fn scorer(&self) -> Option<&dyn Scorer> {
        self.bound.ranks.then_some(self)
    }

    fn plan(&self, view: &LayerView<'_>, keep: &mut KeepPlan) {
        let question = || format!("a plan of layer {}", view.layer);
        if let Some(said) = self.call(question, |session| self.ask_plan(session, view)) {
            said.to(keep);
        }
    }
}

impl Scorer for DiskPolicy {
    /// Where the call fails, no token is to be dropped.
    fn scores(&self, view: &LayerView<'_>) -> Vec<Vec<f32>> {
        let question = || format!("scores of layer {}", view.layer);
        let scores = self.call(question, |session| self.ask_scores(session, view));
        scores.unwrap_or_else(|| {
            let row = |head| vec![f32::INFINITY; view.len(head)];
            (0..view.heads()).map(row).collect()
        })
    }
}
