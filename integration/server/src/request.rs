//! From a request's body to the engine's request, and to what it asks of its cache.
use either::Either;
use mistralrs_core::{
    MessageContent, NormalRequest, Request as EngineRequest, RequestMessage, Response,
    TokenizationRequest,
};
use mistralrs_kv::{Engine, RequestCache, RequestTerms};
use mistralrs_server_core::{
    chat_completion, completions,
    openai::{ChatCompletionRequest, CompletionRequest},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use serde_json::{Map, Value};
use tokio::sync::{
    mpsc::{Sender, channel},
    watch,
};

use crate::{answer::Answers, error::ApiError};

/// The field `kv_cache` of a request's body; with OpenAI's Python client it goes into `extra_body`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KvCacheField {
    /// A budget of its own: `"256"`, `"25%"`, `"64MiB"`, `"full"`.
    pub budget: Option<String>,
    /// What is never evicted.
    #[serde(deserialize_with = "pin")]
    pub pin: Option<Beginning>,
    /// What is compressed by itself, for other requests that begin with the same and say so.
    #[serde(deserialize_with = "shared_prefix")]
    pub shared_prefix: Option<Beginning>,
}

/// A part of a prompt that begins with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// So many tokens at the start.
    Tokens(u32),
    /// `"system"`: the system messages that a chat begins with, as the chat template writes them.
    System,
}

fn pin<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Beginning>, D::Error> {
    beginning("pin", &Value::deserialize(value)?).map_err(Error::custom)
}

fn shared_prefix<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Beginning>, D::Error> {
    beginning("shared_prefix", &Value::deserialize(value)?).map_err(Error::custom)
}

fn beginning(field: &str, value: &Value) -> Result<Option<Beginning>, String> {
    let tokens = value.as_u64().and_then(|tokens| u32::try_from(tokens).ok());
    match (tokens, value.as_str()) {
        _ if value.is_null() => Ok(None),
        (Some(tokens), _) => Ok(Some(Beginning::Tokens(tokens))),
        (None, Some("system")) => Ok(Some(Beginning::System)),
        (None, _) => Err(format!(
            "`{field}` is {value}, must be \"system\" or a number of tokens"
        )),
    }
}

/// Which of the two endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Chat,
    Completion,
}

impl Endpoint {
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completion => "/v1/completions",
        }
    }
}

/// A request that the engine has been sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) answers: Answers,
    pub(crate) is_streaming: bool,
}

/// What requests are read against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) engine: &'a Engine,
    /// The name that the model is served under.
    pub(crate) name: &'a str,
    /// Whether system prompts are pinned for requests that do not say.
    pub(crate) pins_system: bool,
    /// True once the server waits no longer.
    pub(crate) cut: &'a watch::Receiver<bool>,
}

