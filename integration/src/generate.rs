//! Asking the engine for text.
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use either::Either;
use indexmap::IndexMap;
use mistralrs_core::{
    CustomLogitsProcessor, MessageContent, NormalRequest, Request as EngineRequest, RequestMessage,
    Response, SamplingParams,
};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::{Engine, RequestCache, RequestTerms, StartError};

/// What to go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Messages (role, text), put into the model's chat template.
    Chat(Vec<(String, String)>),
    /// Plain text, to be continued.
    Text(String),
    /// Tokens, to be continued.
    Tokens(Vec<u32>),
}

impl Prompt {
    /// One message of the user.
    #[must_use]
    pub fn chat(text: impl Into<String>) -> Self {
        Self::Chat(vec![("user".into(), text.into())])
    }
}

/// A request for text.
#[derive(Clone)]
pub struct Request {
    /// What to go on from.
    pub prompt: Prompt,
    /// How to sample; its `max_len` is the most tokens to generate.
    pub sampling: SamplingParams,
    /// Called with each step's logits, for measurements and teacher forcing.
    pub logits: Option<Arc<dyn CustomLogitsProcessor>>,
    /// What it asks of its cache, where that differs from the engine's configuration.
    pub cache: RequestCache,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("prompt", &self.prompt)
            .field("sampling", &self.sampling)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// The most likely tokens, at most `max_tokens`.
    #[must_use]
    pub fn greedy(prompt: Prompt, max_tokens: usize) -> Self {
        let sampling = SamplingParams {
            max_len: Some(max_tokens),
            ..SamplingParams::deterministic()
        };
        Self {
            prompt,
            sampling,
            logits: None,
            cache: RequestCache::default(),
        }
    }

    /// Asks for a cache of its own kind: another budget, a pinned prefix.
    #[must_use]
    pub const fn with_cache(mut self, cache: RequestCache) -> Self {
        self.cache = cache;
        self
    }

    /// Lets `logits` see, and change, each step's logits.
    #[must_use]
    pub fn with_logits(
        mut self,
        logits: impl Fn(&Tensor, &[u32]) -> candle_core::Result<Tensor> + Send + Sync + 'static,
    ) -> Self {
        self.logits = Some(Arc::new(logits));
        self
    }
}

/// Why the text ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or a stop text did.
    Stop,
    /// The most tokens asked for.
    Length,
    /// The text has come to the last of the model's positions.
    ContextFull,
    /// As the engine says.
    Other(String),
}

/// What the engine calls [`Finish::ContextFull`].
pub const CONTEXT_FULL: &str = "context_full";

/// The text generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// Why it ends.
    pub finish: Finish,
}

impl Engine {
    /// Generates text and returns it as a whole.
    ///
    /// # Errors
    ///
    /// What the engine reports: a prompt that is too long, a forward pass that failed.
    pub async fn generate(&self, request: Request) -> Result<Answer> {
        self.stream(request, |_| true).await
    }

    /// Generates text and hands it out piece by piece; `on_text` returns whether to go on. When it says no, the request
    /// is cancelled: the engine notices at its next token and gives the pages back.
    ///
    /// # Errors
    ///
    /// As [`Engine::generate`].
    pub async fn stream(
        &self,
        request: Request,
        mut on_text: impl FnMut(&str) -> bool,
    ) -> Result<Answer> {
        let (mut answers, _terms) = self.send(request).await?;
        let mut text = String::new();
        while let Some(response) = answers.recv().await {
            let (piece, finish) = piece(response)?;
            text.push_str(&piece);
            if let Some(finish) = finish {
                on_text(&piece);
                return Ok(Answer {
                    text,
                    finish: finish_of(finish),
                });
            }
            if !on_text(&piece) {
                return Ok(Answer {
                    text,
                    finish: Finish::Other("canceled".into()),
                });
            }
        }
        bail!("the engine closed the request without an answer")
    }

    async fn send(&self, request: Request) -> Result<(Receiver<Response>, Option<RequestTerms>)> {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let messages = match request.prompt {
            Prompt::Chat(messages) => RequestMessage::Chat {
                messages: messages
                    .into_iter()
                    .map(|(role, text)| message(role, text))
                    .collect(),
                enable_thinking: None,
                reasoning_effort: None,
            },
            Prompt::Text(text) => RequestMessage::Completion {
                text,
                echo_prompt: false,
                best_of: None,
            },
            Prompt::Tokens(tokens) => RequestMessage::CompletionTokens(tokens),
        };
        let (sender, receiver) = channel(64);
        let terms = self.terms(&request.cache, &sender)?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut normal =
            NormalRequest::new_simple(messages, request.sampling, sender, id, None, None);
        normal.is_streaming = true;
        normal.logits_processors = request.logits.map(|logits| vec![logits]);
        let engine = self
            .mistralrs
            .get_sender(None)
            .map_err(|e| anyhow::anyhow!("{e}"))?;
        engine
            .send(EngineRequest::Normal(Box::new(normal)))
            .await
            .context("the engine has stopped")?;
        Ok((receiver, terms))
    }

    /// Lets the runtime know what a request asks of its cache; `None` if that is nothing of its own.
    fn terms(
        &self,
        cache: &RequestCache,
        client: &Sender<Response>,
    ) -> Result<Option<RequestTerms>, StartError> {
        if *cache == RequestCache::default() {
            return Ok(None);
        }
        let Some(runtime) = &self.runtime else {
            return Err(StartError::OutOfRange {
                field: "cache",
                value: format!("{cache:?}"),
                allowed: "left out where the engine runs without a policy".into(),
            });
        };
        runtime.keep_request(client, cache).map(Some)
    }
}

fn message(role: String, text: String) -> IndexMap<String, MessageContent> {
    IndexMap::from([
        ("role".into(), Either::Left(role)),
        ("content".into(), Either::Left(text)),
    ])
}

/// A piece of text and, with the last one, why it ends.
fn piece(response: Response) -> Result<(String, Option<String>)> {
    match response {
        Response::Chunk(chunk) => {
            let choice = chunk
                .choices
                .into_iter()
                .next()
                .context("the engine sent a chunk without a choice")?;
            Ok((
                choice.delta.content.unwrap_or_default(),
                choice.finish_reason,
            ))
        }
        Response::CompletionChunk(chunk) => {
            let choice = chunk
                .choices
                .into_iter()
                .next()
                .context("the engine sent a chunk without a choice")?;
            Ok((choice.text, choice.finish_reason))
        }
        Response::InternalError(error) | Response::ValidationError(error) => bail!("{error}"),
        Response::ModelError(error, _) | Response::CompletionModelError(error, _) => {
            bail!("{error}")
        }
        _ => bail!("the engine sent another kind of answer than text"),
    }
}

fn finish_of(reason: String) -> Finish {
    match reason.as_str() {
        "stop" => Finish::Stop,
        "length" => Finish::Length,
        CONTEXT_FULL => Finish::ContextFull,
        _ => Finish::Other(reason),
    }
}
