//! The platform's errors, and extractors that reject with them.
//!
//! The body is `{"error": {"code", "message", "params"}}`: given an object there, the official Python SDK picks its
//! exception type by the status (400 and 404 `InvalidRequestError`, 401 `AuthenticationError`, 403 `PermissionError`,
//! 429 `RateLimitError`, others `APIError`); given a string it always raises `APIError`.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::chats::StoreError;

/// An error response of the API.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    params: Value,
    retry_after: Option<Duration>,
}

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), params: json!({}), retry_after: None }
    }

    /// 400: the request is invalid; a retry can't succeed.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "INVALID_REQUEST", message)
    }

    /// 401: missing or unknown credentials.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", message)
    }

    /// 403: the credentials are valid, but not allowed.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", message)
    }

    /// 404: the object that the request names doesn't exist.
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", format!("there is no {what} {id:?}"))
    }

    /// 404: the path doesn't exist.
    pub fn no_such_call(method: &str, path: &str) -> Self {
        let message = format!("the local platform has no such call: {method} {path}");
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    /// 405: the path exists, but not for this method.
    pub fn wrong_method(method: &str, path: &str) -> Self {
        let message =
            format!("{path} doesn't support {method}: the Allow header of this response lists the supported methods");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", message)
    }

    /// 413: the body is larger than the platform accepts.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
    }

    /// 429: too many requests; `retry_after` is the delay before a retry.
    pub fn rate_limited(message: impl Into<String>, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..Self::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", message) }
    }

    /// 501: the real platform has this call, the local one doesn't. The SDK must not retry.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "UNSUPPORTED", message).not_retryable()
    }

    /// 502: the completion endpoint misbehaves; a retry can't succeed until someone changes the configuration.
    pub fn bad_upstream(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "BAD_UPSTREAM", message).not_retryable()
    }

    /// 503: the completion endpoint is unavailable or unreachable.
    pub fn upstream_unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UPSTREAM_UNAVAILABLE", message)
    }

    /// 504: the completion endpoint didn't answer within the request's time limit.
    pub fn upstream_timeout(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "UPSTREAM_TIMEOUT", message).not_retryable()
    }

    /// 500: an error of the emulator itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", message)
    }

    /// Sets `params.retryable` to false; otherwise the SDK retries after a 5xx.
    fn not_retryable(mut self) -> Self {
        self.params = json!({ "retryable": false });
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(message = %self.message, "local platform failed");
        }
        let body = json!({ "error": { "code": self.code, "message": self.message, "params": self.params } });
        let mut response = (self.status, Json(body)).into_response();
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, wait.as_secs().into());
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        // axum's text is "<operation>: <field>: <problem>"; the operation is of no use to a client.
        let text = rejection.body_text();
        let reason = text.split_once(": ").map_or(text.as_str(), |(_, reason)| reason);
        match rejection {
            JsonRejection::JsonSyntaxError(_) => Self::invalid(format!("the body is not JSON: {reason}")),
            _ => Self::invalid(format!("the body is invalid: {reason}")),
        }
    }
}

/// A JSON body with any content type; an invalid body is rejected with a 400 that names the field.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large("the body is larger than 16 MiB"),
            _ => ApiError::invalid(format!("the body could not be read: {}", rejection.body_text())),
        })?;
        let Json(body) = Json::from_bytes(&bytes)?;
        Ok(Self(body))
    }
}

/// The query string; an invalid one is rejected with a 400 that names the field.
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(params) = Query::try_from_uri(&parts.uri).map_err(|rejection| {
            ApiError::invalid(format!("the query string is invalid: {}", rejection.body_text()))
        })?;
        Ok(Self(params))
    }
}
