//! Authentication: the headers that every request of the public API carries.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::LocalState;
use super::error::ApiError;
use super::settings::{API_KEY, APP_ID, COMPANY_ID, USER_ID};
use modhost_core::browser_guard::{self, BrowserGuard};

/// Rejects requests without the local credentials.
pub async fn check(State(state): State<Arc<LocalState>>, request: Request, next: Next) -> Result<Response, ApiError> {
    // The SDK may omit the user in calls to a model.
    let user_needed = !request.uri().path().starts_with("/openai/");
    authenticate(&state, request.headers(), user_needed)?;
    Ok(next.run(request).await)
}

/// Rejects requests that a web page made a browser send, and prevents browsers from showing responses to pages.
pub async fn reject_web_pages(
    State(guard): State<Arc<ArcSwap<BrowserGuard>>>,
    request: Request,
    next: Next,
) -> Response {
    let (guard, uri, headers) = (guard.load_full(), request.uri(), request.headers());
    let checked = guard.check_host(uri, headers).and_then(|()| guard.check_origin(request.method(), uri, headers));
    let mut answer = match checked {
        Ok(()) => next.run(request).await,
        Err(error) if error.is_malformed() => ApiError::invalid(error.to_string()).into_response(),
        Err(error) => ApiError::forbidden(error.to_string()).into_response(),
    };
    browser_guard::add_security_headers(answer.headers_mut());
    answer
}

/// Rejects requests without the local key.
pub async fn check_key(request: Request, next: Next) -> Result<Response, ApiError> {
    authenticate_key(request.headers())?;
    Ok(next.run(request).await)
}

/// Checks the credentials of a request; the user only if it is present or `user_needed`.
pub fn authenticate(state: &LocalState, headers: &HeaderMap, user_needed: bool) -> Result<(), ApiError> {
    authenticate_key(headers)?;
    expect(headers, "x-app-id", APP_ID, "app").map_err(ApiError::unauthenticated)?;
    if !state.has_company(text(headers, "x-company-id")) {
        expect(headers, "x-company-id", COMPANY_ID, "company").map_err(ApiError::forbidden)?;
    }
    if user_needed || headers.contains_key("x-user-id") {
        expect(headers, "x-user-id", USER_ID, "user").map_err(ApiError::forbidden)?;
    }
    Ok(())
}

/// Checks only the key, as OpenAI's API does.
fn authenticate_key(headers: &HeaderMap) -> Result<(), ApiError> {
    let authorization = text(headers, header::AUTHORIZATION.as_str()).ok_or_else(|| {
        ApiError::unauthenticated(format!("the Authorization header is missing: send `Bearer {API_KEY}`"))
    })?;
    if authorization.strip_prefix("Bearer ").map(str::trim) != Some(API_KEY) {
        return Err(ApiError::unauthenticated(format!(
            "the local platform's only API key is {API_KEY:?}; the Authorization header has another"
        )));
    }
    Ok(())
}

fn expect(headers: &HeaderMap, name: &str, value: &str, what: &str) -> Result<(), String> {
    match text(headers, name) {
        Some(sent) if sent == value => Ok(()),
        Some(sent) => Err(format!("{name} is {sent:?}, but the local platform's only {what} is {value:?}")),
        None => Err(format!("the {name} header is missing: the local platform's only {what} is {value:?}")),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