impl Reader<'_> {
    /// Reads a body and sends the engine what it asks for.
    pub(crate) async fn send(&self, endpoint: Endpoint, body: Value) -> Result<Sent, ApiError> {
        let (asked, body) = self.split(body)?;
        // Room for every piece of the longest answer: the engine would wait for a client that does not read.
        let (sender, answers) = channel(self.engine.max_positions() + 2);
        let (mut request, is_streaming) = self.parse(endpoint, body, &sender).await?;
        let terms = self.terms(asked, &request, &sender).await?;
        drop(sender);
        // The name has been checked; the engine knows its model by another.
        request.model_id = None;
        self.pass_on(EngineRequest::Normal(request)).await?;
        let answers = Answers {
            channel: answers,
            model: self.name.to_owned(),
            cut: self.cut.clone(),
            _terms: terms,
        };
        Ok(Sent {
            answers,
            is_streaming,
        })
    }

    /// Takes what is ours out of the body, and checks the model's name.
    fn split(&self, body: Value) -> Result<(KvCacheField, Value), ApiError> {
        let Value::Object(mut body) = body else {
            return Err(ApiError::invalid("the body must be a JSON object"));
        };
        let asked = match body.remove("kv_cache") {
            None | Some(Value::Null) => KvCacheField::default(),
            Some(field) => serde_json::from_value(field)
                .map_err(|e| ApiError::in_field("kv_cache", format!("`kv_cache`: {e}")))?,
        };
        if let Some(model) = body.get("model").and_then(Value::as_str)
            && ![self.name, "default"].contains(&model)
        {
            return Err(ApiError::no_model(format!(
                "the model `{model}` is not served here, only `{}`, which is also called `default`",
                self.name
            )));
        }
        body.insert("model".into(), "default".into());
        refuse_media(body.get("messages"))?;
        refuse_fields(&body)?;
        Ok((asked, Value::Object(body)))
    }

    async fn parse(
        &self,
        endpoint: Endpoint,
        body: Value,
        sender: &Sender<Response>,
    ) -> Result<(Box<NormalRequest>, bool), ApiError> {
        let (state, sender) = (self.engine.mistralrs().clone(), sender.clone());
        let parsed = match endpoint {
            Endpoint::Chat => {
                let body: ChatCompletionRequest = typed(body)?;
                chat_completion::parse_request(body, state, sender).await
            }
            Endpoint::Completion => {
                let body: CompletionRequest = typed(body)?;
                completions::parse_request(body, state, sender)
            }
        };
        match parsed {
            Ok((EngineRequest::Normal(request), is_streaming)) => Ok((request, is_streaming)),
            Ok(_) => Err(ApiError::internal("the request was read as something else")),
            Err(error) => Err(ApiError::invalid(format!("{error:#}"))),
        }
    }

    /// Tells the runtime what the request asks of its cache, if it asks for anything.
    async fn terms(
        &self,
        asked: KvCacheField,
        request: &NormalRequest,
        sender: &Sender<Response>,
    ) -> Result<Option<RequestTerms>, ApiError> {
        let mut cache = RequestCache::default();
        if let Some(budget) = asked.budget {
            let budget = budget
                .parse()
                .map_err(|e| ApiError::in_field("kv_cache.budget", format!("{e}")))?;
            cache.budget = Some(budget);
        }
        let pin = match asked.pin {
            None if self.pins_system && has_system(request) => Some(Beginning::System),
            pin => pin,
        };
        cache.pin_prefix = self.tokens_of("kv_cache.pin", pin, request).await?;
        let shared = self.tokens_of("kv_cache.shared_prefix", asked.shared_prefix, request);
        cache.shared_prefix = shared.await?;
        if cache == RequestCache::default() {
            return Ok(None);
        }
        let Some(runtime) = self.engine.runtime() else {
            let message = "this server runs without a KV-cache policy";
            return Err(ApiError::in_field("kv_cache", message));
        };
        runtime
            .keep_request(sender, &cache)
            .map(Some)
            .map_err(|e| ApiError::in_field("kv_cache", e.to_string()))
    }

    /// How long the beginning is that a field names.
    async fn tokens_of(
        &self,
        field: &'static str,
        asked: Option<Beginning>,
        request: &NormalRequest,
    ) -> Result<Option<u32>, ApiError> {
        match asked {
            None => Ok(None),
            Some(Beginning::Tokens(tokens)) => Ok(Some(tokens)),
            Some(Beginning::System) => self.system_tokens(field, request).await.map(Some),
        }
    }

    /// Tokens that the chat template writes before the first word that is not the system's: what the prompt has in common
    /// with one whose first other message begins with another letter.
    async fn system_tokens(
        &self,
        field: &'static str,
        request: &NormalRequest,
    ) -> Result<u32, ApiError> {
        let refuse = |message: &str| {
            let name = field.trim_start_matches("kv_cache.");
            ApiError::in_field(field, format!("`{name}` {message}"))
        };
        let RequestMessage::Chat {
            messages,
            enable_thinking,
            reasoning_effort,
        } = &request.messages
        else {
            return Err(refuse(
                "can be \"system\" for a chat only; give a number of tokens",
            ));
        };
        let systems = messages.iter().take_while(|m| is_system(m)).count();
        if systems == 0 {
            return Err(refuse(
                "is \"system\", but the first message is not the system's",
            ));
        }
        let Some(first) = messages.get(systems) else {
            return Err(refuse(
                "is \"system\", but there is no other message than the system's",
            ));
        };
        let mut other = messages[..=systems].to_vec();
        let begins_with_a =
            matches!(first.get("content"), Some(Either::Left(text)) if text.starts_with('a'));
        let letter = if begins_with_a { "b" } else { "a" };
        other[systems].insert("content".into(), Either::Left(letter.into()));
        let tokens = |messages| {
            self.tokens(|response| TokenizationRequest {
                text: Either::Left(messages),
                tools: request.tools.clone(),
                add_generation_prompt: true,
                add_special_tokens: true,
                enable_thinking: *enable_thinking,
                reasoning_effort: *reasoning_effort,
                response,
            })
        };
        let same = tokens(messages[..=systems].to_vec()).await?;
        let other = tokens(other).await?;
        let common = same.iter().zip(&other).take_while(|(a, b)| a == b).count();
        u32::try_from(common).map_err(|_| refuse("is \"system\", which is too long"))
    }

    async fn tokens(
        &self,
        request: impl FnOnce(Sender<anyhow::Result<Vec<u32>>>) -> TokenizationRequest,
    ) -> Result<Vec<u32>, ApiError> {
        let (sender, mut answer) = channel(1);
        self.pass_on(EngineRequest::Tokenize(request(sender)))
            .await?;
        match answer.recv().await {
            Some(Ok(tokens)) => Ok(tokens),
            Some(Err(error)) => Err(ApiError::invalid(format!("{error:#}"))),
            None => Err(ApiError::internal("the engine has stopped")),
        }
    }

    async fn pass_on(&self, request: EngineRequest) -> Result<(), ApiError> {
        let stopped = || ApiError::internal("the engine has stopped");
        let engine = self
            .engine
            .mistralrs()
            .get_sender(None)
            .map_err(|_| stopped())?;
        engine.send(request).await.map_err(|_| stopped())
    }
}

