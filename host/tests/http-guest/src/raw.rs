//! Sends a request with the functions of `wasi:http`, without the checks of an SDK.

mod bindings {
    #![allow(missing_docs)]
    wit_bindgen::generate!({ path: "../../../wit", world: "http-client", generate_all });
}

use bindings::wasi::http::outgoing_handler;
use bindings::wasi::http::types::{Fields, Method, OutgoingBody, OutgoingRequest, Scheme};

/// Sends a request over plain HTTP, with these headers and, if it is not empty, this body. Returns the errors of all
/// steps, and the status of the response.
pub fn send(method: &str, url: &str, headers: &[(String, String)], body: &[u8]) -> Vec<String> {
    let mut results = Vec::new();
    let fields = Fields::new();
    for (name, value) in headers {
        if let Err(error) = fields.append(name, value.as_bytes()) {
            results.push(format!("header: {error:?}"));
        }
    }
    let request = OutgoingRequest::new(fields);
    let authority = url.trim_start_matches("http://").trim_end_matches('/');
    let method = if method == "POST" { Method::Post } else { Method::Get };
    let set = request.set_method(&method).and(request.set_scheme(Some(&Scheme::Http)));
    let set = set.and(request.set_path_with_query(Some("/")));
    if set.and(request.set_authority(Some(authority))).is_err() {
        results.push("invalid request".into());
    }
    let outgoing = if body.is_empty() { None } else { request.body().ok() };
    let answer = match outgoing_handler::handle(request, None) {
        Ok(answer) => answer,
        Err(code) => {
            results.push(format!("handle: {code:?}"));
            return results;
        }
    };
    if let Some(outgoing) = outgoing {
        if let Ok(stream) = outgoing.write()
            && let Err(error) = stream.blocking_write_and_flush(body)
        {
            results.push(format!("write: {error:?}"));
        }
        if let Err(code) = OutgoingBody::finish(outgoing, None) {
            results.push(format!("finish: {code:?}"));
        }
    }
    answer.subscribe().block();
    results.push(match answer.get() {
        Some(Ok(Ok(answer))) => format!("status: {}", answer.status()),
        Some(Ok(Err(code))) => format!("answer: {code:?}"),
        other => format!("answer: {}", other.is_some()),
    });
    results
}
