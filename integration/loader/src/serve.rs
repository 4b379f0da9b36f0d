//! The program's side: one policy, asked over its standard input.
use std::{
    cell::{OnceCell, RefCell},
    fmt,
    io::{self, BufReader, IsTerminal, Stdin, Stdout},
    panic::{AssertUnwindSafe, catch_unwind},
    process::{ExitCode, exit},
};

use kv_core::{
    ConfigError, Description, Geometry, KeepPlan, LayerView, Needs, Observation, Policy,
    PolicyConfig, Registry, Rotation, ScoreSource, Verb,
};
use serde_json::Value;

use crate::{
    messages::{ABI, Amount, Answer, Hello, Layer, PROTOCOL, Question, Refusal},
    rows::Shown,
    wire::{self, Frame, NoFrame, Numbers},
};

/// Most bytes of numbers in a question.
const LARGEST: u64 = 1 << 36;
/// The exit code of a program whose host asks what makes no sense.
const MISUSED: u8 = 2;

/// Answers a host's questions about the policy that `C` configures until the host ends; the whole of a policy's `main`.
///
/// Standard output is for answers: a policy that wants to say something uses `eprintln!`.
#[must_use]
pub fn serve<C: PolicyConfig + 'static>() -> ExitCode {
    serve_among::<C>(Registry::default())
}

/// As [`serve`], for a method over another ([`kv_core::Over`]), which it finds in `registry`.
#[must_use]
pub fn serve_among<C: PolicyConfig + 'static>(mut registry: Registry) -> ExitCode {
    registry.add::<C>();
    let description = Description::of::<C>();
    if io::stdin().is_terminal() {
        eprintln!(
            "{description}\n\nThis is a policy for a program that loads it, and asks it over its standard input."
        );
        return ExitCode::from(MISUSED);
    }
    let mut program = Program {
        host: Host::new(),
        registry,
        description,
        bound: None,
    };
    match program.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("policy {}: {reason}", program.description.name);
            ExitCode::from(MISUSED)
        }
    }
}

/// A program and its host. Errors are questions that make no sense.
struct Program {
    host: Host,
    registry: Registry,
    description: Description,
    bound: Option<Bound>,
}

/// A policy that the host has bound.
struct Bound {
    policy: Box<dyn Policy>,
    needs: Needs,
    layers: usize,
    rotation: Option<Rotation>,
}

impl Program {
    fn run(&mut self) -> Result<(), String> {
        while let Some((frame, question)) = self.host.next()? {
            let (answer, numbers) = self.answer(&frame, question)?;
            self.host.answer(&answer, &numbers)?;
        }
        Ok(())
    }

    fn answer(&mut self, frame: &Frame, question: Question) -> Result<(Answer, Numbers), String> {
        let bound = || "was asked before it was bound";
        let alone = |answer| Ok((answer, Numbers::default()));
        match question {
            Question::Hello { .. } => alone(Answer::Hello(Hello {
                protocol: PROTOCOL,
                abi: ABI,
                name: self.description.name.into(),
                summary: self.description.summary.into(),
                fields: self.description.fields.clone(),
            })),
            Question::Bind {
                fields,
                geometry,
                budget,
            } => Ok(guarded(|| {
                (self.bind(fields, &geometry, &budget), Numbers::default())
            })),
            Question::Rooms { prompt, budget } => {
                let bound = self.bound.as_ref().ok_or_else(bound)?;
                let room = |layer| bound.policy.room(layer, prompt, budget);
                Ok(guarded(|| {
                    let rooms = (0..bound.layers).map(room).collect();
                    (Answer::Rooms(rooms), Numbers::default())
                }))
            }
            Question::Plan(layer) => {
                let bound = self.bound.as_mut().ok_or_else(bound)?;
                look(&self.host, bound, &layer, frame, plan)
            }
            Question::Score(layer) => {
                let bound = self.bound.as_mut().ok_or_else(bound)?;
                look(&self.host, bound, &layer, frame, score)
            }
            Question::Observed { .. } => Err("was shown scores that it did not ask for".into()),
        }
    }

    fn bind(&mut self, fields: Value, geometry: &Geometry, budget: &Amount) -> Answer {
        match self.bound(fields, geometry, budget) {
            Ok(bound) => {
                let answer = Answer::Bound {
                    needs: bound.needs,
                    notice: bound.policy.notice(),
                    ranks: bound.policy.scorer().is_some(),
                };
                self.bound = Some(bound);
                answer
            }
            Err(error) => Answer::Refused(Refusal::of(error, self.description.name)),
        }
    }

    fn bound(
        &self,
        fields: Value,
        geometry: &Geometry,
        budget: &Amount,
    ) -> Result<Bound, ConfigError> {
        let name = self.description.name;
        let malformed = |reason: &str| ConfigError::Malformed {
            policy: name,
            reason: reason.into(),
        };
        let Value::Object(fields) = fields else {
            return Err(malformed("its configuration is no table of fields"));
        };
        let budget = budget
            .budget()
            .ok_or_else(|| malformed("its budget is no number"))?;
        let policy = self.registry.build(name, fields, geometry, budget)?;
        Ok(Bound {
            needs: policy.needs(),
            policy,
            layers: geometry.layers,
            rotation: None,
        })
    }
}