fn typed<T: DeserializeOwned>(body: Value) -> Result<T, ApiError> {
    serde_json::from_value(body).map_err(|e| ApiError::invalid(format!("the body: {e}")))
}

fn is_system(message: &indexmap::IndexMap<String, MessageContent>) -> bool {
    matches!(message.get("role"), Some(Either::Left(role)) if role == "system" || role == "developer")
}

fn has_system(request: &NormalRequest) -> bool {
    match &request.messages {
        RequestMessage::Chat { messages, .. } => {
            messages.first().is_some_and(is_system) && messages.iter().any(|m| !is_system(m))
        }
        _ => false,
    }
}

/// Fields under which the engine does something else than answer.
fn refuse_fields(body: &Map<String, Value>) -> Result<(), ApiError> {
    let given = |field: &str| body.get(field).is_some_and(|value| !value.is_null());
    if given("web_search_options") {
        // It would also answer through a channel of its own, so that the request's terms would not be found.
        let message = "this server does not search the web; leave `web_search_options` out";
        return Err(ApiError::in_field("web_search_options", message));
    }
    let several = body.get("n").and_then(Value::as_u64).unwrap_or(1) > 1;
    if several && body.get("stream").and_then(Value::as_bool) == Some(true) {
        // The engine gathers pieces of all choices and loses the last ones when the choices differ in length.
        let message = "`n` is above 1 with `stream`; ask for several choices without `stream`";
        return Err(ApiError::in_field("n", message));
    }
    Ok(())
}

/// The engine's own reader would fetch pictures from wherever a request says, for models that read text only.
fn refuse_media(messages: Option<&Value>) -> Result<(), ApiError> {
    let parts = messages
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|message| message.get("content")?.as_array())
        .flatten();
    for part in parts {
        let kind = part.get("type").and_then(Value::as_str);
        if kind != Some("text") {
            return Err(ApiError::in_field(
                "messages",
                format!(
                    "a part of a message is of type `{}`; this model reads `text` only",
                    kind.unwrap_or("unknown")
                ),
            ));
        }
    }
    Ok(())
}
