//! Reports requests that `wasmtime-wasi-http` refuses before the host sees them. The guest gets a code; the delivery's
//! log gets the reason.

use http::header;
use wasmtime::StoreContextMut;
use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler::Host as _;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Method, RequestOptions, Scheme};
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostOutgoingRequest};

use super::failure::{Failure, HttpErrorCode};
use super::request_body::wrong_length;
use super::{Host, log_failure, view};

/// `outgoing-handler.handle`: sends the request, and logs a refusal.
pub(super) fn handle<T: Host>(
    mut store: StoreContextMut<'_, T>,
    (request, options): (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>),
) -> wasmtime::Result<(Result<Resource<HostFutureIncomingResponse>, ErrorCode>,)> {
    let mut view = view(store.data_mut());
    let (description, content_length) = {
        let request = view.table.get(&request)?;
        let content_length = request.headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
        (describe(request), content_length)
    };
    let code = match view.handle(request, options) {
        Ok(answer) => return Ok((Ok(answer),)),
        Err(error) => error.downcast()?,
    };
    let failure = match (&code, content_length) {
        (ErrorCode::HttpRequestBodySize(_), Some(content_length)) => wrong_length(content_length, "none"),
        (ErrorCode::HttpRequestMethodInvalid, _) => {
            Failure::new(HttpErrorCode::Protocol, "its method is not valid in HTTP")
        }
        (ErrorCode::HttpRequestUriInvalid, _) => Failure::new(HttpErrorCode::RequestUri, "its URL is invalid"),
        (ErrorCode::InternalError(Some(why)), _) => Failure::new(HttpErrorCode::Internal, why.as_str()),
        (code, _) => Failure::new(HttpErrorCode::Protocol, code.to_string()),
    };
    let requests = &store.data_mut().capabilities().http.requests;
    log_failure(&requests.delivery, failure.with_request(&description));
    Ok((Err(code),))
}

/// Returns an incomplete request as logs show it. The query is omitted: it may contain a credential.
fn describe(request: &HostOutgoingRequest) -> String {
    let method = match &request.method {
        Method::Other(method) => method.clone(),
        known => format!("{known:?}").trim_start_matches("Method::").to_ascii_uppercase(),
    };
    let scheme = match &request.scheme {
        Some(Scheme::Http) => "http",
        Some(Scheme::Other(scheme)) => scheme,
        Some(Scheme::Https) | None => "https",
    };
    let path = request.path_with_query.as_deref().unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let text = format!("{method} {scheme}://{}{path}", request.authority.as_deref().unwrap_or_default());
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}
