//! A request by the functions of `wasi:http` themselves: without what an SDK checks before.

mod bindings {
    #![allow(missing_docs)]
    wit_bindgen::generate!({ path: "../../../wit", world: "http-client", generate_all });
}

use bindings::wasi::http::outgoing_handler;
use bindings::wasi::http::types::{Fields, Method, OutgoingBody, OutgoingRequest, Scheme};

/// Sends a request to an address over plain HTTP, with these headers and this body, if it is not empty. What each step
/// answered that didn't go well, or the status.
pub fn send(method: &str, url: &str, headers: &[(String, String)], body: &[u8]) -> Vec<String> {
    let mut told = Vec::new();
    let fields = Fields::new();
    for (name, value) in headers {
        if let Err(error) = fields.append(name, value.as_bytes()) {
            told.push(format!("header: {error:?}"));
        }
    }
    let request = OutgoingRequest::new(fields);
    let authority = url.trim_start_matches("http://").trim_end_matches('/');
    let method = if method == "POST" { Method::Post } else { Method::Get };
    let set = request.set_method(&method).and(request.set_scheme(Some(&Scheme::Http)));
    let set = set.and(request.set_path_with_query(Some("/")));
    if set.and(request.set_authority(Some(authority))).is_err() {
        told.push("the request can't be made".into());
    }
    let outgoing = if body.is_empty() { None } else { request.body().ok() };
    let answer = match outgoing_handler::handle(request, None) {
        Ok(answer) => answer,
        Err(code) => {
            told.push(format!("handle: {code:?}"));
            return told;
        }
    };
    if let Some(outgoing) = outgoing {
        if let Ok(stream) = outgoing.write()
            && let Err(error) = stream.blocking_write_and_flush(body)
        {
            told.push(format!("write: {error:?}"));
        }
        if let Err(code) = OutgoingBody::finish(outgoing, None) {
            told.push(format!("finish: {code:?}"));
        }
    }
    answer.subscribe().block();
    told.push(match answer.get() {
        Some(Ok(Ok(answer))) => format!("status: {}", answer.status()),
        Some(Ok(Err(code))) => format!("answer: {code:?}"),
        other => format!("answer: {}", other.is_some()),
    });
    told
}
