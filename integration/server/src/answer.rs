//! The engine's answers as JSON, or as events.
use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    http::StatusCode,
    response::{
        IntoResponse, Response as HttpResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::stream;
use mistralrs_core::Response;
use mistralrs_kv::{CONTEXT_FULL, RequestTerms};
use serde::Serialize;
use tokio::{
    sync::{mpsc::Receiver, watch},
    time::timeout,
};

use crate::{error::ApiError, metrics::OnItsWay, request::Sent};

/// How long a stream's head is held back so that a refusal can still be a status. A request that waits longer for room gets
/// its head, and a sign of life as often.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the engine says to one request.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) channel: Receiver<Response>,
    /// The name that the model is served under; the engine's own name for it is a path.
    pub(crate) model: String,
    /// True once the server waits no longer.
    pub(crate) cut: watch::Receiver<bool>,
    /// Holds the request's own terms until its answer is complete.
    pub(crate) _terms: Option<RequestTerms>,
}

impl Answers {
    /// The whole answer, or the next part of it.
    async fn next(&mut self) -> Result<Piece, ApiError> {
        tokio::select! {
            answer = self.channel.recv() => piece(answer, &self.model),
            // An error means that the server is gone altogether.
            _ = self.cut.wait_for(|&cut| cut) => Err(ApiError::stopping()),
        }
    }
}

/// Waits for the answer, or for its first piece.
pub(crate) async fn respond(sent: Sent, mut on_its_way: OnItsWay) -> HttpResponse {
    let Sent {
        mut answers,
        is_streaming,
    } = sent;
    let first = if is_streaming {
        let first = timeout(PATIENCE, answers.next()).await;
        first.ok().transpose()
    } else {
        answers.next().await.map(Some)
    };
    let next = match first {
        Ok(next) => next,
        Err(error) => {
            on_its_way.complete(error.status());
            return error.into_response();
        }
    };
    if let (false, Some(whole)) = (is_streaming, &next) {
        on_its_way.complete(StatusCode::OK);
        return whole.value.response();
    }
    let state = Stream {
        answers,
        on_its_way,
        next,
        end: End::Open,
    };
    Sse::new(stream::unfold(state, |mut state| async move {
        let event = state.event().await?;
        Some((Ok::<Event, Infallible>(event), state))
    }))
    .keep_alive(KeepAlive::new().interval(PATIENCE))
    .into_response()
}

/// A stream on its way.
struct Stream {
    answers: Answers,
    on_its_way: OnItsWay,
    /// A piece that has come already.
    next: Option<Piece>,
    end: End,
}

#[derive(PartialEq, Eq)]
enum End {
    Open,
    /// The last piece has gone, the end mark has not.
    Due,
    Past,
}

impl Stream {
    async fn event(&mut self) -> Option<Event> {
        match self.end {
            End::Past => return None,
            End::Due => {
                self.end = End::Past;
                self.on_its_way.complete(StatusCode::OK);
                return Some(Event::default().data("[DONE]"));
            }
            End::Open => (),
        }
        let next = match self.next.take() {
            Some(next) => Ok(next),
            None => self.answers.next().await,
        };
        Some(match next {
            Ok(piece) => {
                if piece.is_last {
                    self.end = End::Due;
                }
                piece.value.event()
            }
            Err(error) => {
                self.end = End::Past;
                self.on_its_way.complete(error.status());
                Event::default().data(error.body().to_string())
            }
        })
    }
}

/// A whole answer, or a part of one.
struct Piece {
    value: Box<dyn Body>,
    is_last: bool,
}

/// What can be sent either way.
trait Body: Send {
    fn response(&self) -> HttpResponse;
    fn event(&self) -> Event;
}

impl<T: Serialize + Send> Body for T {
    fn response(&self) -> HttpResponse {
        Json(self).into_response()
    }

    fn event(&self) -> Event {
        Event::default().json_data(self).unwrap_or_else(|error| {
            let error = ApiError::internal(error.to_string());
            Event::default().data(error.body().to_string())
        })
    }
}

/// The engine's words, and what OpenAI's have no word for.
#[derive(Serialize)]
struct Said<T> {
    #[serde(flatten)]
    answer: T,
    /// Whether a text has come to the last of the model's positions.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    context_full: bool,
}

impl<T: Serialize + Send + 'static> Said<T> {
    fn boxed(answer: T, context_full: bool) -> Box<dyn Body> {
        Box::new(Self {
            answer,
            context_full,
        })
    }
}

/// Puts reasons into the closed set that OpenAI's clients know, where a full context is `length`; says whether any was that.
fn in_openais_words<'a>(reasons: impl Iterator<Item = &'a mut String>) -> bool {
    let mut any = false;
    for reason in reasons.filter(|reason| *reason == CONTEXT_FULL) {
        "length".clone_into(reason);
        any = true;
    }
    any
}

fn piece(answer: Option<Response>, model: &str) -> Result<Piece, ApiError> {
    let (value, is_last): (Box<dyn Body>, bool) = match answer {
        Some(Response::Done(mut answer)) => {
            model.clone_into(&mut answer.model);
            let reasons = answer.choices.iter_mut().map(|c| &mut c.finish_reason);
            let context_full = in_openais_words(reasons);
            (Said::boxed(answer, context_full), true)
        }
        Some(Response::CompletionDone(mut answer)) => {
            model.clone_into(&mut answer.model);
            let reasons = answer.choices.iter_mut().map(|c| &mut c.finish_reason);
            let context_full = in_openais_words(reasons);
            (Said::boxed(answer, context_full), true)
        }
        Some(Response::Chunk(mut chunk)) => {
            model.clone_into(&mut chunk.model);
            let is_last = chunk.choices.iter().all(|c| c.finish_reason.is_some());
            let reasons = chunk.choices.iter_mut();
            let context_full = in_openais_words(reasons.filter_map(|c| c.finish_reason.as_mut()));
            (Said::boxed(chunk, context_full), is_last)
        }
        Some(Response::CompletionChunk(mut chunk)) => {
            model.clone_into(&mut chunk.model);
            let is_last = chunk.choices.iter().all(|c| c.finish_reason.is_some());
            let reasons = chunk.choices.iter_mut();
            let context_full = in_openais_words(reasons.filter_map(|c| c.finish_reason.as_mut()));
            (Said::boxed(chunk, context_full), is_last)
        }
        Some(Response::ValidationError(error)) => return Err(ApiError::invalid(error.to_string())),
        Some(Response::InternalError(error)) => return Err(internal(&error.to_string())),
        Some(Response::ModelError(error, _) | Response::CompletionModelError(error, _)) => {
            return Err(internal(&error));
        }
        Some(_) => return Err(internal("the engine sent another kind of answer than text")),
        None => {
            return Err(internal("the engine closed the request without an answer"));
        }
    };
    Ok(Piece { value, is_last })
}

/// The first line for the client, all of it for the log: the engine adds backtraces.
fn internal(error: &str) -> ApiError {
    tracing::error!("{error}");
    ApiError::internal(error.lines().next().unwrap_or_default())
}
