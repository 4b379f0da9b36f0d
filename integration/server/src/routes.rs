//! The routes.
use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State, rejection::JsonRejection},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use mistralrs_kv::Engine;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    answer::respond,
    error::ApiError,
    metrics::Metrics,
    request::{Endpoint, Reader},
};

/// Largest body of a request: as in mistral.rs's own server.
const LARGEST_BODY: usize = 50 << 20;

/// An engine with routes around it.
#[derive(Debug)]
pub struct Server {
    engine: Engine,
    name: String,
    pins_system: bool,
}

/// What the handlers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    name: String,
    pins_system: bool,
    pub(crate) metrics: Metrics,
    cut: watch::Sender<bool>,
}

impl Server {
    /// Serves the engine's model under `name`, and under `default`.
    #[must_use]
    pub fn new(engine: Engine, name: impl Into<String>) -> Self {
        Self {
            engine,
            name: name.into(),
            pins_system: false,
        }
    }

    /// Pins the system prompt of every chat that does not say what it pins.
    #[must_use]
    pub const fn pin_system(mut self, pins: bool) -> Self {
        self.pins_system = pins;
        self
    }

    /// The routes, to be merged into an application of your own: `/v1/chat/completions`, `/v1/completions`, `/v1/models`,
    /// `/health`, `/metrics`.
    ///
    /// ```no_run
    /// # #[tokio::main] async fn main() -> anyhow::Result<()> {
    /// # let config = mistralrs_kv::EngineConfig::new("model.gguf");
    /// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// use mistralrs_kv_server::Server;
    ///
    /// let server = Server::new(config.start().await?, "smollm2").pin_system(true);
    /// let app = axum::Router::new()
    ///     .route("/hello", axum::routing::get(|| async { "hello" }))
    ///     .merge(server.router());
    /// axum::serve(listener, app).await?;
    /// # Ok(()) }
    /// ```
    pub fn router(self) -> Router {
        routes(self.share())
    }

    pub(crate) fn share(self) -> Arc<Shared> {
        Arc::new(Shared {
            metrics: Metrics::new(self.engine.runtime().cloned()),
            engine: self.engine,
            name: self.name,
            pins_system: self.pins_system,
            cut: watch::Sender::new(false),
        })
    }
}

pub(crate) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route(Endpoint::Chat.path(), post(chat))
        .route(Endpoint::Completion.path(), post(completion))
        .route("/v1/models", get(models))
        .route("/health", get(|| async { "OK" }))
        .route("/metrics", get(metrics))
        .fallback(|| async { ApiError::no_route() })
        .method_not_allowed_fallback(|| async { ApiError::no_method() })
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(shared)
}

type Body = Result<Json<Value>, JsonRejection>;

async fn chat(State(shared): State<Arc<Shared>>, body: Body) -> Response {
    shared.answer(Endpoint::Chat, body).await
}

async fn completion(State(shared): State<Arc<Shared>>, body: Body) -> Response {
    shared.answer(Endpoint::Completion, body).await
}

async fn models(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let created = shared.engine.mistralrs().get_creation_time();
    let model =
        |id: &str| json!({ "id": id, "object": "model", "created": created, "owned_by": "local" });
    Json(json!({ "object": "list", "data": [model(&shared.name), model("default")] }))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match shared.metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => ApiError::internal(error.to_string()).into_response(),
    }
}

impl Shared {
    async fn answer(&self, endpoint: Endpoint, body: Body) -> Response {
        let mut on_its_way = self.metrics.begin(endpoint);
        let sent = match body {
            Ok(Json(body)) => {
                let reader = Reader {
                    engine: &self.engine,
                    name: &self.name,
                    pins_system: self.pins_system,
                    cut: &self.cut.subscribe(),
                };
                reader.send(endpoint, body).await
            }
            Err(rejection) => Err(ApiError::body_rejected(&rejection)),
        };
        match sent {
            Ok(sent) => respond(sent, on_its_way).await,
            Err(error) => {
                on_its_way.complete(error.status());
                error.into_response()
            }
        }
    }

    /// Cuts off every request that is being answered.
    pub(crate) fn cut_off(&self) {
        self.cut.send_replace(true);
    }
}
