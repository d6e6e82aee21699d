//! Access to the admin API: requests with the token; without a configured token, programs on this machine.

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::api::ApiError;
use modhost_core::browser_guard::{BrowserGuard, GuardError};
use modhost_core::log_throttle::LogThrottle;
use modhost_core::secret::Secret;

/// The access rules of the admin listener. They can be replaced while it serves.
pub struct Access {
    rules: ArcSwap<AccessRules>,
    refused: LogThrottle,
}

/// The rules that decide whether a request may use the admin API.
pub struct AccessRules {
    /// The token that requests must carry. `None` if none is required, because only this machine can connect.
    pub token: Option<Secret>,
    /// Detects requests that a web page made a browser send.
    pub guard: BrowserGuard,
}

impl Access {
    /// Creates access rules, which apply until others are set.
    pub fn new(rules: AccessRules) -> Arc<Self> {
        Arc::new(Self { rules: ArcSwap::from_pointee(rules), refused: LogThrottle::default() })
    }

    /// Replaces the rules, from the next request on.
    pub fn set(&self, rules: AccessRules) {
        self.rules.store(Arc::new(rules));
    }

    /// Returns whether a request may see the data of the admin API.
    pub(super) fn permits(&self, headers: &HeaderMap) -> bool {
        self.rules.load().permits(headers)
    }

    /// Like `permits`, for a request that has not passed [`guard`].
    pub(super) fn permits_unchecked(&self, request: &Request) -> bool {
        self.check_page(request).is_ok() && self.permits(request.headers())
    }

    fn check_page(&self, request: &Request) -> Result<(), GuardError> {
        let AccessRules { token, guard } = &**self.rules.load();
        // No web page can know the token, whatever host name it uses. With a token, a proxy may therefore forward any
        // name.
        match guard.check_host(request.uri(), request.headers()) {
            Err(GuardError::NoHost | GuardError::ForeignHost(_)) if token.is_some() => {}
            checked => checked?,
        }
        guard.check_origin(request.method(), request.uri(), request.headers())
    }
}

impl AccessRules {
    /// Compares the token in constant time.
    fn permits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let mut given = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        let (Some(given), None) = (given.next(), given.next()) else { return false };
        const SCHEME: &[u8] = b"bearer ";
        let Some((scheme, given)) = given.split_at_checked(SCHEME.len()) else { return false };
        scheme.eq_ignore_ascii_case(SCHEME) && bool::from(token.expose().as_bytes().ct_eq(given.trim_ascii_start()))
    }
}

/// Rejects requests that do not carry the token.
pub(super) async fn authorize(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    if access.permits(request.headers()) {
        return next.run(request).await;
    }
    let problem =
        ApiError(StatusCode::UNAUTHORIZED, "the admin API requires the token of `admin_token` in [server]".into());
    ([(header::WWW_AUTHENTICATE, "Bearer")], problem).into_response()
}

/// Rejects requests that a web page made a browser send, and adds the security headers to every response.
pub(super) async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let mut response = match access.check_page(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            if let Some(more) = access.refused.now() {
                tracing::warn!(%error, suppressed = more.suppressed(), "admin request refused");
            }
            let status = if error.is_malformed() { StatusCode::BAD_REQUEST } else { StatusCode::FORBIDDEN };
            ApiError(status, error.to_string()).into_response()
        }
    };
    modhost_core::browser_guard::add_security_headers(response.headers_mut());
    response
}
