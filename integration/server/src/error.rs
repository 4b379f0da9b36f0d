//! Errors as OpenAI's clients read them.
use axum::{
    Json,
    extract::rejection::JsonRejection,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// An error for a client.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    param: Option<&'static str>,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
        }
    }

    /// The client's mistake, in a field of its request.
    pub(crate) fn in_field(param: &'static str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param),
            ..Self::invalid(message)
        }
    }

    /// The client's mistake.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The body cannot be read.
    pub(crate) fn body_rejected(rejection: &JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }

    /// The server's.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The server ends before the answer does.
    pub(crate) fn stopping() -> Self {
        let message = "the server is stopping; the answer was cut off";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    /// The model asked for is not here.
    pub(crate) fn no_model(message: impl Into<String>) -> Self {
        Self {
            param: Some("model"),
            ..Self::new(StatusCode::NOT_FOUND, message)
        }
    }

    /// There is no such path.
    pub(crate) fn no_route() -> Self {
        let message = "there is no such path; this server has /v1/chat/completions, /v1/completions, /v1/models, /health \
                       and /metrics";
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The path is there, for another method.
    pub(crate) fn no_method() -> Self {
        let message = "texts are asked for by POST, everything else by GET";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, message)
    }

    pub(crate) const fn status(&self) -> StatusCode {
        self.status
    }

    /// The body, also of an event in a stream that has begun.
    pub(crate) fn body(&self) -> Value {
        let kind = if self.status.is_client_error() {
            "invalid_request_error"
        } else {
            "server_error"
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": null } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}
