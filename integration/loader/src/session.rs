//! A running program, asked one question at a time, and never waited for longer than a limit.
use std::{
    io::{self, BufReader},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use kv_core::Rotation;

use crate::{
    error::Failure,
    messages::{Answer, Question},
    wire::{self, Frame, NoFrame, Numbers},
};

/// How long a program that closed its pipes may take to end, for its exit status to be told.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// Most bytes of numbers in an answer.
const LARGEST: u64 = 1 << 30;

/// A program that is running. It is killed when this is dropped: between questions it has nothing to lose.
#[derive(Debug)]
pub(crate) struct Session {
    child: Child,
    questions: Sender<Vec<u8>>,
    answers: Receiver<Result<Frame, NoFrame>>,
    limit: Duration,
    /// The rotation that the program was told of.
    pub(crate) rotation: Option<Rotation>,
}

impl Session {
    /// Starts a program that may take `limit` for an answer.
    pub(crate) fn start(program: &Path, limit: Duration) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Ctrl-C is for the host, which may want to finish what it is answering.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("no pipes"));
        };
        let (questions, asked) = channel();
        let (answered, answers) = channel();
        let session = Self {
            child,
            questions,
            answers,
            limit,
            rotation: None,
        };
        // Pipes know no time limit; whoever waits for this thread does. It ends with the program or with the session.
        thread::Builder::new()
            .name("policy".into())
            .spawn(move || exchange(input, output, &asked, &answered))?;
        Ok(session)
    }

    /// Asks a question that is answered without numbers.
    pub(crate) fn ask(&mut self, question: &Question) -> Result<Answer, Failure> {
        self.ask_with(question, &Numbers::default())
            .map(|(answer, _)| answer)
    }

    /// Asks a question; the answer's numbers are in the frame.
    pub(crate) fn ask_with(
        &mut self,
        question: &Question,
        numbers: &Numbers,
    ) -> Result<(Answer, Frame), Failure> {
        let frame = self.ask_raw(question, numbers)?;
        match frame.message().map_err(Failure::Garbage)? {
            Answer::Panicked(text) => Err(Failure::Panicked(text)),
            answer => Ok((answer, frame)),
        }
    }

    /// Asks a question, and leaves the answer as it came.
    pub(crate) fn ask_raw(
        &mut self,
        question: &Question,
        numbers: &Numbers,
    ) -> Result<Frame, Failure> {
        let bytes = wire::frame(question, numbers)
            .map_err(|error| Failure::Unfit(format!("nothing: it was not asked ({error})")))?;
        if self.questions.send(bytes).is_err() {
            return Err(self.ended());
        }
        match self.answers.recv_timeout(self.limit) {
            Ok(Ok(frame)) => Ok(frame),
            Ok(Err(NoFrame::Garbage(found))) => Err(Failure::Garbage(found)),
            Ok(Err(NoFrame::Ended)) | Err(RecvTimeoutError::Disconnected) => Err(self.ended()),
            Err(RecvTimeoutError::Timeout) => Err(Failure::Silent(self.limit)),
        }
    }

    /// How the program ended, if it does.
    fn ended(&mut self) -> Failure {
        let started = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Failure::Ended(status.to_string()),
                Ok(None) if started.elapsed() < LAST_BREATH => {
                    thread::sleep(Duration::from_millis(1));
                }
                _ => return Failure::Ended("it runs on with its pipes closed".into()),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Either fails only if the program has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes each question and reads its answer, until either side ends.
fn exchange(
    mut input: ChildStdin,
    output: ChildStdout,
    asked: &Receiver<Vec<u8>>,
    answered: &Sender<Result<Frame, NoFrame>>,
) {
    let mut output = BufReader::new(output);
    for question in asked {
        let written = wire::write(&mut input, &question);
        let answer = match (written, Frame::read(&mut output, LARGEST)) {
            (Ok(()), answer) => answer,
            // What it said before it went tells more than that it went.
            (Err(_), Err(garbage)) => Err(garbage),
            (Err(error), Ok(_)) => Err(error.into()),
        };
        let is_last = answer.is_err();
        if answered.send(answer).is_err() || is_last {
            return;
        }
    }
}
