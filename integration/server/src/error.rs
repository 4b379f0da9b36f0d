//! Errors as OpenAI's clients read them.
use axum::{
    Json,
    extract::rejection::JsonRejection,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// An error for a client.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    param: Option<&'static str>,
}

impl ApiError {
    /// The client's mistake, in a field of its request.
    pub(crate) fn in_field(param: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
            param: Some(param),
        }
    }

    /// The client's mistake.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
            param: None,
        }
    }

    /// The body cannot be read.
    pub(crate) fn body_rejected(rejection: &JsonRejection) -> Self {
        Self {
            status: rejection.status(),
            message: rejection.body_text(),
            param: None,
        }
    }

    /// The server's.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            message: message.into(),
            param: None,
        }
    }

    /// The server ends before the answer does.
    pub(crate) fn stopping() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: "the server is stopping; the answer was cut off".into(),
            param: None,
        }
    }

    /// The model asked for is not here.
    pub(crate) fn no_model(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            message: message.into(),
            param: Some("model"),
        }
    }

    /// There is no such path.
    pub(crate) fn no_route() -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            message: "there is no such path; this server has /v1/chat/completions, /v1/completions, /v1/models, /health and \
                      /metrics"
                .into(),
            param: None,
        }
    }

    /// The path is there, for another method.
    pub(crate) fn no_method() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            message: "texts are asked for by POST, everything else by GET".into(),
            param: None,
        }
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