/// Shows a layer to the policy, with scores that cross if it reads them.
fn look(
    host: &Host,
    bound: &mut Bound,
    layer: &Layer,
    frame: &Frame,
    answer: fn(&dyn Policy, &LayerView<'_>) -> (Answer, Numbers),
) -> Result<(Answer, Numbers), String> {
    let needs = bound.needs;
    let shown = Shown::unpack(layer, needs.reads, &mut bound.rotation, frame.numbers())
        .ok_or("was told of other numbers than those that followed")?;
    let source = Asked {
        host,
        lens: layer.held(),
        rows: OnceCell::new(),
    };
    let policy = &*bound.policy;
    Ok(shown.view(layer, bound.rotation.as_ref(), |view| {
        guarded(|| match needs.observation {
            Observation::None => answer(policy, &view),
            asked => answer(policy, &view.with_score_source(asked, &source)),
        })
    }))
}

fn plan(policy: &dyn Policy, view: &LayerView<'_>) -> (Answer, Numbers) {
    let mut keep = KeepPlan::all(view.heads());
    policy.plan(view, &mut keep);
    let (mut verbs, growth) = (keep.verbs().to_vec(), keep.growth().to_vec());
    let (mut lens, mut numbers) = (Vec::new(), Numbers::default());
    for verb in &mut verbs {
        if let Verb::TopBy { scores, .. } = verb {
            lens.push(scores.len());
            numbers.floats(&std::mem::take(scores));
        }
    }
    let answer = Answer::Plan {
        verbs,
        growth,
        lens,
    };
    (answer, numbers)
}

fn score(policy: &dyn Policy, view: &LayerView<'_>) -> (Answer, Numbers) {
    let rows = policy
        .scorer()
        .map_or_else(Vec::new, |scorer| scorer.scores(view));
    let mut numbers = Numbers::default();
    for row in &rows {
        numbers.floats(row);
    }
    let lens = rows.iter().map(Vec::len).collect();
    (Answer::Scores { lens }, numbers)
}

/// Makes a panic an answer.
fn guarded(answer: impl FnOnce() -> (Answer, Numbers)) -> (Answer, Numbers) {
    catch_unwind(AssertUnwindSafe(answer)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("(no text)").to_owned();
        (Answer::Panicked(text), Numbers::default())
    })
}

/// The host at the other ends of the pipes.
struct Host {
    input: RefCell<BufReader<Stdin>>,
    output: Stdout,
}

impl Host {
    fn new() -> Self {
        Self {
            input: RefCell::new(BufReader::new(io::stdin())),
            output: io::stdout(),
        }
    }

    /// The next question; `None` where the host has ended.
    fn next(&self) -> Result<Option<(Frame, Question)>, String> {
        match Frame::read(&mut *self.input.borrow_mut(), LARGEST) {
            Ok(frame) => {
                let question = frame
                    .message()
                    .map_err(|text| format!("was asked {text}"))?;
                Ok(Some((frame, question)))
            }
            Err(NoFrame::Ended) => Ok(None),
            Err(NoFrame::Garbage(found)) => Err(format!("was asked {found}")),
        }
    }

    fn answer(&self, answer: &Answer, numbers: &Numbers) -> Result<(), String> {
        wire::frame(answer, numbers)
            .and_then(|bytes| wire::write(&mut self.output.lock(), &bytes))
            .map_err(|error| format!("could not answer: {error}"))
    }

    /// Asks for what was observed of the layer that it was asked about.
    fn observed(&self, lens: &[usize]) -> Result<Vec<Vec<f32>>, String> {
        self.answer(&Answer::Read, &Numbers::default())?;
        match self.next()? {
            Some((frame, Question::Observed { lens: given })) if given == lens => frame
                .numbers()
                .rows(lens, f32::from_le_bytes)
                .ok_or_else(|| "was told of other scores than those that followed".into()),
            Some((_, other)) => Err(format!("asked for scores and was asked {other:?}")),
            None => Err("asked for scores and lost its host".into()),
        }
    }
}

/// Scores that cross only if the policy reads them.
struct Asked<'h> {
    host: &'h Host,
    lens: Vec<usize>,
    rows: OnceCell<Vec<Vec<f32>>>,
}

impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked")
            .field("lens", &self.lens)
            .finish_non_exhaustive()
    }
}

impl ScoreSource for Asked<'_> {
    fn rows(&self) -> &[Vec<f32>] {
        self.rows.get_or_init(|| {
            self.host.observed(&self.lens).unwrap_or_else(|reason| {
                eprintln!("a policy on disk {reason}");
                exit(MISUSED.into())
            })
        })
    }
}
